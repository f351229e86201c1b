//! The bus of several nodes: interest, queries and their results, membership. It is built on any [`PubSub`].
//!
//! [`Cluster`] is what pushes and deliveries use, shared by all threads: the sending half, the slots, the queries that
//! wait for results, and which messages came without a gap. One actor owns the membership and this node's phase in it:
//! `membership`.

mod bus;
mod common;
mod complaints;
mod continuity;
mod formats;
mod fragments;
mod handler;
mod interest;
mod journal;
mod late;
mod membership;
mod metrics;
mod pending;
mod sender;
mod slots;
mod user_route;

use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use actix::Addr;
use actix_rt::ArbiterHandle;
use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
    time::timeout,
};
use wellhead_proto::{
    bus::{BusError, BusHandler, BusState, Gap},
    fingerprint::Fingerprint,
    ids::NodeId,
    membership::Heartbeat,
    node_message::MessageFormat,
    node_request::NodeResponse,
    query::QueryResult,
};

pub use self::{bus::ClusterBus, common::Common, handler::NodeMessageHandler, metrics::Metrics};
use self::{
    complaints::Complaints,
    continuity::Continuity,
    formats::Formats,
    interest::SlotInterest,
    late::LateSlaves,
    membership::{
        Begin, ClusterMembers, FormatsChanged, LeaveCluster, Lost, MailboxLoad, MembershipActor, Published, Stop,
    },
    pending::Pending,
    sender::MessageSender,
    user_route::UserRoute,
};
use super::pubsub::{PubSub, Subject};

/// How long slaves may take to answer a question.
const DEADLINE: Duration = Duration::from_millis(500);
/// How long one slave may take, when nobody else can answer.
const ONE_DEADLINE: Duration = Duration::from_secs(2);
/// How long one request may wait for its messages to be taken and confirmed.
const PUBLISH: Duration = Duration::from_secs(5);

/// One node's end of the bus.
pub struct Cluster {
    me: Heartbeat,
    /// What this node must have in common with the others.
    common: OnceLock<(Common, Fingerprint)>,
    /// Everything is measured from here.
    start: Instant,
    runtime: Handle,
    /// The slave of this node. It holds this node in turn, so the reference is dropped at the end.
    bus_handler: RwLock<Option<Arc<dyn BusHandler>>>,
    sender: MessageSender,
    interest: SlotInterest,
    /// Of users. What is to be confirmed of either is confirmed together.
    user_interest: SlotInterest,
    user_route: Mutex<UserRoute>,
    continuity: Mutex<Continuity>,
    /// Which format each node reads.
    formats: Mutex<Formats>,
    complaints: Mutex<Complaints>,
    /// Queries, and pushes to patterns, that wait for results.
    queries: Pending<QueryResult>,
    /// Requests to one node that wait for a response.
    requests: Pending<NodeResponse>,
    late: Mutex<LateSlaves>,
    membership: Addr<MembershipActor>,
    membership_load: MailboxLoad,
    /// What the membership publishes.
    state: watch::Receiver<BusState>,
    members: watch::Receiver<ClusterMembers>,
    all_back: watch::Receiver<bool>,
    conflict: watch::Receiver<bool>,
    metrics: Metrics,
}

impl Cluster {
    /// The end of the node whose heartbeat is `me`; its membership lives on `arbiter`. It has no transport yet: see
    /// [`Cluster::start`]. Within a tokio runtime that lives as long as the process.
    #[must_use]
    pub fn new(me: Heartbeat, metrics: Metrics, arbiter: &ArbiterHandle) -> Arc<Self> {
        let (sender, queued) = MessageSender::new(me.node);
        let (interest, user_interest) = SlotInterest::of_both();
        let cluster = Arc::new_cyclic(|node| {
            let (membership, published) = MembershipActor::start_on(node.clone(), arbiter);
            let Published { state, members, all_back, conflict } = published;
            Self {
                me,
                common: OnceLock::new(),
                start: Instant::now(),
                runtime: Handle::current(),
                bus_handler: RwLock::default(),
                sender,
                interest,
                user_interest,
                user_route: Mutex::default(),
                continuity: Mutex::default(),
                formats: Mutex::default(),
                complaints: Mutex::default(),
                queries: Pending::default(),
                requests: Pending::default(),
                late: Mutex::default(),
                membership,
                membership_load: MailboxLoad::default(),
                state,
                members,
                all_back,
                conflict,
                metrics,
            }
        });
        cluster.runtime.spawn(sender::send_queued(Arc::downgrade(&cluster), queued));
        cluster
    }

    /// What this node must have in common with the others. To be told before it begins, and once.
    ///
    /// # Panics
    ///
    /// If it was told before.
    pub fn share(&self, common: Common) {
        if common.require_signed {
            self.formats().require_signed();
        }
        let digest = common.digest();
        assert!(self.common.set((common, digest)).is_ok(), "a node tells once what it shares");
    }

