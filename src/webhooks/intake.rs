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
    ids::{AppId, ChannelKey, NodeId},
    membership::coordinators,
    tenants::TenantDirectory,
};
use wellhead_slave::{Batch, Fact, FactFilter, FactReader};

use super::{debounce::Debouncer, standby::StandbyLog, targets::Targets};

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
        if let Fact::Leaving(_) = fact {
            return true;
        }
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
        Fact::DecidedBy(_, fact) => return kind(fact),
        Fact::UserOnline(..) | Fact::UserOffline(..) | Fact::Leaving(_) => return None,
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
        Fact::UserOnline(..) | Fact::UserOffline(..) | Fact::DecidedBy(..) | Fact::Leaving(_) => return None,
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
    standby: StandbyLog,
    /// The slaves that are alive, as far as that is known.
    slaves: Arc<[NodeId]>,
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
        Self {
            targets,
            facts,
            bus,
            draining,
            debouncer: Debouncer::default(),
            standby: StandbyLog::default(),
            slaves: Arc::new([]),
            start: Instant::now(),
        }
    }

    /// Until the facts end, or the node is to go: then nothing waits here any more.
    pub(super) async fn run(mut self) {
        let mut bus_is_there = true;
        self.slaves_changed();
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
                    self.slaves_changed();
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
        let (now, mut told) = (self.start.elapsed(), Vec::new());
        for fact in facts {
            match fact {
                Fact::Leaving(slave) => self.standby.forget(slave),
                Fact::DecidedBy(slave, fact) => {
                    if let Some(event) = event(*fact) {
                        self.standby.note(slave, event, now);
                    }
                }
                fact => {
                    let Some(event) = event(fact) else { continue };
                    told.extend(self.standby.overtaken(&event, &self.slaves, now));
                    told.extend(self.debouncer.take(event, now));
                }
            }
        }
        self.targets.queue(told);
    }

    /// Other slaves are alive than before. Another one decides about a channel now, and does not know what waits here: it is
    /// told before that one tells more. One is dead, and has not told everything.
    fn slaves_changed(&mut self) {
        let state = self.bus.borrow_and_update().clone();
        if !(state.up && state.roster_known) {
            return;
        }
        let me = Some(self.targets.node());
        let moved = |channel: &ChannelKey| coordinators(state.slaves.iter().copied(), channel).0 != me;
        let mut told = self.debouncer.give_out(moved);
        told.extend(self.standby.of_the_dead(&state.slaves, self.start.elapsed()));
        self.slaves = state.slaves;
        self.targets.queue(told);
    }
}
