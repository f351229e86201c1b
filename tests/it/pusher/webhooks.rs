//! Webhooks (pusher.md §1.13): what is told, to whom, how often, whatever targets and slaves do.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    cluster::field::{By, Field},
    support::{
        backend::Backend,
        hook_target::{HookAnswer, HookTarget},
        pusher::{Api, DEMO, PusherClient, PusherMessage},
        server::{Server, Setup},
        until,
    },
};

const ROOM: &str = "presence-room";
/// No counts.
const FEW: &str = ", events = [\"channel_occupied\", \"client_event\"]";

fn hooked(setup: Setup, targets: &[String]) -> Setup {
    let app = format!("client_events = true\nwebhooks = [{}]", targets.join(", "));
    setup.set("webhooks.allow_private", "true").toml(&DEMO.listed(&app))
}

fn occupied(channel: &str) -> Value {
    json!({ "name": "channel_occupied", "channel": channel })
}

fn vacated(channel: &str) -> Value {
    json!({ "name": "channel_vacated", "channel": channel })
}

fn member(what: &str, user: &str) -> Value {
    json!({ "name": what, "channel": ROOM, "user_id": user })
}

fn said(by: &PusherClient, channel: &str, data: &str, user: Option<&str>) -> Value {
    let mut said =
        json!({ "name": "client_event", "channel": channel, "event": "client-x", "data": data, "socket_id": by.id });
    if let Some(user) = user {
        said["user_id"] = user.into();
    }
    said
}

fn sorted(mut events: Vec<Value>) -> Vec<Value> {
    events.sort_by_key(Value::to_string);
    events
}

async fn is_told_in_any_order(target: &HookTarget, wanted: &[Value]) {
    until("the target is told", sorted(wanted.to_vec()), || async { sorted(target.events(DEMO)) }).await;
}

/// What the master says of the webhooks.
async fn states(master: &Server) -> Vec<Value> {
    let answer = Backend::of(master.master()).await.ask("/v1/apps/demo/webhooks").await;
    answer["webhooks"].as_array().expect("a list").clone()
}

async fn resend(master: &Server, id: &str) -> u16 {
    let path = format!("/v1/apps/demo/webhooks/{id}/resend");
    Backend::of(master.master()).await.json("POST", &path, "").await.status
}

async fn requests(server: &Server, result: &str) -> f64 {
    server.metric("wellhead_webhook_requests_total", &format!("result=\"{result}\"")).await
}

async fn events(server: &Server, result: &str) -> f64 {
    server.metric("wellhead_webhook_events_total", &format!("result=\"{result}\"")).await
}

