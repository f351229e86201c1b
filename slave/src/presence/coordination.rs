//! Runs the coordinator. It passes claims of this slave's sockets and messages of other slaves to it, its messages to
//! the bus, and its facts into the stream. Both happen under its lock, so they leave in the order in which they were
//! decided.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    time::{Duration, Instant},
};

use bytestring::ByteString;
use log::{debug, warn};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use wellhead_proto::{
    bus::{Bus, BusError, BusState},
    coordination::{CoordinatedKey, CoordinationMessage},
    event::Event,
    ids::{AppId, ChannelKey, NodeId, SocketId, UserId},
    member::{Member, MemberAnnouncement, MemberChange},
    membership::coordinators,
};

use super::{
    coordinator::{Coordinator, Fact, FollowUpdate, GRACE, LedgerKey, Outcome},
    facts::{self, Consumer, FactFilter, FactReader, FactStream},
};
use crate::{channels::ChannelTable, metrics::Metrics};

/// Messages that travel together.
const TOGETHER: usize = 1_000;
/// Facts that a reader takes at once.
const AT_ONCE: usize = 256;
/// Between two attempts to publish what the bus does not take.
const PAUSE: Duration = Duration::from_millis(200);
/// Between two looks of a reader that nobody waits for: it is not woken for each fact.
const PACE: Duration = Duration::from_millis(20);

/// This slave's coordinator, shared by its threads and its bus.
pub struct Coordination {
    me: NodeId,
    names: Arc<ChannelTable>,
    /// The coordinator's time is measured from here.
    start: Instant,
    /// How long a member may be away.
    grace: Duration,
    coordinator: Mutex<Coordinator>,
    /// When somebody will have been away for long enough.
    due: watch::Sender<Option<Duration>>,
    /// When a count is to be told.
    counts_due: watch::Sender<Option<Duration>>,
    /// How what this slave follows stands, until its sockets are told: of each key the last, so it is bounded by what is
    /// followed.
    told: Mutex<BTreeMap<CoordinatedKey, FollowUpdate>>,
    has_told: watch::Sender<()>,
    bus: Arc<dyn Bus>,
    metrics: Metrics,
    facts: FactStream,
    /// Which of them are read outside of this slave, if any are.
    outside: OnceLock<Arc<dyn FactFilter>>,
    /// What reads them, until it is started.
    readers: Mutex<Option<[FactReader; 3]>>,
}

impl Coordination {
    /// The coordinator of the slave `me`, which tells others over `bus`. A member may be away for `grace` without having left.
    pub fn new(me: NodeId, names: Arc<ChannelTable>, grace: Duration, bus: Arc<dyn Bus>, metrics: Metrics) -> Self {
        let facts = FactStream::new(facts::MOST, metrics.clone());
        Self {
            me,
            names: names.clone(),
            start: Instant::now(),
            grace,
            coordinator: Mutex::new(Coordinator::new(me, grace, names)),
            due: watch::Sender::new(None),
            counts_due: watch::Sender::new(None),
            told: Mutex::default(),
            has_told: watch::Sender::default(),
            bus,
            metrics,
            readers: Mutex::new(Some(Consumer::ALL.map(|consumer| facts.read(consumer)))),
            facts,
            outside: OnceLock::new(),
        }
    }

    /// Read those facts for webhooks that `filter` lets through, and events of clients among them. To be called once.
    pub fn read_for_webhooks(&self, filter: Arc<dyn FactFilter>) -> FactReader {
        let reader = self.facts.read_some(Consumer::Webhooks, Some(filter.clone()));
        let _ = self.outside.set(filter);
        reader
    }

    /// Does somebody outside want events that clients of `app` publish?
    pub fn wants_client_events(&self, app: &AppId) -> bool {
        self.outside.get().is_some_and(|filter| filter.wants_client_events(app))
    }

    /// A client published `event`, and the bus has it.
    pub fn client_event(&self, channel: ChannelKey, socket: SocketId, event: Event) {
        self.facts.publish(vec![Fact::ClientEvent(channel, socket, event)]);
    }

    /// The table that holds the names of channels.
    pub fn names(&self) -> &Arc<ChannelTable> {
        &self.names
    }

