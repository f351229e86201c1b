//! What must happen once in the cluster does: `channel_occupied` and `channel_vacated`, whoever comes, goes and dies.

use std::collections::BTreeMap;

use super::field::{By, Field};
use crate::support::{listener::Listener, server::Server, until};

/// Channels, so that every slave keeps some, and is standby for others.
const CHANNELS: usize = 24;

/// Every fact that any slave told: how often each channel was occupied, and vacated.
type FactCounts = BTreeMap<String, (usize, usize)>;

fn facts<'a>(slaves: impl IntoIterator<Item = &'a Server>) -> FactCounts {
    let mut facts = facts_of_all(slaves);
    facts.retain(|channel, _| channel.starts_with('c'));
    facts
}

fn facts_of_all<'a>(slaves: impl IntoIterator<Item = &'a Server>) -> FactCounts {
    let mut facts = FactCounts::new();
    for slave in slaves {
        for (fact, channel) in slave.log.collect(|line| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            Some((line["fact"].as_str()?.to_owned(), line["channel"].as_str()?.to_owned()))
        }) {
            let counts = facts.entry(channel).or_default();
            match &*fact {
                "channel_occupied" => counts.0 += 1,
                "channel_vacated" => counts.1 += 1,
                other => panic!("no such fact: {other}"),
            }
        }
    }
    facts
}

fn channel(n: usize) -> String {
    format!("c{n:02}")
}

/// Every channel has been occupied and vacated so often; by which, `of` tells.
fn wanted(of: impl Fn(usize) -> (usize, usize)) -> FactCounts {
    (0..CHANNELS).map(|n| (channel(n), of(n))).collect()
}

async fn on_channels(field: &Field, slave: usize, user: &str, which: impl Fn(usize) -> bool) -> Listener {
    let mut client = field.listener(slave, "blue", user, &[]).await;
    for n in (0..CHANNELS).filter(|n| which(*n)) {
        assert!(client.subscribe(&channel(n)).await, "it stays open");
    }
    client
}

/// Back once every coordinator has heard everything that this client's slave has to say so far: it hears of one slave in order,
/// and of channels that only this client is on it tells. Of two slaves it may hear in any order.
async fn heard_by_all_keepers(field: &Field, client: &mut Listener, name: &str) {
    let fresh: Vec<_> = (0..CHANNELS).map(|n| format!("{name}{n:02}")).collect();
    for channel in &fresh {
        assert!(client.subscribe(channel).await, "it stays open");
    }
    until("fresh channels are occupied", true, || async {
        let told = facts_of_all(&field.slaves);
        fresh.iter().all(|channel| told.get(channel) == Some(&(1, 0)))
    })
    .await;
}

async fn facts_are_told_once(by: By) {
    let mut field = Field::start_with(by, 1, 3, |setup| setup.set("log.level", "debug")).await;
    let come_to = async |what: &str, field: &Field, dead: &[Server], wanted: FactCounts| {
        until(what, wanted, || async { facts(field.slaves.iter().chain(dead)) }).await;
    };
    let mut dead = Vec::new();

    let ann = on_channels(&field, 0, "ann", |_| true).await;
    come_to("occupied by the first", &field, &dead, wanted(|_| (1, 0))).await;
    let mut bob = on_channels(&field, 1, "bob", |n| n % 2 == 0).await;
    heard_by_all_keepers(&field, &mut bob, "first").await;
    ann.leave().await;
    // those that bob is on stay occupied
    come_to("vacated by the last", &field, &dead, wanted(|n| (1, n % 2))).await;
    for n in (0..CHANNELS).step_by(2) {
        assert!(bob.unsubscribe(&channel(n)).await, "it stays open");
    }
    come_to("vacated by the last", &field, &dead, wanted(|_| (1, 1))).await;

    // all on slave 0, a half on slave 1 as well; then slave 0 dies
    let _eve = on_channels(&field, 0, "eve", |_| true).await;
    for n in (0..CHANNELS).step_by(2) {
        assert!(bob.subscribe(&channel(n)).await, "it stays open");
    }
    come_to("occupied again", &field, &dead, wanted(|_| (2, 1))).await;
    heard_by_all_keepers(&field, &mut bob, "second").await;
    field.slaves[0].signal("KILL");
    field.slaves[0].ended().await;
    let fresh = field.new_slave().await;
    dead.push(std::mem::replace(&mut field.slaves[0], fresh));
    field.is_whole().await;
    come_to("vacated by death", &field, &dead, wanted(|n| (2, 1 + n % 2))).await;

    // one comes, and some of the channels are its to keep now; and one goes in order, which holds some alone
    let _joe = on_channels(&field, 2, "joe", |n| n % 2 == 1).await;
    come_to("occupied once more", &field, &dead, wanted(|n| (2 + n % 2, 1 + n % 2))).await;
    field.slaves.push(field.new_slave().await);
    field.is_whole().await;
    let mut gone = field.slaves.remove(2);
    gone.signal("TERM");
    assert_eq!(gone.ended().await.code(), Some(0));
    dead.push(gone);
    field.is_whole().await;
    come_to("vacated by a goodbye", &field, &dead, wanted(|n| (2 + n % 2, 1 + 2 * (n % 2)))).await;
    bob.leave().await;
    come_to("the last leaves", &field, &dead, wanted(|n| (2 + n % 2, 2 + n % 2))).await;

    // nothing trails behind: one more change everywhere, and it is told once
    let kim = on_channels(&field, 1, "kim", |_| true).await;
    come_to("the end", &field, &dead, wanted(|n| (3 + n % 2, 2 + n % 2))).await;
    kim.leave().await;
    come_to("the end", &field, &dead, wanted(|n| (3 + n % 2, 3 + n % 2))).await;
}

