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
            // who comes back takes back a departure, whichever of the two somebody wants to know of
            wants(kind) || counterpart(kind).is_some_and(wants)
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

/// What takes an event back, or is taken back by it.
fn counterpart(kind: WebhookKind) -> Option<WebhookKind> {
    match kind {
        WebhookKind::ChannelOccupied => Some(WebhookKind::ChannelVacated),
        WebhookKind::ChannelVacated => Some(WebhookKind::ChannelOccupied),
        WebhookKind::MemberAdded => Some(WebhookKind::MemberRemoved),
        WebhookKind::MemberRemoved => Some(WebhookKind::MemberAdded),
        WebhookKind::ClientEvent | WebhookKind::SubscriptionCount => None,
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
                    // what a slave said before it died is among them
                    self.take_all().await;
                    self.slaves_changed();
                }
                () = is_draining(&mut self.draining) => break,
            }
        }
        self.take_all().await;
        let rest = self.debouncer.give_out(|_| true);
        self.targets.queue(rest);
    }

    /// What is there already.
    async fn take_all(&mut self) {
        while let Some(Some(facts)) = poll_immediate(self.facts.next(AT_ONCE)).await {
            self.take(facts);
        }
    }

    /// Those who are alive now. A fact may be decided because of a death, and be here before the task has seen to that.
    fn alive(&self) -> Arc<[NodeId]> {
        let state = self.bus.borrow();
        if state.up && state.roster_known { state.slaves.clone() } else { self.slaves.clone() }
    }

    fn take(&mut self, Batch { facts, lost, .. }: Batch) {
        if lost > 0 {
            warn!(lost; "{lost} events for webhooks came too fast: they are lost");
        }
        let (now, slaves, mut told) = (self.start.elapsed(), self.alive(), Vec::new());
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
                    told.extend(self.standby.overtaken(&event, &slaves, now));
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

#[cfg(test)]
mod tests {
    use wellhead_proto::{
        dialect::pusher::AppLimits,
        http_target::HttpTarget,
        jwt::Keyring,
        origin::Origins,
        tenants::{DialectRecord, ListedTenant, Tenants},
    };

    use super::*;

    fn wanted(events: &[WebhookKind]) -> WantedFacts {
        let webhook = Webhook {
            place: String::new(),
            target: HttpTarget::new("http://example.com/").unwrap(),
            events: events.to_vec(),
            channels: vec!["a*".try_into().unwrap()],
        };
        let key: AppId = "app".parse().unwrap();
        let mut app = PusherApp::new(key.clone(), "1".to_owned(), b"secret".to_vec(), false, AppLimits::default());
        app.webhooks = vec![Arc::new(webhook)];
        let listed = ListedTenant { of_dialects: vec![DialectRecord::new(None, app)], ..ListedTenant::default() };
        let tenants = Tenants::new(Keyring::default(), [(key, listed)], true, Origins::any());
        WantedFacts(Arc::new(TenantDirectory::new(tenants)))
    }

    fn channel(app: &str, name: &str) -> ChannelKey {
        ChannelKey { app: app.parse().unwrap(), name: name.parse().unwrap() }
    }

    #[test]
    fn both_that_take_each_other_back_are_taken_in_if_one_is_wanted() {
        let occupied = |app: &str, name: &str| Fact::Occupied(channel(app, name));
        let vacated = |app: &str, name: &str| Fact::Vacated(channel(app, name));
        for kind in [WebhookKind::ChannelOccupied, WebhookKind::ChannelVacated] {
            let wanted = wanted(&[kind]);
            assert!(wanted.wants(&occupied("app", "ab")) && wanted.wants(&vacated("app", "ab")), "{kind:?}");
            for (app, name) in [("app", "b"), ("other", "ab")] {
                assert!(!wanted.wants(&occupied(app, name)) && !wanted.wants(&vacated(app, name)), "{kind:?}");
            }
            assert!(!wanted.wants(&Fact::MemberRemoved(channel("app", "ab"), "ann".parse().unwrap())), "{kind:?}");
        }
        assert!(
            wanted(&[WebhookKind::MemberAdded])
                .wants(&Fact::MemberRemoved(channel("app", "ab"), "ann".parse().unwrap()))
        );
    }
}