    /// The first of this slave's sockets came to `key`. `info`: what the others may know of a member. Called in the order
    /// in which it happened, key by key.
    pub fn claim(&self, key: &LedgerKey, info: Option<&str>) {
        self.with(|coordinator, out| coordinator.claim(key, info, out));
    }

    /// The last of them left; the same holds.
    pub fn withdraw(&self, key: &LedgerKey) {
        self.with(|coordinator, out| coordinator.withdraw(key, out));
    }

    /// So many sockets of this slave follow each of these keys; does any of them not know how it stands?
    pub fn follow(&self, follows: impl IntoIterator<Item = (CoordinatedKey, u64, bool)>) {
        self.with(|coordinator, out| {
            for (key, count, asks) in follows {
                coordinator.follow(&key, count, asks, out);
            }
        });
    }

    /// Changes when something that this slave follows stands otherwise.
    pub fn has_told(&self) -> watch::Receiver<()> {
        self.has_told.subscribe()
    }

    /// How that stands.
    pub fn take_told(&self) -> Vec<FollowUpdate> {
        std::mem::take(&mut *self.told.lock().unwrap_or_else(PoisonError::into_inner)).into_values().collect()
    }

    fn note_told(&self, updates: Vec<FollowUpdate>) {
        if updates.is_empty() {
            return;
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        for update in updates {
            let before = told.get(&update.key).is_some_and(|before| before.all);
            told.insert(update.key.clone(), FollowUpdate { all: update.all | before, ..update });
        }
        drop(told);
        self.has_told.send_replace(());
    }

    /// Another slave said something. `true` if lists of members must be fetched anew.
    #[must_use]
    pub fn receive(&self, from: NodeId, messages: Vec<CoordinationMessage>) -> bool {
        self.note_elsewhere(from, &messages);
        self.with(|coordinator, out| {
            for message in messages {
                coordinator.receive(from, message, out);
            }
            out.lists_are_stale
        })
    }

    /// The state of the bus changed. While it is down what is said is lost, and as long as not everybody is known
    /// nothing can be decided: from then on this slave begins anew with everybody.
    pub fn bus_changed(&self, state: &BusState) {
        self.with(|coordinator, out| match state.up && state.roster_known {
            true => coordinator.slaves_changed(&state.slaves, out),
            false => coordinator.detach(),
        });
    }

    /// Messages were lost although the bus is up: begin anew with everybody.
    pub fn begin_anew(&self, state: &BusState) {
        self.with(|coordinator, _| coordinator.detach());
        self.bus_changed(state);
    }

    /// This slave is about to go: hand over what it coordinates, to those of `slaves` that stay.
    pub fn hand_over(&self, slaves: &[NodeId]) {
        let stay: Vec<_> = slaves.iter().copied().filter(|&slave| slave != self.me).collect();
        stay.iter().for_each(|&slave| self.bus.report(slave, vec![CoordinationMessage::Leaving]));
        self.with(|coordinator, out| {
            coordinator.slaves_changed(&stay, out);
        });
    }

    /// Let those outside who read facts know what another slave decided that this one stands by for: should it die, nobody else
    /// knows what it had not told yet.
    fn note_elsewhere(&self, from: NodeId, messages: &[CoordinationMessage]) {
        let Some(filter) = self.outside.get() else { return };
        let slaves = self.bus.state().borrow().slaves.clone();
        let decides = |key: &CoordinatedKey| {
            let (CoordinatedKey::Channel(channel) | CoordinatedKey::Member { channel, .. }) = key else { return false };
            coordinators(slaves.iter().copied(), channel) == (Some(from), Some(self.me))
        };
        let fact = |message: &CoordinationMessage| match message {
            CoordinationMessage::Handover { key, epoch } => {
                let fact = Fact::decided_by(from, key.clone(), epoch % 2 == 1);
                (filter.wants(&fact) && decides(key)).then_some(fact)
            }
            CoordinationMessage::Leaving => Some(Fact::Leaving(from)),
            _ => None,
        };
        self.facts.publish(messages.iter().filter_map(fact).collect());
    }

    /// Which slave this is.
    pub fn me(&self) -> NodeId {
        self.me
    }

    /// The members of those of `channels` that this slave coordinates, as far as it has announced them.
    pub fn members<'a>(
        &self,
        channels: impl IntoIterator<Item = &'a ChannelKey>,
    ) -> BTreeMap<ChannelKey, BTreeMap<UserId, ByteString>> {
        let coordinator = self.lock();
        let known = |channel: &ChannelKey| Some((channel.clone(), coordinator.members(channel)?));
        channels.into_iter().filter_map(known).collect()
    }