#[tokio::test]
async fn each_target_is_told_what_it_wants_and_nothing_that_is_taken_back() {
    let (all, some) = (HookTarget::start().await, HookTarget::start().await);
    let few = ", events = [\"member_added\", \"client_event\"], channels = [\"presence-*\"]";
    let targets = [all.listed(", header = \"X-Token: hush\""), some.listed(few)];
    let server = hooked(Setup::keyed(), &targets).start().await;
    let mut ann = PusherClient::connect(server.slave(), DEMO).await.subscribed("private-a").await;
    let mut bob = PusherClient::connect(server.slave(), DEMO).await;
    ann.join(ROOM, "ann").await;
    if !bob.join(ROOM, "bob").await.contains(&"ann".to_owned()) {
        // she had not been announced yet
        assert_eq!(bob.next().await.event, "pusher_internal:member_added");
    }
    let mut wanted =
        vec![occupied("private-a"), occupied(ROOM), member("member_added", "ann"), member("member_added", "bob")];
    is_told_in_any_order(&all, &wanted).await;
    assert_eq!(ann.next().await.event, "pusher_internal:member_added");

    // the channel is vacant for a moment, the member away until the others have heard so
    ann.unsubscribe("private-a").await;
    ann.subscribe("private-a").await;
    bob.unsubscribe(ROOM).await;
    assert_eq!(ann.next().await.event, "pusher_internal:member_removed");
    // what happens after that is told before it
    ann.whisper("private-a", "client-x", &json!("text")).await;
    wanted.push(said(&ann, "private-a", "text", None));
    is_told_in_any_order(&all, &wanted).await;
    bob.join(ROOM, "bob").await;
    assert_eq!(ann.next().await.event, "pusher_internal:member_added");
    // what comes next in the stream of facts is told, and no more
    for n in 0..5 {
        ann.whisper(ROOM, "client-x", &json!({ "n": n })).await;
        wanted.push(said(&ann, ROOM, &format!("{{\"n\":{n}}}"), Some("ann")));
        assert_eq!(bob.next().await, PusherMessage::event(ROOM, "client-x", json!({ "n": n })).by("ann"));
    }
    is_told_in_any_order(&all, &wanted).await;
    let in_order: Vec<_> = all.events(DEMO).into_iter().filter(|event| event["name"] == "client_event").collect();
    assert_eq!(in_order, wanted[4..]);

    drop((ann, bob));
    wanted.extend([
        vacated("private-a"),
        vacated(ROOM),
        member("member_removed", "ann"),
        member("member_removed", "bob"),
    ]);
    is_told_in_any_order(&all, &wanted).await;
    for request in all.requests() {
        assert_eq!((&*request.path, request.header("x-token")), ("/hook?key=hush", Some("hush")));
    }
    let is_for_some = |event: &Value| {
        event["channel"] == ROOM && (event["name"] == "member_added" || event["name"] == "client_event")
    };
    wanted.retain(is_for_some);
    is_told_in_any_order(&some, &wanted).await;
    assert!(some.requests().iter().all(|request| request.header("x-token").is_none()));
    // the first client events came faster than requests are sent
    assert!(all.requests().len() < all.all_events(DEMO).len(), "some travelled together");
    let delivered = async || events(&server, "delivered").await == (all.all_events(DEMO).len() + wanted.len()) as f64;
    until("each is counted", true, delivered).await;
    assert_eq!(server.said("hush"), 0);
}

#[tokio::test]
async fn what_is_not_answered_well_is_sent_again_until_it_is_and_no_redirect_is_followed() {
    let elsewhere = HookTarget::start().await;
    let moved = HookAnswer::Moved(format!("http://{}/", elsewhere.address));
    let slow = HookAnswer::Trickle("HTTP/1.1 204 No Content\r\n\r\n");
    let target = HookTarget::scripted([HookAnswer::Status(500), HookAnswer::Reset, moved, slow]).await;
    let server = hooked(Setup::keyed(), &[target.listed(FEW)]).start().await;
    let _ann = PusherClient::connect(server.slave(), DEMO).await.subscribed("news").await;
    target.is_told(DEMO, &[occupied("news")]).await;
    let tries = target.requests();
    let ids: Vec<_> = tries.iter().map(|request| request.id().to_owned()).collect();
    assert_eq!(ids, vec![ids[0].clone(); 4]);
    // a library refuses what says that it is old
    let times: Vec<_> = tries.iter().map(|request| request.body.split(',').next().map(str::to_owned)).collect();
    assert!(times.is_sorted() && times[0] != times[3], "{times:?}");
    assert_eq!(elsewhere.requests().len(), 0);
    until("it is counted", 1.0, || requests(&server, "ok")).await;
    assert_eq!((requests(&server, "status").await, requests(&server, "broken").await), (2.0, 1.0));
    assert_eq!((events(&server, "delivered").await, events(&server, "failed").await), (1.0, 0.0));
    let state = &states(&server).await[0];
    assert_eq!(state["target"], format!("http://{}", target.address));
    assert_eq!(state["last_error"]["error"], "answered 301");
    assert!(state["last_success_ms"].as_u64() >= state["last_error"]["ms"].as_u64(), "{state}");
}

