//! Things that die, and things that stop.

use std::time::{Duration, Instant};

use tokio::{sync::watch, time::sleep};

use super::{
    field::{By, Field, all_push, all_sent, channels_of, followers, lost_by_all},
    load::{count, lost},
};
use crate::support::{backend::Backend, http::Http, listener::ListenerEnd, until, within};

/// A socket is told this soon after a push that passed it by, at the latest: the slave is back after 5 s, or its sockets
/// are told by then, and asks; what does not come within a second is missing.
const TOLD: Duration = Duration::from_secs(12);

#[tokio::test]
async fn nats_killed_ten_times_loses_nothing_in_silence() {
    let mut field = Field::start(By::Nats, 2, 2).await;
    let mut followers = followers(&field.slave_addresses());
    for follower in &mut followers {
        follower.is_there().await;
    }
    let publishers = field.publishers(4);
    for round in 0..10 {
        // at another moment of the pushes each time
        all_push(&publishers, 35 + 5 * round).await;
        let nats = field.nats.as_mut().expect("NATS");
        nats.kill();
        // how long it is away is what is tried
        sleep(Duration::from_millis([0, 50, 100, 150][round % 4])).await;
        nats.start();
        field.is_whole().await;
    }
    all_push(&publishers, 30).await;
    let sent = all_sent(publishers).await;
    let last = Instant::now();
    // whoever missed something has been told by then; that nobody is told any more is no event
    sleep(TOLD).await;
    let listeners = field.listeners(0..field.slaves.len()).await;
    field.settle(&listeners.iter().collect::<Vec<_>>()).await;
    let (accepted, refused, broken) = count(&sent);
    let (mut stays, mut told, mut silent) = (0, 0, Vec::new());
    for follower in followers {
        let its = follower.stop().await;
        stays += its.len();
        for stay in its {
            let channels = channels_of(&stay.listener.app, &stay.listener.user);
            for one in lost(&sent, &stay.listener, &channels, stay.since, stay.until) {
                match stay.until {
                    Some(until) if until.saturating_duration_since(one.answered) < TOLD => told += 1,
                    _ => silent.push(one.clone()),
                }
            }
        }
    }
    eprintln!(
        "NATS killed 10 times: {accepted} accepted, {refused} refused; {stays} stays of 4 clients; lost and told: {told}, \
         lost in silence: {}; {:?} after the last push",
        silent.len(),
        last.elapsed(),
    );
    assert_eq!(broken, 0, "a master answers whatever happens");
    assert!(accepted > 500 && refused > 0, "{accepted} accepted, {refused} refused");
    assert!(silent.is_empty(), "answered with 200, and its sockets neither got it nor were told: {silent:?}");
}

async fn slave_killed_ten_times(by: By) {
    let mut field = Field::start(by, 1, 2).await;
    let listeners = field.listeners([0]).await;
    let (publishers, began) = (field.publishers(2), Instant::now());
    // somebody asks all the time, and notes how long each answer took
    let (stop, stopped) = watch::channel(false);
    let master = field.masters[0].master();
    let asker = tokio::spawn(async move {
        let (mut backend, mut waits) = (Backend::of(master).await, Vec::new());
        while !*stopped.borrow() {
            let asked = Instant::now();
            backend.names("/api/blue/online").await;
            waits.push(asked.elapsed());
            // a pause: the queries are to be measured, not to be the load
            sleep(Duration::from_millis(10)).await;
        }
        waits
    });
    let mut gone_after = Vec::new();
    for round in 0..10 {
        let user = format!("victim-{round}");
        let victim = field.listener(1, "blue", &user, &["news"]).await;
        let mut backend = field.masters[0].backend().await;
        assert!(backend.names("/api/blue/online").await.contains(&user));
        let killed = Instant::now();
        field.slaves[1].signal("KILL");
        field.slaves[1].ended().await;
        assert_eq!(victim.ended().await, ListenerEnd::Broken);
        until("its users are gone", false, || async {
            field.masters[0].backend().await.names("/api/blue/online").await.contains(&user)
        })
        .await;
        // once it has left the roster, nobody is missing any more
        field.masters[0].metric_becomes("wellhead_roster_nodes", "", 2.0).await;
        gone_after.push(killed.elapsed());
        let reply = backend.get("/api/blue/online").await;
        assert_eq!((reply.status, reply.header("x-wellhead-partial")), (200, None));
        assert_eq!(backend.names("/api/blue/online/bychannel/news").await, ["user-0"]);
        field.slaves[1] = field.new_slave().await;
        field.is_whole().await;
    }
    stop.send_replace(true);
    let waits = within("the asker stops", asker).await.expect("it did not panic");
    let sent = all_sent(publishers).await;
    field.settle(&listeners.iter().collect::<Vec<_>>()).await;
    let (accepted, refused, broken) = count(&sent);
    let lost = lost_by_all(&sent, &listeners, began);
    let slow = waits.iter().filter(|wait| **wait > Duration::from_millis(400)).count();
    let (longest_wait, longest_stay) = (waits.iter().max().expect("some"), gone_after.iter().max().expect("some"));
    eprintln!(
        "a slave killed 10 times ({by:?}): {accepted} accepted, {refused} refused, {} lost by the others; {slow} of {} \
         queries slow, the slowest {longest_wait:?}; off the roster after {longest_stay:?}",
        lost.len(),
        waits.len(),
    );
    assert_eq!((refused, broken, lost.len()), (0, 0, 0), "{lost:?}");
    assert!(slow <= 15, "only what was under way when it died waits: {slow} of {}", waits.len());
    assert!(*longest_wait < Duration::from_secs(2), "{longest_wait:?}");
    assert!(*longest_stay < Duration::from_secs(8), "{longest_stay:?}");
}

