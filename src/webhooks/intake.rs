//! Takes facts in: those that some target wants become events, and wait where they may be taken back.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::poll_immediate;
use log::warn;
use tokio::{sync::watch, time::sleep};
use wellhead_proto::{
    bus::BusState,
    dialect::pusher::{
        PusherApp,
        webhook::{Webhook, WebhookEvent, WebhookKind},
    },
    ids::{AppId, ChannelKey},
    membership::coordinators,
    tenants::TenantDirectory,
};
use wellhead_slave::{Batch, Fact, FactFilter, FactReader};

use super::{debounce::Debouncer, targets::Targets};

/// Facts that are taken at once.
const AT_ONCE: usize = 256;

/// The facts that some target wants.
pub(super) struct WantedFacts(pub(super) Arc<TenantDirectory>);

impl WantedFacts {
    fn some_target(&self, app: &AppId, wants: impl Fn(&Webhook) -> bool) -> bool {
        PusherApp::webhooks_of(&self.0.load(), app).iter().any(|webhook| wants(webhook))
    }
}

impl FactFilter for WantedFacts {
    fn wants(&self, fact: &Fact) -> bool {
        let Some((kind, channel)) = kind(fact) else { return false };
        self.some_target(&channel.app, |webhook| {
            let wants = |kind| webhook.wants(kind, &channel.name);
            // who comes back takes back a departure, whether or not somebody wants to know of the return
            wants(kind) || departure(kind).is_some_and(wants)
        })
    }

    fn wants_client_events(&self, app: &AppId) -> bool {
        self.some_target(app, |webhook| webhook.events.contains(&WebhookKind::ClientEvent))
    }
}

/// What a fact is called in webhooks, and its channel. `None`: no webhook tells of it.
fn kind(fact: &Fact) -> Option<(WebhookKind, &ChannelKey)> {
    Some(match fact {
        Fact::Occupied(channel) => (WebhookKind::ChannelOccupied, channel),
        Fact::Vacated(channel) => (WebhookKind::ChannelVacated, channel),
        Fact::MemberAdded(channel, _) => (WebhookKind::MemberAdded, channel),
        Fact::MemberRemoved(channel, _) => (WebhookKind::MemberRemoved, channel),
        Fact::SubscriptionCount(channel, _) => (WebhookKind::SubscriptionCount, channel),
        Fact::ClientEvent(channel, ..) => (WebhookKind::ClientEvent, channel),
        Fact::UserOnline(..) | Fact::UserOffline(..) => return None,
    })
}

/// What an arrival takes back.
fn departure(kind: WebhookKind) -> Option<WebhookKind> {
    match kind {
        WebhookKind::ChannelOccupied => Some(WebhookKind::ChannelVacated),
        WebhookKind::MemberAdded => Some(WebhookKind::MemberRemoved),
        _ => None,
    }
}

/// A fact as webhooks tell it.
fn event(fact: Fact) -> Option<WebhookEvent> {
    Some(match fact {
        Fact::Occupied(channel) => WebhookEvent::ChannelOccupied(channel),
        Fact::Vacated(channel) => WebhookEvent::ChannelVacated(channel),
        Fact::MemberAdded(channel, member) => WebhookEvent::MemberAdded(channel, member.user),
        Fact::MemberRemoved(channel, user) => WebhookEvent::MemberRemoved(channel, user),
        Fact::SubscriptionCount(channel, count) => WebhookEvent::SubscriptionCount(channel, count),
        Fact::ClientEvent(channel, socket, event) => WebhookEvent::ClientEvent(channel, socket, event),
        Fact::UserOnline(..) | Fact::UserOffline(..) => return None,
    })
}

/// Resolves when the node is to go.
async fn is_draining(draining: &mut watch::Receiver<bool>) {
    let _ = draining.wait_for(|draining| *draining).await;
}

/// The task that takes them in.
pub(super) struct Intake {
    targets: Arc<Targets>,
    facts: FactReader,
    bus: watch::Receiver<BusState>,
    draining: watch::Receiver<bool>,
    debouncer: Debouncer,
    /// Times are measured from here.
    start: Instant,
}

impl Intake {
    pub(super) fn new(
        targets: Arc<Targets>,
        facts: FactReader,
        bus: watch::Receiver<BusState>,
        draining: watch::Receiver<bool>,
    ) -> Self {
        Self { targets, facts, bus, draining, debouncer: Debouncer::default(), start: Instant::now() }
    }

    /// Until the facts end, or the node is to go: then nothing waits here any more.
    pub(super) async fn run(mut self) {
        let mut bus_is_there = true;
        loop {
            let pause = self.debouncer.next().map(|until| until.saturating_sub(self.start.elapsed()));
            tokio::select! {
                facts = self.facts.next(AT_ONCE) => match facts {
                    Some(facts) => self.take(facts),
                    None => break,
                },
                () = sleep(pause.unwrap_or(Duration::MAX)), if pause.is_some() => {
                    let due = self.debouncer.due(self.start.elapsed());
                    self.targets.queue(due);
                }
                changed = self.bus.changed(), if bus_is_there => {
                    bus_is_there = changed.is_ok();
                    self.give_out_moved();
                }
                () = is_draining(&mut self.draining) => break,
            }
        }
        while let Some(Some(facts)) = poll_immediate(self.facts.next(AT_ONCE)).await {
            self.take(facts);
        }
        let rest = self.debouncer.give_out(|_| true);
        self.targets.queue(rest);
    }

    fn take(&mut self, Batch { facts, lost, .. }: Batch) {
        if lost > 0 {
            warn!(lost; "{lost} events for webhooks came too fast: they are lost");
        }
        let now = self.start.elapsed();
        let events = facts.into_iter().filter_map(event);
        let told = events.flat_map(|event| self.debouncer.take(event, now)).collect();
        self.targets.queue(told);
    }

    /// Another slave decides about a channel now, and does not know what waits here: it is told before that one tells more.
    fn give_out_moved(&mut self) {
        let state = self.bus.borrow_and_update().clone();
        if !(state.up && state.roster_known) {
            return;
        }
        let me = Some(self.targets.node());
        let moved = |channel: &ChannelKey| coordinators(state.slaves.iter().copied(), channel).0 != me;
        let told = self.debouncer.give_out(moved);
        self.targets.queue(told);
    }
}