#[tokio::test]
async fn a_target_that_hangs_holds_up_no_push_and_no_other_target() {
    let (hangs, good) = (HookTarget::scripted(vec![HookAnswer::Hang; 99]).await, HookTarget::start().await);
    let mut server = hooked(Setup::keyed(), &[hangs.listed(FEW), good.listed(FEW)]).start().await;
    let mut api = Api::of(&server, DEMO).await;
    let mut ann = PusherClient::connect(server.slave(), DEMO).await.subscribed("private-a").await;
    hangs.is_asked(1).await;
    let mut wanted = vec![occupied("private-a")];
    for n in 0..8 {
        api.trigger("private-a", "e", &n.to_string()).await;
        assert_eq!(ann.next().await, PusherMessage::event("private-a", "e", n.to_string()));
        ann.whisper("private-a", "client-x", &json!(n.to_string())).await;
        wanted.push(said(&ann, "private-a", &n.to_string(), None));
    }
    good.is_told(DEMO, &wanted).await;
    let of_hanging = async || states(&server).await.swap_remove(0);
    until("the rest waits", json!({ "events": 9, "requests": 2 }), || async { of_hanging().await["queued"].clone() })
        .await;
    let timed_out = json!("no answer in time");
    until("it is given no longer", timed_out, || async { of_hanging().await["last_error"]["error"].clone() }).await;
    assert_eq!(server.metric("wellhead_webhook_queue", "").await, 9.0);
    assert!(states(&server).await[1]["last_error"].is_null());
    // at the end it is tried for a while, and given up by name
    server.signal("TERM");
    assert_eq!(server.ended().await.code(), Some(0));
    assert_eq!((server.said("is given up with 1 events"), server.said("is given up with 8 events")), (1, 1));
}

#[tokio::test]
async fn an_address_of_this_machine_is_not_asked_unless_it_is_allowed() {
    let target = HookTarget::start().await;
    let by_name = target.listed("").replace("127.0.0.1", "localhost");
    let server = hooked(Setup::keyed(), &[by_name]).set("webhooks.allow_private", "false").start().await;
    let _ann = PusherClient::connect(server.slave(), DEMO).await.subscribed("news").await;
    until("it is refused", true, || async { requests(&server, "refused").await >= 1.0 }).await;
    let error = states(&server).await[0]["last_error"]["error"].clone();
    assert!(error.as_str().is_some_and(|error| error.contains("not globally routable")), "{error}");
    assert_eq!(target.requests().len(), 0);
}

#[tokio::test]
async fn what_was_given_up_is_kept_and_sent_again_by_whoever_has_it() {
    let target = HookTarget::scripted([HookAnswer::Status(503)]).await;
    let hooks = |setup: Setup| hooked(setup, &[target.listed(FEW)]).set("webhooks.retry_for", "1s");
    let field = Field::start_with(By::Nats, 2, 2, hooks).await;
    let _ann = PusherClient::connect(field.slaves[0].slave(), DEMO).await.subscribed("news").await;
    let kept = async || states(&field.masters[0]).await[0]["given_up"].clone();
    until("it is given up", 1, || async { kept().await.as_array().map_or(0, Vec::len) }).await;
    let kept_one = kept().await[0].clone();
    assert_eq!((&kept_one["events"], &kept_one["reason"]), (&json!(1), &json!("answered 503")));
    let first = target.requests().swap_remove(0);
    let id = kept_one["id"].as_str().expect("an id");
    assert_eq!(id, first.id());
    let said: usize = field.slaves.iter().map(|slave| slave.said(&format!("webhook {id} of demo"))).sum();
    assert_eq!(said, 1);

    for unknown in ["0-0", "x", "%20"] {
        assert_eq!(resend(&field.masters[1], unknown).await, 404, "{unknown}");
    }
    assert_eq!(resend(&field.masters[1], id).await, 200);
    target.is_told(DEMO, &[occupied("news")]).await;
    assert_eq!(target.requests()[1].id(), id);
    assert_eq!((resend(&field.masters[1], id).await, kept().await), (404, json!([])));
}

fn channel(n: usize) -> String {
    format!("c{n:02}")
}

const CHANNELS: usize = 24;

