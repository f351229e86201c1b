//! The tasks of a node: its heartbeat and the leases of others, confirmations, and what it sends of its own accord. Each
//! ends with the node.

use std::{sync::Weak, time::Duration};

use log::{info, warn};
use tokio::{sync::mpsc, sync::watch, time};
use wellhead_proto::{node_message::Body, roster::BEAT};

use super::Cluster;
use crate::bus::wire::Subject;

/// How long nobody new may say hello before the roster counts as known.
const QUIET: Duration = Duration::from_millis(300);
/// How long slaves that were there before may take to come back after us: each tries again at least every two seconds.
const RETURN: Duration = Duration::from_millis(2_500);
/// A heartbeat so late means that this process stood still.
const STOOD_STILL: Duration = Duration::from_secs(3);
/// Between two tries to confirm.
const AGAIN: Duration = Duration::from_millis(100);

/// Beat, forget who does not, and look after the slots, once a second.
pub(super) async fn beat(weak: Weak<Cluster>, hello: Duration) {
    let mut beat = time::interval(BEAT);
    beat.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    let mut last = None;
    loop {
        beat.tick().await;
        let Some(cluster) = weak.upgrade() else { return };
        let now = cluster.now();
        let late = last.replace(now).is_some_and(|last| now.saturating_sub(last) >= STOOD_STILL);
        if !cluster.state.borrow().up {
            continue;
        }
        if late && !cluster.is_leaving() {
            // what the others said meanwhile has not been read yet: nobody is forgotten for it, and nothing decided
            warn!(node_id:% = cluster.me.node; "this process stood still for a while: it asks anew who is here");
            cluster.roster().came_back(now);
            cluster.state.send_modify(|state| state.roster_known = false);
            let _ = cluster.outgoing.send((Subject::Everyone, Body::Hello(cluster.beat())));
            let weak = weak.clone();
            cluster.runtime.spawn(async move { known(&weak, hello).await });
        } else if !cluster.is_leaving() {
            let _ = cluster.outgoing.send((Subject::Everyone, Body::Heartbeat(cluster.beat())));
        }
        // at the time that was looked at: a process that is stopped right here must not take it for their silence
        let gone = cluster.roster().expire(now);
        for node in &gone {
            cluster.continuity().expired(*node);
            warn!(node_id:% = node; "node {node} has been silent for too long: it is forgotten");
        }
        if !gone.is_empty() {
            cluster.show_roster();
        }
        if late {
            // slots, too, settle by the time in which something could be read
            continue;
        }
        cluster.look_at_formats();
        cluster.stand_back_for_strangers();
        let gaps = cluster.continuity().tick(cluster.now());
        for gap in gaps {
            cluster.tell_gap(gap);
        }
        let mut orders = Vec::new();
        let changing = {
            let mut slots = cluster.slots();
            slots.tick(cluster.now(), &mut orders);
            cluster.obey(&orders);
            cluster.metrics.slots.set(slots.len() as i64);
            slots.is_way_asked()
        };
        if changing {
            cluster.asked.notify_one();
        }
    }
}

/// Follow the wire: up and down, and a hello each time it comes up.
pub(super) async fn watch_wire(cluster: Weak<Cluster>, mut wire: watch::Receiver<bool>, hello: Duration) {
    loop {
        if wire.wait_for(|up| *up).await.is_err() {
            return;
        }
        let session = {
            let Some(cluster) = cluster.upgrade() else { return };
            let session = cluster.wire.get().and_then(|wire| wire.session());
            // whoever went while we heard nothing is not waited for, and not forgotten before its time either: it may come
            // back a little later than we do
            cluster.roster().came_back(cluster.now());
            if !cluster.is_leaving() {
                cluster.roster().heard(cluster.beat(), cluster.now());
            }
            cluster.rivalry().up(cluster.now());
            cluster.strangers().up(cluster.now());
            let opened = cluster.inbox().map_or(0, |inbox| inbox.opened());
            cluster.continuity().up(opened, cluster.now());
            // before it is up: pushes wait for them
            cluster.all_back.send_replace(false);
            cluster.show_roster();
            cluster.state.send_modify(|state| (state.up, state.roster_known) = (true, hello.is_zero()));
            if !cluster.is_leaving() {
                let _ = cluster.outgoing.send((Subject::Everyone, Body::Hello(cluster.beat())));
            }
            cluster.asked.notify_one();
            info!(node_id:% = cluster.me.node; "the bus is up");
            session
        };
        let mut down = wire.clone();
        let other = |up: &bool| !*up || cluster.upgrade().and_then(|it| it.wire.get()?.session()) != session;
        let ended = tokio::select! {
            never = async { known(&cluster, hello).await; std::future::pending().await } => never,
            never = async { all_back(&cluster).await; std::future::pending().await } => never,
            // down for a moment only is down
            down = down.wait_for(other) => down.is_err(),
        };
        if ended {
            return;
        }
        let Some(cluster) = cluster.upgrade() else { return };
        cluster.state.send_modify(|state| (state.up, state.roster_known) = (false, false));
        // pushes that wait for slaves are refused at once
        cluster.all_back.send_replace(true);
        warn!(node_id:% = cluster.me.node; "the bus is down");
    }
}

/// The roster is known when nobody new has said hello for a while, and at the latest after `hello`.
async fn known(cluster: &Weak<Cluster>, hello: Duration) {
    let Some(mut state) = cluster.upgrade().map(|cluster| cluster.state.subscribe()) else { return };
    let slaves = state.borrow_and_update().slaves.clone();
    let quiet = async {
        let mut slaves = slaves;
        while let Ok(Ok(more)) = time::timeout(QUIET, state.wait_for(|state| state.slaves != slaves)).await {
            slaves = more.slaves.clone();
        }
    };
    let _ = time::timeout(hello, quiet).await;
    if let Some(cluster) = cluster.upgrade() {
        cluster.state.send_if_modified(|state| !std::mem::replace(&mut state.roster_known, true));
    }
}

/// Slaves have had the time to come back.
async fn all_back(cluster: &Weak<Cluster>) {
    time::sleep(RETURN).await;
    if let Some(cluster) = cluster.upgrade() {
        cluster.all_back.send_replace(true);
    }
}

/// Confirm what is listened to, all that waits at once.
pub(super) async fn confirm(cluster: Weak<Cluster>) {
    loop {
        let Some(strong) = cluster.upgrade() else { return };
        let (asked, way) = {
            let slots = strong.slots();
            (slots.unconfirmed(), slots.is_way_asked())
        };
        let Some(asked) = asked else {
            let waiting = strong.clone();
            drop(strong);
            // wakes up now and then to see whether the node is still there
            let _ = time::timeout(BEAT, waiting.asked.notified()).await;
            continue;
        };
        let confirmed = match strong.wire() {
            Ok(wire) => wire.confirm().await,
            Err(down) => Err(down),
        };
        if confirmed.is_ok() {
            strong.slots().confirmed(&asked, way, strong.now());
            strong.confirmed.notify_waiters();
        } else {
            drop(strong);
            time::sleep(AGAIN).await;
        }
    }
}

/// Send what the node says of its own accord, in order. What cannot be sent is not: beats come again, and who asked does
/// not wait for ever.
pub(super) async fn post(cluster: Weak<Cluster>, mut bodies: mpsc::UnboundedReceiver<(Subject, Body)>) {
    while let Some((subject, body)) = bodies.recv().await {
        let Some(cluster) = cluster.upgrade() else { return };
        if let Ok(wire) = cluster.wire() {
            let _ = cluster.send(wire, subject, body).await;
        }
    }
}
