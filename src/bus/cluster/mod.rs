//! The bus of several nodes: who listens to what, questions and answers, the roster. Stands on any [`Wire`].

mod bus;
mod clocks;
mod common;
mod complaints;
mod continuity;
mod ear;
mod formats;
mod fragments;
mod heart;
mod journal;
mod membership;
mod metrics;
mod pending;
mod rival;
mod slots;
mod strangers;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use log::debug;
use tokio::{
    runtime::Handle,
    sync::{Notify, mpsc, watch},
    time::timeout,
};
use wellhead_proto::{
    bus::{BusError, BusState, Gap, Inbox},
    fingerprint::Fingerprint,
    ids::NodeId,
    node_message::{Body, MessageFormat, NodeMessage},
    node_request::NodeResponse,
    query::QueryResult,
    roster::{Beat, Roster},
};

pub use self::{bus::ClusterBus, common::Common, ear::ClusterEar, metrics::Metrics};
use self::{
    clocks::Clocks,
    complaints::Complaints,
    continuity::{Continuity, SENDER},
    formats::Formats,
    fragments::Fragments,
    journal::Journal,
    membership::Said,
    pending::Pending,
    rival::Rivalry,
    slots::{Order, Slots},
    strangers::Strangers,
};
use super::wire::{Subject, Wire};

/// How long slaves may take to answer a question.
const DEADLINE: Duration = Duration::from_millis(500);
/// How long one slave may take, when nobody else can answer.
const ONE_DEADLINE: Duration = Duration::from_secs(2);
/// How long one request may wait for its messages to be taken and confirmed.
const PUBLISH: Duration = Duration::from_secs(5);

/// One node's end of the bus.
pub struct Cluster {
    me: Beat,
    /// What this node must have in common with the others.
    common: OnceLock<(Common, Fingerprint)>,
    /// Everything is measured from here.
    start: Instant,
    runtime: Handle,
    wire: OnceLock<Arc<dyn Wire>>,
    /// What hears for this node; it holds this node in turn, so that the end lets go of it.
    inbox: RwLock<Option<Arc<dyn Inbox>>>,
    roster: Mutex<Roster>,
    slots: Mutex<Slots>,
    /// Something is to be confirmed.
    asked: Notify,
    /// Something was confirmed.
    confirmed: Notify,
    fragments: Mutex<Fragments>,
    /// Which format each node reads.
    formats: Mutex<Formats>,
    /// Held while a message is handed to the wire: their numbers are the order in which it gets them.
    line: tokio::sync::Mutex<()>,
    journal: Mutex<Journal>,
    continuity: Mutex<Continuity>,
    complaints: Mutex<Complaints>,
    /// Queries, and pushes to patterns, that wait for results.
    queries: Pending<QueryResult>,
    /// Requests to one node that wait for a response.
    requests: Pending<NodeResponse>,
    /// What waits to be sent to other nodes, in order.
    outgoing: mpsc::UnboundedSender<(Subject, Body)>,
    state: watch::Sender<BusState>,
    /// Every slave that was there before the bus went down has been heard of since, or has had the time for it.
    all_back: watch::Sender<bool>,
    /// It said goodbye: it beats no more.
    leaving: AtomicBool,
    /// It has heard its own goodbye.
    left: Notify,
    rivalry: Mutex<Rivalry>,
    strangers: Mutex<Strangers>,
    clocks: Mutex<Clocks>,
    /// What was said of others, so that it is said once.
    said: Mutex<Said>,
    /// Another node has its number, and keeps it.
    clashed: watch::Sender<bool>,
    next: AtomicU64,
    metrics: Metrics,
}