/// How often each was told.
fn counts(target: &HookTarget) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for event in target.events(DEMO) {
        let key = format!("{} {}", event["name"].as_str().expect("text"), event["channel"].as_str().expect("text"));
        *counts.entry(key).or_default() += 1;
    }
    counts
}

fn of_all(what: &str) -> BTreeMap<String, usize> {
    (0..CHANNELS).map(|n| (format!("{what} {}", channel(n)), 1)).collect()
}

async fn on_all(slave: &Server) -> PusherClient {
    let mut client = PusherClient::connect(slave.slave(), DEMO).await;
    for n in 0..CHANNELS {
        client.subscribe(&channel(n)).await;
    }
    client
}

#[tokio::test]
async fn the_cluster_tells_everything_once_also_while_a_slave_goes_in_order() {
    let target = HookTarget::start().await;
    let mut field = Field::start_with(By::Nats, 1, 2, |setup| hooked(setup, &[target.listed("")])).await;
    let ann = on_all(&field.slaves[0]).await;
    let bob = on_all(&field.slaves[1]).await;
    until("each is occupied once", of_all("channel_occupied"), || async { counts(&target) }).await;
    for slave in &field.slaves {
        assert!(events(slave, "delivered").await > 0.0, "both decide");
    }
    // what the one that goes has decided, it has told
    field.slaves[0].signal("TERM");
    assert_eq!(field.slaves[0].ended().await.code(), Some(0));
    drop(ann);
    field.slaves.remove(0);
    field.is_whole().await;
    let eve = PusherClient::connect(field.slaves[0].slave(), DEMO).await.subscribed("news").await;
    let mut wanted = of_all("channel_occupied");
    wanted.insert("channel_occupied news".to_owned(), 1);
    until("nothing is told again", wanted.clone(), || async { counts(&target) }).await;
    drop((bob, eve));
    wanted.extend(of_all("channel_vacated"));
    wanted.insert("channel_vacated news".to_owned(), 1);
    until("each is vacated once", wanted, || async { counts(&target) }).await;
}

#[tokio::test]
async fn what_a_slave_had_not_told_when_it_was_killed_is_told_by_another() {
    // the first request of each slave is not answered: so nobody has told anything when one dies
    let target = HookTarget::scripted(vec![HookAnswer::Hang; 3]).await;
    let mut field = Field::start_with(By::Nats, 1, 3, |setup| hooked(setup, &[target.listed("")])).await;
    let ann = on_all(&field.slaves[1]).await;
    target.is_asked(3).await;
    assert_eq!(target.events(DEMO), Vec::<Value>::new());
    field.slaves[0].signal("KILL");
    field.slaves[0].ended().await;
    field.slaves.remove(0);
    until("each is told", of_all("channel_occupied"), || async { counts(&target) }).await;
    drop(ann);
    let mut wanted = of_all("channel_occupied");
    wanted.extend(of_all("channel_vacated"));
    until("each is vacated", wanted, || async { counts(&target) }).await;
}

#[tokio::test]
async fn counts_of_the_cluster_are_told_as_they_change() {
    let target = HookTarget::start().await;
    let only = ", events = [\"subscription_count\"], channels = [\"new*\"]";
    let field = Field::start_with(By::Nats, 1, 2, |setup| hooked(setup, &[target.listed(only)])).await;
    let is_told = async |wanted: Vec<u64>| {
        until("the counts", wanted, || async { target.counts(DEMO, "news") }).await;
    };
    let mut ann = PusherClient::connect(field.slaves[0].slave(), DEMO).await.subscribed("news").await;
    is_told(vec![1]).await;
    let bob =
        PusherClient::connect(field.slaves[1].slave(), DEMO).await.subscribed("other").await.subscribed("news").await;
    is_told(vec![1, 2]).await;
    drop(bob);
    is_told(vec![1, 2, 1]).await;
    ann.unsubscribe("news").await;
    is_told(vec![1, 2, 1, 0]).await;
    // clients of an app without that event hear nothing of it
    ann.is_quiet().await;
    assert_eq!(target.all_events(DEMO).len(), 4);
}