    /// Start what reads facts, and what ends graces, on this thread. `refetch`: fetch this slave's lists of members anew. To be
    /// called once.
    pub fn start(self: &Arc<Self>, refetch: impl Fn() + 'static) {
        actix_rt::spawn(end_graces(Arc::downgrade(self), self.due.subscribe()));
        actix_rt::spawn(tell_counts(Arc::downgrade(self), self.counts_due.subscribe()));
        let Some([announcer, metrics, log]) = self.readers.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        let this = Arc::downgrade(self);
        let lost = move || {
            if let Some(this) = this.upgrade() {
                this.with(|coordinator, out| coordinator.announcements_lost(out));
                refetch();
            }
        };
        actix_rt::spawn(announce(announcer, self.bus.clone(), lost));
        let counters = self.metrics.clone();
        actix_rt::spawn(look_through(metrics, move |fact| counters.fact(label(fact))));
        actix_rt::spawn(look_through(log, write_to_log));
    }

    fn lock(&self) -> MutexGuard<'_, Coordinator> {
        self.coordinator.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, act: impl FnOnce(&mut Coordinator, &mut Outcome) -> T) -> T {
        let mut coordinator = self.lock();
        let mut out = Outcome::default();
        coordinator.at(self.start.elapsed());
        let result = act(&mut coordinator, &mut out);
        let due = coordinator.due();
        self.due.send_if_modified(|next| std::mem::replace(next, due) != due);
        let counts_due = coordinator.counts_due();
        self.counts_due.send_if_modified(|next| std::mem::replace(next, counts_due) != counts_due);
        for (to, messages) in out.batches(TOGETHER) {
            self.bus.report(to, messages);
        }
        self.facts.publish(out.facts);
        self.note_told(out.told);
        result
    }
}

/// What a fact is called in metrics and logs.
fn label(fact: &Fact) -> &'static str {
    match fact {
        Fact::Occupied(_) => "channel_occupied",
        Fact::Vacated(_) => "channel_vacated",
        Fact::MemberAdded(..) => "member_added",
        Fact::MemberRemoved(..) => "member_removed",
        Fact::UserOnline(..) => "user_online",
        Fact::UserOffline(..) => "user_offline",
        Fact::SubscriptionCount(..) => "subscription_count",
        Fact::ClientEvent(..) => "client_event",
        Fact::DecidedBy(..) => "decided_elsewhere",
        Fact::Leaving(_) => "leaving",
    }
}

fn write_to_log(fact: &Fact) {
    let what = label(fact);
    match fact {
        Fact::Occupied(ChannelKey { app, name }) | Fact::Vacated(ChannelKey { app, name }) => {
            debug!(fact = what, app_id:% = app, channel:% = name; "{what}: {name} of {app}");
        }
        Fact::MemberAdded(ChannelKey { app, name }, Member { user, .. })
        | Fact::MemberRemoved(ChannelKey { app, name }, user) => {
            debug!(fact = what, app_id:% = app, channel:% = name, user_id:% = user; "{what}: {user} on {name} of {app}");
        }
        Fact::UserOnline(app, user) | Fact::UserOffline(app, user) => {
            debug!(fact = what, app_id:% = app, user_id:% = user; "{what}: {user} of {app}");
        }
        Fact::SubscriptionCount(ChannelKey { app, name }, count) => {
            debug!(fact = what, app_id:% = app, channel:% = name, count; "{what}: {count} on {name} of {app}");
        }
        // decided by nobody here
        Fact::ClientEvent(..) | Fact::DecidedBy(..) | Fact::Leaving(_) => {}
    }
}

/// Let `look` see every fact, soon after it happened.
async fn look_through(reader: FactReader, look: impl Fn(&Fact)) {
    while let Some(batch) = reader.next(AT_ONCE).await {
        batch.facts.iter().for_each(&look);
        if batch.is_last {
            sleep(PACE).await;
        }
    }
}