impl Cluster {
    /// The end of a node that beats as `me`. It has no wire yet: see [`Cluster::start`]. Within a tokio runtime that
    /// lives as long as the process.
    #[must_use]
    pub fn new(me: Beat, metrics: Metrics) -> Arc<Self> {
        let (outgoing, bodies) = mpsc::unbounded_channel();
        let cluster = Arc::new(Self {
            me,
            common: OnceLock::new(),
            start: Instant::now(),
            runtime: Handle::current(),
            wire: OnceLock::new(),
            inbox: RwLock::default(),
            roster: Mutex::default(),
            slots: Mutex::default(),
            asked: Notify::new(),
            confirmed: Notify::new(),
            fragments: Mutex::default(),
            formats: Mutex::default(),
            line: tokio::sync::Mutex::default(),
            journal: Mutex::default(),
            continuity: Mutex::default(),
            complaints: Mutex::default(),
            queries: Pending::default(),
            requests: Pending::default(),
            outgoing,
            state: watch::Sender::new(BusState::default()),
            all_back: watch::Sender::new(true),
            leaving: AtomicBool::new(false),
            left: Notify::new(),
            rivalry: Mutex::default(),
            strangers: Mutex::default(),
            clocks: Mutex::default(),
            said: Mutex::default(),
            clashed: watch::Sender::new(false),
            // messages of all nodes differ: the node stands above the count
            next: AtomicU64::new(u64::from(u32::from(me.node)) << SENDER),
            metrics,
        });
        cluster.runtime.spawn(heart::post(Arc::downgrade(&cluster), bodies));
        cluster
    }

    /// What this node must have in common with the others. To be told before it begins, and once.
    pub fn share(&self, common: Common) {
        self.roster().limit(common.max_nodes);
        if common.require_signed {
            self.formats().require_signed();
        }
        let digest = common.digest();
        assert!(self.common.set((common, digest)).is_ok(), "a node tells once what it shares");
    }

    /// What the wire is to tell.
    #[must_use]
    pub fn ear(self: &Arc<Self>) -> Arc<ClusterEar> {
        Arc::new(ClusterEar::new(self))
    }

    /// Begin, on `wire`, which was given [`Cluster::ear`]. `hello`: how long to wait for everybody's hello each time the
    /// wire comes up, before the roster counts as known.
    ///
    /// # Panics
    ///
    /// If it was begun before.
    pub fn start(self: &Arc<Self>, wire: Arc<dyn Wire>, hello: Duration) {
        wire.listen(Subject::Everyone);
        wire.listen(Subject::Node(self.me.node));
        let state = wire.state();
        assert!(self.wire.set(wire).is_ok(), "a node begins once");
        self.runtime.spawn(heart::watch_wire(Arc::downgrade(self), state, hello));
        self.runtime.spawn(heart::beat(Arc::downgrade(self), hello));
        self.runtime.spawn(heart::confirm(Arc::downgrade(self)));
    }

    /// Say goodbye, so that nobody waits for this node any more. It still hears and answers: its sockets are closed one
    /// after the other.
    pub async fn goodbye(&self) {
        if self.leaving.swap(true, Ordering::Relaxed) || self.wire().is_err() {
            // a wire that is down tells nobody; then the lease does
            return;
        }
        let left = self.left.notified();
        let goodbye = Body::Goodbye(self.me.node, self.me.incarnation);
        // behind the beats that wait: none comes after it
        let _ = self.outgoing.send((Subject::Everyone, goodbye));
        let _ = timeout(DEADLINE, left).await;
    }