#[tokio::test]
async fn a_slave_killed_ten_times_takes_only_its_own_along_on_nats() {
    slave_killed_ten_times(By::Nats).await;
}

#[tokio::test]
async fn a_slave_killed_ten_times_takes_only_its_own_along_on_one_machine() {
    slave_killed_ten_times(By::Local).await;
}

async fn slave_stopped_for_ten_seconds(by: By) {
    let field = Field::start(by, 1, 2).await;
    let awake = field.listeners([0]).await;
    let mut asleep = field.listener(1, "blue", "sleeper", &["news"]).await;
    let (publishers, began) = (field.publishers(2), Instant::now());
    all_push(&publishers, 30).await;
    field.slaves[1].signal("STOP");
    let stopped = Instant::now();
    until("the sleeper is gone", false, || async {
        field.masters[0].backend().await.names("/api/blue/online").await.contains(&"sleeper".to_owned())
    })
    .await;
    field.masters[0].metric_becomes("wellhead_roster_nodes", "", 2.0).await;
    let forgotten = stopped.elapsed();
    assert!(forgotten < Duration::from_secs(8), "{forgotten:?}");
    // how long it is stopped is what is tried
    sleep(Duration::from_secs(10).saturating_sub(stopped.elapsed())).await;
    field.slaves[1].signal("CONT");
    field.is_whole().await;
    let back = stopped.elapsed();
    // its socket may have been told to come back, if messages were lost meanwhile; it says so
    let stayed = asleep.ping().await;
    if !stayed {
        asleep = field.listener(1, "blue", "sleeper", &["news"]).await;
    }
    until("the sleeper is there again", true, || async {
        field.masters[0].backend().await.names("/api/blue/online").await.contains(&"sleeper".to_owned())
    })
    .await;
    let since = if stayed { began } else { Instant::now() };
    all_push(&publishers, 30).await;
    let sent = all_sent(publishers).await;
    field.settle(&awake.iter().collect::<Vec<_>>()).await;
    assert!(asleep.ping().await, "it stays open");
    let lost = lost_by_all(&sent, &awake, began);
    let mark = sent.iter().rev().find(|one| one.is_accepted() && (&*one.mark.app, &*one.mark.to) == ("blue", "news"));
    let mark = &mark.expect("some were accepted").mark;
    assert!(within("the sleeper hears again", asleep.hears(mark)).await);
    let lost_asleep = super::load::lost(&sent, &asleep, &["news".to_owned()], since, None);
    let (accepted, refused, broken) = count(&sent);
    eprintln!(
        "a slave stopped for 10 s ({by:?}): forgotten after {forgotten:?}, whole after {back:?}; {accepted} accepted, \
         {refused} refused; lost: {} by others, {} by the sleeper (socket kept: {stayed})",
        lost.len(),
        lost_asleep.len(),
    );
    assert_eq!((refused, broken, lost.len()), (0, 0, 0), "{lost:?}");
    assert!(lost_asleep.is_empty(), "a socket that stays loses nothing in silence: {lost_asleep:?}");
}

#[tokio::test]
async fn a_slave_stopped_for_ten_seconds_is_missed_and_comes_back_on_nats() {
    slave_stopped_for_ten_seconds(By::Nats).await;
}

#[tokio::test]
async fn a_slave_stopped_for_ten_seconds_is_missed_and_comes_back_on_one_machine() {
    slave_stopped_for_ten_seconds(By::Local).await;
}

#[tokio::test]
async fn without_its_bus_a_master_refuses_and_a_slave_sends_its_clients_away() {
    let mut field = Field::start(By::Nats, 1, 1).await;
    let listener = field.listener(0, "blue", "ann", &["news"]).await;
    let mut backend = field.masters[0].backend().await;
    field.nats.as_mut().expect("NATS").kill();
    let killed = Instant::now();
    until("the master notices", 503, || async { field.masters[0].readiness().await.0 }).await;
    until("the slave notices", 503, || async { field.slaves[0].readiness().await.0 }).await;
    for path in ["/api/push/blue/news/e", "/api/push/user/blue/ann", "/api/push/blue"] {
        let fields = [("data", "1"), ("channel_pattern", "^n"), ("event", "e")];
        assert_eq!(backend.form(path, &fields).await.status, 503, "{path}");
    }
    assert_eq!(backend.get("/api/blue/online").await.status, 503);
    let refused = Http::to(field.slaves[0].slave()).await.get("/readyz").await;
    assert_eq!(refused.status, 503);
    let token = crate::support::keys::signer().jwt("blue", "bob", &["*"]);
    let handshake = crate::support::listener::Listener::open(field.slaves[0].slave(), "blue", "bob", &token).await;
    assert_eq!(handshake.err().map(|reply| reply.status), Some(503));
    let end = listener.ended().await;
    let after = killed.elapsed();
    assert!(matches!(&end, ListenerEnd::Closed(close) if close.code == 1001), "{end:?}");
    assert!(after > Duration::from_millis(4_500) && after < Duration::from_secs(9), "{after:?}");
    field.nats.as_mut().expect("NATS").start();
    field.is_whole().await;
    let listener = field.listener(0, "blue", "user-0", &["news", "more"]).await;
    field.settle(&[&listener]).await;
    assert_eq!(listener.heard().len(), 3, "nothing of before");
}