#[tokio::test]
async fn occupied_and_vacated_are_told_once_on_nats() {
    facts_are_told_once(By::Nats).await;
}

#[tokio::test]
async fn occupied_and_vacated_are_told_once_on_one_machine() {
    facts_are_told_once(By::Local).await;
}

async fn a_bus_that_is_gone_for_a_moment_changes_no_fact(by: By) {
    let mut field = Field::start_with(by, 1, 2, |setup| setup.set("log.level", "debug")).await;
    let ann = on_channels(&field, 0, "ann", |_| true).await;
    let mut bob = on_channels(&field, 1, "bob", |n| n % 2 == 0).await;
    heard_by_all_keepers(&field, &mut bob, "first").await;
    until("occupied", wanted(|_| (1, 0)), || async { facts(&field.slaves) }).await;
    for _ in 0..3 {
        field.restart_bus().await;
        field.is_whole().await;
    }
    // who leaves now is noticed once, as if nothing had been; had anything been told in between, it would show
    ann.leave().await;
    until("half of them is vacated", wanted(|n| (1, n % 2)), || async { facts(&field.slaves) }).await;
    bob.leave().await;
    until("the rest is, too", wanted(|_| (1, 1)), || async { facts(&field.slaves) }).await;
}

#[tokio::test]
async fn a_nats_that_is_gone_for_a_moment_changes_no_fact() {
    a_bus_that_is_gone_for_a_moment_changes_no_fact(By::Nats).await;
}

#[tokio::test]
async fn a_master_that_is_gone_for_a_moment_changes_no_fact() {
    a_bus_that_is_gone_for_a_moment_changes_no_fact(By::Local).await;
}

/// It wakes up with nothing read of what the others said for so long, and must not take that for their absence.
async fn a_slave_that_stood_still_tells_nothing_wrong(by: By) {
    let field = Field::start_with(by, 1, 2, |setup| setup.set("log.level", "debug")).await;
    let ann = on_channels(&field, 0, "ann", |_| true).await;
    until("occupied", wanted(|_| (1, 0)), || async { facts(&field.slaves) }).await;
    // a coordinator logs a fact before it sends it: one that stops in between has told nobody, and its standby tells it again
    let mut eve = on_channels(&field, 1, "eve", |_| false).await;
    heard_by_all_keepers(&field, &mut eve, "first").await;
    eve.leave().await;
    field.slaves[1].signal("STOP");
    until("it is forgotten", true, || async {
        let forgotten = |line: &str| line.contains("silent for too long").then_some(());
        !field.slaves[0].log.collect(forgotten).is_empty()
    })
    .await;
    field.slaves[1].signal("CONT");
    field.is_whole().await;
    ann.leave().await;
    until("vacated once", wanted(|_| (1, 1)), || async { facts(&field.slaves) }).await;
    let bob = on_channels(&field, 1, "bob", |_| true).await;
    until("occupied again", wanted(|_| (2, 1)), || async { facts(&field.slaves) }).await;
    bob.leave().await;
    until("vacated again", wanted(|_| (2, 2)), || async { facts(&field.slaves) }).await;
}

#[tokio::test]
async fn a_slave_that_stood_still_tells_nothing_wrong_on_nats() {
    a_slave_that_stood_still_tells_nothing_wrong(By::Nats).await;
}

#[tokio::test]
async fn a_slave_that_stood_still_tells_nothing_wrong_on_one_machine() {
    a_slave_that_stood_still_tells_nothing_wrong(By::Local).await;
}