    /// The handler of what the transport receives.
    #[must_use]
    pub fn handler(self: &Arc<Self>) -> Arc<NodeMessageHandler> {
        Arc::new(NodeMessageHandler::new(self))
    }

    /// Begin, on `pubsub`, which was given [`Cluster::handler`]. `hello`: how long to wait for everybody's hello each time the
    /// transport comes up, before the membership counts as known.
    ///
    /// # Panics
    ///
    /// If it was begun before.
    pub fn start(self: &Arc<Self>, pubsub: Arc<dyn PubSub>, hello: Duration) {
        pubsub.listen(Subject::Everyone);
        pubsub.listen(Subject::Node(self.me.node));
        self.sender.begin(pubsub);
        self.membership.do_send(Begin { hello });
        self.runtime.spawn(interest::confirm(Arc::downgrade(self)));
    }

    /// Say goodbye, so that nobody waits for this node any more. It still receives and answers while its sockets are
    /// closed one after the other.
    pub async fn goodbye(&self) {
        let (heard, told) = oneshot::channel();
        self.membership.do_send(LeaveCluster(heard));
        // dropped, if there is nobody to tell
        let _ = timeout(DEADLINE, told).await;
    }

    /// Say goodbye and disconnect.
    pub async fn stop(&self) {
        self.goodbye().await;
        // fails only if its thread ended before
        let _ = self.membership.send(Stop).await;
        if let Some(pubsub) = self.sender.pubsub() {
            pubsub.close().await;
        }
        self.bus_handler.write().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Resolves when another node has the number of this one, and this one is to take another.
    pub async fn conflict(&self) {
        if self.conflict.clone().wait_for(|conflict| *conflict).await.is_err() {
            // its membership ended, and with it the process
            std::future::pending().await
        }
    }

    /// A node came over the local bus. `reads`: the newest format that it reads, as it says; one of the previous release says
    /// nothing.
    pub fn linked(&self, node: NodeId, reads: &[u8]) {
        self.formats().linked(node, MessageFormat::of(reads).unwrap_or(MessageFormat::V3), self.now());
        self.membership.do_send(FormatsChanged);
    }

    /// A node whose connection broke is gone at once. This node, which saw it, tells the others.
    pub fn lost(&self, node: NodeId) {
        self.formats().unlinked(node);
        self.membership.do_send(Lost(node));
    }

    /// Listen to at most `most` slots one by one, and to all of them until there are fewer than `few`; the same for the slots of
    /// users.
    pub fn limit_slots(&self, most: usize, few: usize) {
        self.interest.slots().limit(most, few);
        self.user_interest.slots().limit(most, few);
    }

    /// Does it listen to all of them at once?
    #[must_use]
    pub fn hears_all_slots(&self) -> bool {
        self.interest.slots().is_all()
    }

    /// Does it listen to all slots of users at once?
    #[must_use]
    pub fn hears_all_user_slots(&self) -> bool {
        self.user_interest.slots().is_all()
    }

    fn common(&self) -> &Common {
        &self.shared().0
    }

    /// The fingerprint of the settings that all nodes must share.
    fn settings_digest(&self) -> Fingerprint {
        self.shared().1
    }

    fn shared(&self) -> &(Common, Fingerprint) {
        self.common.get_or_init(|| (Common::default(), Common::default().digest()))
    }

    /// What this node says about itself now.
    fn heartbeat(&self) -> Heartbeat {
        let (common, settings) = self.shared();
        Heartbeat { secret: common.secret, settings: *settings, unix_millis: unix_millis(), ..self.me }
    }

    fn bus_handler(&self) -> Option<Arc<dyn BusHandler>> {
        self.bus_handler.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn continuity(&self) -> MutexGuard<'_, Continuity> {
        self.continuity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn formats(&self) -> MutexGuard<'_, Formats> {
        self.formats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Back once it is known in which format to write. At first nobody has been heard of, and nodes of the previous release
    /// may be here.
    async fn when_formats_are_known(&self) {
        if !self.formats().is_settled() {
            let mut state = self.state.clone();
            let known = state.wait_for(|state| !state.up || state.roster_known);
            drop(timeout(ONE_DEADLINE, known).await);
            self.formats().settle();
        }
    }

    fn late(&self) -> MutexGuard<'_, LateSlaves> {
        self.late.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This node missed pushes: its slave closes the sockets that may lack some.
    fn tell_gap(&self, gap: Gap) {
        self.metrics.gaps.inc();
        if let Some(bus_handler) = self.bus_handler() {
            bus_handler.gap(gap);
        }
    }

    fn pubsub(&self) -> Result<&Arc<dyn PubSub>, BusError> {
        match self.sender.pubsub() {
            Some(pubsub) if self.state.borrow().up => Ok(pubsub),
            _ => Err(BusError::Down),
        }
    }

    /// The way to the others, unless this node is not to serve.
    fn open_pubsub(&self) -> Result<&Arc<dyn PubSub>, BusError> {
        if self.state.borrow().stranger { Err(BusError::Stranger) } else { self.pubsub() }
    }
}

fn unix_millis() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