    /// Say goodbye and hang up.
    pub async fn stop(&self) {
        self.goodbye().await;
        self.state.send_modify(|state| state.up = false);
        if let Some(wire) = self.wire.get() {
            wire.close().await;
        }
        self.inbox.write().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Resolves when another node has the number of this one, and this one is to take another.
    pub async fn clashed(&self) {
        if self.clashed.subscribe().wait_for(|clashed| *clashed).await.is_err() {
            // never: the sender is ours
            std::future::pending().await
        }
    }

    fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    fn rivalry(&self) -> MutexGuard<'_, Rivalry> {
        self.rivalry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node came over the local bus. `reads`: the newest format that it reads, as it says; one of the previous release says
    /// nothing.
    pub fn linked(&self, node: NodeId, reads: &[u8]) {
        self.formats().linked(node, MessageFormat::of(reads).unwrap_or(MessageFormat::V3), self.now());
        self.look_at_formats();
    }

    /// A node whose connection broke is gone at once. The others hear of it from this one, which saw it.
    pub fn lost(&self, node: NodeId) {
        self.formats().unlinked(node);
        let Some(incarnation) = self.roster().incarnation(node) else { return };
        if self.roster().goodbye(node) {
            debug!(node_id:% = node; "node {node} is gone: its connection broke");
            self.show_roster();
            // fails only when the process ends
            let _ = self.outgoing.send((Subject::Everyone, Body::Goodbye(node, incarnation)));
        }
    }

    /// Listen to at most `most` slots one by one, and to all of them until there are fewer than `few`.
    pub fn limit_slots(&self, most: usize, few: usize) {
        self.slots().limit(most, few);
    }

    /// Does it listen to all of them at once?
    #[must_use]
    pub fn hears_all_slots(&self) -> bool {
        self.slots().is_all()
    }

    fn inbox(&self) -> Option<Arc<dyn Inbox>> {
        self.inbox.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn continuity(&self) -> MutexGuard<'_, Continuity> {
        self.continuity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pushes passed this node by: tell its sockets.
    fn tell_gap(&self, gap: Gap) {
        self.metrics.gaps.inc();
        if let Some(inbox) = self.inbox() {
            inbox.gap(gap);
        }
    }

    fn roster(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn formats(&self) -> MutexGuard<'_, Formats> {
        self.formats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Back once it is known in which format to write. At first nobody has been heard of, and nodes of the previous release
    /// may be here.
    async fn when_formats_are_known(&self) {
        if !self.formats().is_settled() {
            let mut state = self.state.subscribe();
            let known = state.wait_for(|state| !state.up || state.roster_known);
            drop(timeout(ONE_DEADLINE, known).await);
            self.formats().settle();
        }
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wire(&self) -> Result<&Arc<dyn Wire>, BusError> {
        match self.wire.get() {
            Some(wire) if self.state.borrow().up => Ok(wire),
            _ => Err(BusError::Down),
        }
    }

    /// The way to the others, unless this node is not to serve.
    pub(super) fn open_wire(&self) -> Result<&Arc<dyn Wire>, BusError> {
        if self.state.borrow().stranger { Err(BusError::Stranger) } else { self.wire() }
    }

    /// The roster changed: tell those who watch.
    fn show_roster(&self) {
        self.metrics.nodes.set(self.roster().len() as i64);
        self.look_at_formats();
        self.state.send_if_modified(|state| {
            // read in here: whoever shows last shows the latest
            let slaves: Arc<[NodeId]> = self.roster().slaves().map(|(node, _)| node).collect();
            let changed = state.slaves != slaves;
            state.slaves = slaves;
            changed
        });
        self.look_who_is_back();
    }

    fn look_who_is_back(&self) {
        if !*self.all_back.borrow() && self.roster().slaves().all(|(_, heard_of)| heard_of) {
            self.all_back.send_replace(true);
        }
    }

    /// Send a message.
    async fn send(&self, wire: &Arc<dyn Wire>, subject: Subject, body: Body) -> Result<(), BusError> {
        let session = wire.session().ok_or(BusError::Down)?;
        self.send_in(wire, session, subject, body, |_| ()).await
    }

    /// Send a message over that connection, in fragments if it must be; `note` its number before the wire has it.
    async fn send_in(
        &self,
        wire: &Arc<dyn Wire>,
        session: u32,
        subject: Subject,
        body: Body,
        note: impl FnOnce(u64),
    ) -> Result<(), BusError> {
        let _in_order = self.line.lock().await;
        let message = NodeMessage { id: self.next_id(), session, body };
        note(message.id);
        let formats = self.formats().of(subject, &message.body);
        for &format in formats {
            for bytes in message.encode_within(format, &self.common().key, wire.max_message()) {
                wire.send_in(session, subject, bytes).await?;
            }
        }
        Ok(())
    }

    /// Listen and unlisten as the table of slots says.
    fn obey(&self, orders: &[Order]) {
        let Some(wire) = self.wire.get() else { return };
        for order in orders {
            match *order {
                Order::Listen(slot) => wire.listen(Subject::Slot(slot)),
                Order::Unlisten(slot) => wire.unlisten(Subject::Slot(slot)),
                Order::ListenAll => wire.listen(Subject::EverySlot),
                Order::UnlistenAll => wire.unlisten(Subject::EverySlot),
            }
        }
    }

    /// The number of the next message, or question.
    fn next_id(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

/// Keeps a slot wanted.
struct Wanted {
    cluster: Arc<Cluster>,
    slot: u16,
}

impl Drop for Wanted {
    fn drop(&mut self) {
        let now = self.cluster.now();
        self.cluster.slots().unwant(self.slot, now);
    }
}