async fn end_graces(coordination: Weak<Coordination>, mut due: watch::Receiver<Option<Duration>>) {
    loop {
        let next = *due.borrow_and_update();
        // every grace is equally long: what begins meanwhile does not end sooner
        match (next, coordination.upgrade().map(|coordination| (coordination.start, coordination.grace))) {
            (_, None) => return,
            (Some(next), Some((start, grace))) => {
                sleep(next.saturating_sub(start.elapsed())).await;
                let late = grace.min(GRACE);
                if start.elapsed() >= next.saturating_add(late) {
                    // this process stood still, and has not read yet who came back
                    sleep(late).await;
                }
                let Some(coordination) = coordination.upgrade() else { return };
                coordination.with(Coordinator::tick);
            }
            (None, Some(_)) => {
                if due.changed().await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn tell_counts(coordination: Weak<Coordination>, mut due: watch::Receiver<Option<Duration>>) {
    loop {
        let next = *due.borrow_and_update();
        let Some(start) = coordination.upgrade().map(|coordination| coordination.start) else { return };
        let wait = next.map_or(Duration::MAX, |next| next.saturating_sub(start.elapsed()));
        match timeout(wait, due.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return,
            Err(_) => {
                let Some(coordination) = coordination.upgrade() else { return };
                coordination.with(Coordinator::tick_counts);
            }
        }
    }
}

/// What is to be published of a fact.
fn announcement(fact: Fact) -> Option<MemberAnnouncement> {
    let (channel, change) = match fact {
        Fact::MemberAdded(channel, member) => (channel, MemberChange::Added(member)),
        Fact::MemberRemoved(channel, user) => (channel, MemberChange::Removed(user)),
        Fact::Occupied(_)
        | Fact::Vacated(_)
        | Fact::UserOnline(..)
        | Fact::UserOffline(..)
        | Fact::SubscriptionCount(..)
        | Fact::ClientEvent(..)
        | Fact::DecidedBy(..)
        | Fact::Leaving(_) => return None,
    };
    Some(MemberAnnouncement { channel, change })
}

/// Publish changes of members, in order. What the bus does not take is tried again until it does: nobody would ever know of
/// it otherwise; and twice is harmless. What was dropped, since so much happened at once, cannot be published any more; so
/// once the rest is, `lost` has every slave fetch the lists anew, which shows what they have missed as a difference.
async fn announce(reader: FactReader, bus: Arc<dyn Bus>, lost: impl Fn()) {
    let mut behind = 0;
    while let Some(batch) = reader.next(AT_ONCE).await {
        behind += batch.lost;
        let announcements: Vec<_> = batch.facts.into_iter().filter_map(announcement).collect();
        let mut state = bus.state();
        while let Err(error) = bus.announce(announcements.clone()).await {
            if let BusError::TooLarge { .. } = error {
                warn!("members could not be announced: {error}");
                break;
            }
            if reader.has_ended() {
                return;
            }
            // an error says that the bus is gone for good
            if let Ok(Err(_)) = timeout(PAUSE, state.changed()).await {
                return;
            }
        }
        if batch.is_last && behind > 0 {
            warn!(lost = behind; "{behind} changes of members came too fast to be announced: slaves fetch their lists anew");
            behind = 0;
            lost();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use wellhead_proto::{ids::ChannelName, testkit::RecordingBus};

    use super::*;

    fn removed(no: usize) -> Fact {
        let name: ChannelName = no.to_string().parse().unwrap();
        Fact::MemberRemoved(ChannelKey { app: "app".parse().unwrap(), name }, "ann".parse().unwrap())
    }

    #[tokio::test]
    async fn an_announcer_that_lost_facts_publishes_the_others_and_then_has_the_lists_fetched_once() {
        let metrics = Metrics::new(&mut prometheus_client::registry::Registry::default());
        let stream = FactStream::new(3 * AT_ONCE, metrics);
        let (reader, bus) = (stream.read(Consumer::Announcer), Arc::new(RecordingBus::default()));
        stream.publish((0..3 * AT_ONCE + 5).map(removed).collect());
        drop(stream);
        let fetched = Cell::new(0);
        announce(reader, bus.clone(), || {
            assert_eq!(bus.announced.lock().unwrap().len(), 3 * AT_ONCE, "behind all that was left");
            fetched.set(fetched.get() + 1);
        })
        .await;
        assert_eq!(fetched.get(), 1);
        assert_eq!(bus.announced.lock().unwrap().first().cloned(), announcement(removed(5)), "the oldest are lost");
    }
}
