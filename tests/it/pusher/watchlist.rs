//! Watchlists: who is online, told once to whoever watches, over a cluster (pusher.md §2.10).

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    cluster::field::{By, Field},
    support::{
        backend::Backend,
        pusher::{DEMO, OTHER, PusherClient, PusherMessage, setup},
        quoted, until,
    },
};

/// For `slave.member_grace`: no machine is so busy that what a test does takes as long.
const FOR_EVER: &str = "1h";

/// A client that watches users.
struct WatchClient {
    client: PusherClient,
    /// Whom it takes for online, and whom not.
    knows: BTreeMap<String, bool>,
}

fn with_watchlist(user: &str, watchlist: &Value) -> String {
    format!(r#"{{"id":{},"watchlist":{watchlist}}}"#, quoted(user))
}

impl WatchClient {
    async fn sign_in(field: &Field, slave: usize, user: &str, watchlist: &Value) -> Self {
        let mut client = connect(field, slave).await;
        let user_data = with_watchlist(user, watchlist);
        client.sign_in(&user_data).await;
        assert_eq!(client.next().await, PusherMessage::signed_in(&user_data));
        Self { client, knows: BTreeMap::new() }
    }

    /// The next news. What it knows already is never said again.
    async fn hears(&mut self) -> Vec<String> {
        let said = self.client.next().await;
        assert_eq!((&*said.event, &said.channel), ("pusher_internal:watchlist_events", &None), "{said:?}");
        let data = said.inner();
        let mut heard = Vec::new();
        for event in data["events"].as_array().expect("a list") {
            let online = match event["name"].as_str() {
                Some("online") => true,
                Some("offline") => false,
                _ => panic!("{said:?}"),
            };
            let users = event["user_ids"].as_array().expect("a list");
            assert!(!users.is_empty(), "{said:?}");
            for user in users {
                let user = user.as_str().expect("a string").to_owned();
                heard.push(format!("{}{user}", if online { '+' } else { '-' }));
                assert_ne!(self.knows.insert(user, online), Some(online), "told twice: {said:?}");
            }
        }
        heard.sort();
        heard
    }

    /// Listen until this is what it knows.
    async fn comes_to_know(&mut self, online: &[&str], offline: &[&str]) {
        let known = |users: &[&str], online| users.iter().map(|user| ((*user).to_owned(), online)).collect::<Vec<_>>();
        let wanted: BTreeMap<_, _> = known(online, true).into_iter().chain(known(offline, false)).collect();
        while self.knows != wanted {
            self.hears().await;
        }
    }
}

fn mark(round: usize) -> String {
    format!("mark-{round}")
}

async fn field_with(slaves: usize, grace: Option<&str>) -> Field {
    let listed = format!("{}{}", DEMO.listed("watchlist = true"), OTHER.listed(""));
    Field::start_with(By::Nats, 1, slaves, |setup| {
        let setup = setup.toml(&listed);
        match grace {
            Some(grace) => setup.set("slave.member_grace", grace),
            None => setup,
        }
    })
    .await
}

async fn connect(field: &Field, slave: usize) -> PusherClient {
    PusherClient::connect(field.slaves[slave % field.slaves.len()].slave(), DEMO).await
}

async fn signed_in(field: &Field, slave: usize, user: &str) -> PusherClient {
    let mut client = connect(field, slave).await;
    client.sign_in_as(user).await;
    client
}

async fn a_user_is_online_from_the_first_socket_to_the_last(slaves: usize) {
    let field = field_with(slaves, None).await;
    // numbers are ids, duplicates are one, and who watches may watch itself
    let mut bob = WatchClient::sign_in(&field, 0, "bob", &json!(["ann", "cay", "bob", 7, "ann"])).await;
    assert_eq!(bob.hears().await, ["+bob", "-7", "-ann", "-cay"], "all of it at once");
    let first = signed_in(&field, 1, "ann").await;
    assert_eq!(bob.hears().await, ["+ann"]);
    let second = signed_in(&field, 0, "ann").await;
    // a user of another dialect is the same user space; and another app has another
    let cay = field.listener(1 % slaves, DEMO.key, "cay", &[]).await;
    assert_eq!(bob.hears().await, ["+cay"]);
    let mut stranger = PusherClient::connect(field.slaves[0].slave(), OTHER).await;
    stranger.sign_in_as("7").await;
    // one more who watches the same, on the other slave, is told how it stands
    let mut eve = WatchClient::sign_in(&field, 1, "eve", &json!(["ann", "7"])).await;
    assert_eq!(eve.hears().await, ["+ann", "-7"]);
    first.socket.leave().await;
    let seven = signed_in(&field, 1, "7").await;
    assert_eq!((bob.hears().await, eve.hears().await), (vec!["+7".to_owned()], vec!["+7".to_owned()]));
    second.socket.leave().await;
    assert_eq!((bob.hears().await, eve.hears().await), (vec!["-ann".to_owned()], vec!["-ann".to_owned()]));
    // who signs in anew with another list watches that, and is told of it anew
    let user_data = with_watchlist("eve", &json!(["bob"]));
    eve.client.sign_in(&user_data).await;
    assert_eq!(eve.client.next().await, PusherMessage::signed_in(&user_data));
    eve.knows.clear();
    assert_eq!(eve.hears().await, ["+bob"]);
    drop(seven);
    assert_eq!(bob.hears().await, ["-7"]);
    drop(cay);
    assert_eq!(bob.hears().await, ["-cay"]);
    bob.client.socket.leave().await;
    assert_eq!(eve.hears().await, ["-bob"]);
    eve.client.is_quiet().await;
}

#[tokio::test]
async fn a_user_is_online_from_the_first_socket_to_the_last_on_one_slave() {
    a_user_is_online_from_the_first_socket_to_the_last(1).await;
}

#[tokio::test]
async fn a_user_is_online_from_the_first_socket_to_the_last_on_two_slaves() {
    a_user_is_online_from_the_first_socket_to_the_last(2).await;
}

#[tokio::test]
async fn who_comes_back_in_a_moment_was_never_offline() {
    let field = field_with(2, Some(FOR_EVER)).await;
    let list = json!(["ann", "mark-0", "mark-1", "mark-2", "mark-3"]);
    let mut watchers =
        [WatchClient::sign_in(&field, 0, "bob", &list).await, WatchClient::sign_in(&field, 1, "eve", &list).await];
    for watcher in &mut watchers {
        assert_eq!(watcher.hears().await.len(), 5);
    }
    let mut ann = signed_in(&field, 0, "ann").await;
    for watcher in &mut watchers {
        assert_eq!(watcher.hears().await, ["+ann"]);
    }
    let mut marks = Vec::new();
    for round in 0..4 {
        ann.socket.leave().await;
        let online = || async { Backend::of(field.masters[0].master()).await.names("/api/demo/online").await };
        let there: Vec<_> = ["bob", "eve"].into_iter().map(str::to_owned).chain((0..round).map(mark)).collect();
        until("the backend sees that she is gone", there, online).await;
        // for those who watch she is not, as what comes next shows
        marks.push(signed_in(&field, round % 2, &mark(round)).await);
        for watcher in &mut watchers {
            assert_eq!(watcher.hears().await, [format!("+{}", mark(round))]);
            watcher.client.is_quiet().await;
        }
        ann = signed_in(&field, round % 2, "ann").await;
    }
    for watcher in &mut watchers {
        watcher.client.is_quiet().await;
    }
}

/// Each slave coordinates a third of forty users.
#[tokio::test]
async fn whoever_watches_knows_the_truth_when_a_coordinator_has_died_and_when_the_bus_was_gone() {
    let mut field = field_with(3, None).await;
    let names: Vec<_> = (0..40).map(|no| format!("user-{no}")).collect();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut watchers = [
        WatchClient::sign_in(&field, 0, "bob", &json!(names)).await,
        WatchClient::sign_in(&field, 1, "eve", &json!(names)).await,
    ];
    // ten each on slaves 0 and 1 and on the one that will die, five of those elsewhere, too
    let mut clients = Vec::new();
    for (no, user) in all.iter().enumerate().take(30) {
        clients.push(signed_in(&field, no % 3, user).await);
    }
    let elsewhere: Vec<_> = (0..5).map(|no| 3 * no + 2).collect();
    for no in &elsewhere {
        clients.push(signed_in(&field, 0, all[*no]).await);
    }
    for watcher in &mut watchers {
        watcher.comes_to_know(&all[..30], &all[30..]).await;
    }
    field.slaves[2].signal("KILL");
    field.slaves[2].ended().await;
    // in the middle of it more come
    for (no, user) in all.iter().enumerate().skip(30).take(5) {
        clients.push(signed_in(&field, no % 2, user).await);
    }
    let is_gone = |no: &usize| *no >= 35 || (*no < 30 && no % 3 == 2 && !elsewhere.contains(no));
    let (gone, there): (Vec<_>, Vec<_>) = (0..40).partition(is_gone);
    let named = |numbers: &[usize]| numbers.iter().map(|&no| all[no]).collect::<Vec<_>>();
    for watcher in &mut watchers {
        watcher.comes_to_know(&named(&there), &named(&gone)).await;
        watcher.client.is_quiet().await;
    }
    field.slaves.truncate(2);
    field.is_whole().await;
    for _ in 0..2 {
        field.restart_bus().await;
        field.is_whole().await;
        let late = signed_in(&field, 1, all[39]).await;
        for watcher in &mut watchers {
            assert_eq!(watcher.hears().await, ["+user-39"]);
        }
        late.socket.leave().await;
        for watcher in &mut watchers {
            assert_eq!(watcher.hears().await, ["-user-39"], "and nothing else");
            watcher.client.is_quiet().await;
        }
    }
}

/// Thirty thousand users, each watched by one socket: the dearest that a watchlist can be.
#[tokio::test]
async fn a_watched_user_takes_little_memory() {
    let field = field_with(1, None).await;
    let mut clients = Vec::new();
    for no in 0..300 {
        clients.push(signed_in(&field, 0, &format!("watcher-{no}")).await);
    }
    let before = field.slaves[0].resident();
    for (no, client) in clients.iter_mut().enumerate() {
        let users: Vec<_> = (0..100).map(|user| 100_000 + 100 * no + user).collect();
        let user_data = with_watchlist(&format!("watcher-{no}"), &json!(users));
        client.sign_in(&user_data).await;
        assert_eq!(client.next().await, PusherMessage::signed_in(&user_data));
    }
    for client in &mut clients {
        assert_eq!(client.next().await.event, "pusher_internal:watchlist_events");
    }
    let each = field.slaves[0].resident().saturating_sub(before) / 30_000;
    eprintln!("a user whom one socket watches takes {each} bytes");
    assert!(each < 1_500, "{each}");
}

#[tokio::test]
async fn of_a_watchlist_a_hundred_users_are_taken_and_a_bad_one_is_refused() {
    let server = setup().start().await;
    let mut plain = PusherClient::connect(server.slave(), DEMO).await;
    let data = with_watchlist("bob", &json!({ "no": "list" }));
    plain.sign_in(&data).await;
    assert_eq!(plain.next().await, PusherMessage::signed_in(&data), "without the switch nobody looks at it");
    plain.is_quiet().await;

    let field = field_with(1, None).await;
    let users = |count: usize| (0..count).collect::<Vec<_>>();
    for count in [0, 1, 100, 101, 10_000] {
        let mut client = connect(&field, 0).await;
        let data = with_watchlist("bob", &json!(users(count)));
        client.sign_in(&data).await;
        assert_eq!(client.next().await, PusherMessage::signed_in(&data));
        if count > 100 {
            let (code, words) = client.error().await;
            assert!(code == Some(4302) && words.contains(&count.to_string()), "{words}");
        }
        let mut client = WatchClient { client, knows: BTreeMap::new() };
        if count > 0 {
            client.hears().await;
        }
        assert_eq!(client.knows.len(), count.min(100));
        client.client.is_quiet().await;
    }
    let mut eve = connect(&field, 0).await;
    let long = "x".repeat(129);
    for (watchlist, words) in [
        (json!({}), "must be an array"),
        (json!("ann"), "must be an array"),
        (json!(["ann", null]), "a string or a number"),
        (json!([["ann"]]), "a string or a number"),
        (json!(["ann", ""]), "empty"),
        (json!([long]), "128 characters"),
    ] {
        eve.sign_in(&with_watchlist("eve", &watchlist)).await;
        let (code, said) = eve.error().await;
        assert!(code == Some(4009) && said.contains(words), "{said}");
    }
    let mut eve = WatchClient { client: eve, knows: BTreeMap::new() };
    let fits = ["x", &"y".repeat(128), &"世".repeat(128)];
    let data = with_watchlist("eve", &json!(fits));
    eve.client.sign_in(&data).await;
    assert_eq!(eve.client.next().await, PusherMessage::signed_in(&data), "the socket has stayed, and nobody's");
    eve.comes_to_know(&[], &fits).await;
}
