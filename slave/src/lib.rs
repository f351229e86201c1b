//! The floor where clients stand: their sockets, what they subscribe to, and the fan-out.

mod api;
mod backlog;
mod channels;
mod handshake;
mod heartbeat;
mod intake;
mod interests;
pub mod memory;
mod metrics;
pub mod outbox;
mod pages;
mod patience;
mod presence;
mod pulse;
pub mod registry;
pub mod session;
pub mod settings;
mod token;
pub mod transport;
mod users;
mod voices;

pub use handshake::{Accepted, Rejected};

use std::{
    cell::RefCell,
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc, RwLock, RwLockReadGuard, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use actix::{Actor, Addr};
use bytes::BytesMut;
use log::{error, warn};
use tokio::{
    net::TcpStream,
    sync::{Notify, watch},
    time::timeout,
};
use wellhead_proto::{
    app::Apps,
    bus::{Bus, BusState, Inbox},
    dialect::contract::{Dialect, Role, Route},
    frame::Frame,
    ids::{NodeId, SocketId},
    refusal::{CloseCause, Refusal},
    roster::LEASE,
    surface::{Head, Router},
};

use crate::{
    backlog::Backlog,
    channels::MAX_WORKERS,
    intake::Intake,
    interests::Interests,
    memory::{Memory, Share},
    metrics::Metrics,
    presence::{Presence, coordination::Coordination},
    pulse::Rhythm,
    registry::{
        Hall, Registry,
        floor::{CHUNK, Floor},
        message::Drain,
    },
    settings::{Limits, Settings},
    token::Tokens,
    voices::Voices,
};

/// What a slave is made from.
pub struct Setup {
    /// Which node of the cluster it is.
    pub node: NodeId,
    /// `[slave]`.
    pub settings: Settings,
    /// `[limits]`.
    pub limits: Limits,
    /// `[jwt]`, as far as connection tokens go.
    pub tokens: settings::Tokens,
    /// The cluster's name.
    pub cluster: String,
    /// The cluster's secret: signs connection tokens.
    pub secret: Vec<u8>,
    /// The apps that are served.
    pub apps: Arc<Apps>,
    /// The dialects that are spoken.
    pub dialects: Vec<Arc<dyn Dialect>>,
    /// The way to the other nodes.
    pub bus: Arc<dyn Bus>,
}

/// A slave: one for each process, shared by its worker threads.
#[derive(Clone)]
pub struct Slave(Arc<Shared>);

/// What the threads of a slave share.
pub struct Shared {
    node: NodeId,
    settings: Settings,
    limits: Limits,
    apps: Arc<Apps>,
    router: Router,
    voices: Voices,
    tokens: Tokens,
    bus: Arc<dyn Bus>,
    interests: Arc<Interests>,
    coordination: Arc<Coordination>,
    presence: Arc<Presence>,
    backlog: Arc<Backlog>,
    memory: Arc<Memory>,
    metrics: Metrics,
    workers: RwLock<Vec<Addr<Registry>>>,
    next_socket: AtomicU32,
    open: AtomicUsize,
    closed_one: Notify,
    draining: AtomicBool,
    /// The socket that clients connect to stays open after this node, for its successor.
    outlived: AtomicBool,
}

thread_local! {
    /// The halls of this thread, each with its slave: one, unless a test runs several nodes in a process. Held weakly, a
    /// slave's address is not given to another, which would be taken for it.
    static HALLS: RefCell<Vec<(Weak<Shared>, Rc<Hall>)>> = const { RefCell::new(Vec::new()) };
}

impl Slave {
    /// A slave without worker threads; `registry` shows its counters.
    #[must_use]
    pub fn new(setup: Setup, registry: &mut prometheus_client::registry::Registry) -> Self {
        let Setup { node, settings, limits, tokens, cluster, secret, apps, dialects, bus } = setup;
        let metrics = Metrics::new(registry);
        metrics.limit_bytes.set(limits.memory.0 as i64);
        let grace = settings.member_grace.0;
        let coordination = Coordination::new(node, Arc::default(), grace, bus.clone(), metrics.clone());
        let coordination = Arc::new(coordination);
        let others = bus.clone();
        let clocks = Box::new(move |node| others.clock_ahead_of(node));
        Self(Arc::new(Shared {
            node,
            settings,
            limits,
            apps,
            voices: Voices::new(&dialects),
            router: Router::new(Role::Slave, dialects),
            tokens: Tokens::new(tokens, node, cluster, &secret).with_clocks(clocks),
            interests: Arc::new(Interests::new(bus.clone(), coordination.clone())),
            presence: Arc::new(Presence::new(coordination.clone(), bus.clone())),
            coordination,
            bus,
            backlog: Arc::default(),
            memory: Arc::new(Memory::new(if limits.memory.0 == 0 { usize::MAX } else { limits.memory.bytes() })),
            metrics,
            workers: RwLock::default(),
            next_socket: AtomicU32::new(1),
            open: AtomicUsize::new(0),
            closed_one: Notify::new(),
            draining: AtomicBool::new(false),
            outlived: AtomicBool::new(false),
        }))
    }

    /// Its ear, for the bus.
    #[must_use]
    pub fn inbox(&self) -> Arc<dyn Inbox> {
        Arc::new(Intake(self.0.clone()))
    }

    /// Make the calling thread one of its workers, with a registry of its own. Doing it twice is harmless.
    ///
    /// # Panics
    ///
    /// Outside of an actix arbiter, and beyond 64 threads.
    pub fn start_worker(&self) {
        if self.hall().is_some() {
            return;
        }
        let shared = &self.0;
        let mut workers = shared.workers.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let worker = workers.len();
        assert!(worker < MAX_WORKERS, "a slave has at most {MAX_WORKERS} worker threads");
        let voices = Rc::new(shared.voices.clone());
        let (interests, presence) = (shared.interests.clone(), shared.presence.clone());
        let floor = Floor::new(
            worker,
            CHUNK,
            shared.limits.grants.bytes(),
            voices,
            interests,
            presence,
            shared.metrics.clone(),
        );
        let hall = Hall::new(floor, Share::new(shared.memory.clone(), shared.limits.queue.bytes()));
        let rhythm = Rhythm::new(&shared.settings, &shared.limits);
        workers.push(Registry::new(hall.clone(), rhythm, shared.metrics.clone()).start());
        let of_the_gone: Vec<_> = HALLS.with_borrow_mut(|halls| {
            halls.push((Arc::downgrade(shared), hall));
            halls.extract_if(.., |(slave, _)| slave.strong_count() == 0).collect()
        });
        drop(of_the_gone);
        if worker == 0 {
            actix_rt::spawn(sweep(Arc::downgrade(shared)));
            actix_rt::spawn(watch_bus(Arc::downgrade(shared), shared.bus.state()));
            actix_rt::spawn(watch_roster(Arc::downgrade(shared), shared.bus.state()));
            let weak = Arc::downgrade(shared);
            shared.coordination.start(move || {
                if let Some(shared) = weak.upgrade() {
                    shared.refetch_members();
                }
            });
        }
    }

    fn hall(&self) -> Option<Rc<Hall>> {
        HALLS.with_borrow(|halls| {
            let mine = halls.iter().find(|(slave, _)| slave.as_ptr() == Arc::as_ptr(&self.0));
            mine.map(|(_, hall)| hall.clone())
        })
    }

    /// Is there a row for sockets at this path?
    #[must_use]
    pub fn opens_socket(&self, head: Head<'_>) -> bool {
        self.0.router.find(Route::SOCKET, head.path).is_ok()
    }

    /// Judge a request for a socket; `peer` is for the log.
    ///
    /// # Errors
    ///
    /// The client may not come in.
    pub async fn handshake(&self, head: Head<'_>, peer: Option<SocketAddr>) -> Result<Accepted, Rejected> {
        handshake::judge(&self.0, head, peer).await
    }

    /// Take over the connection of a client that was accepted: on this thread it becomes a session. `early` came behind
    /// the handshake.
    pub fn open(&self, accepted: Accepted, stream: TcpStream, early: BytesMut) {
        match self.hall() {
            Some(hall) => handshake::open(&self.0, &hall, accepted, stream, early),
            None => error!("a socket came to a thread that is no worker of this slave"),
        }
    }

    /// How many sockets are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.0.open.load(Ordering::Relaxed)
    }

    /// Take no more sockets, and hand over what this slave keeps for the cluster. To be called before it says goodbye on
    /// the bus. `outlived`: the socket that clients connect to stays open for a successor.
    pub fn prepare_to_go(&self, outlived: bool) {
        self.0.outlived.store(outlived, Ordering::Relaxed);
        self.0.draining.store(true, Ordering::Relaxed);
        let slaves = self.0.bus.state().borrow().slaves.clone();
        self.0.coordination.hand_over(&slaves);
    }

    /// Take no more sockets and close those that are open, telling each to come back. Back when all are gone, or when the
    /// time for it is over.
    pub async fn drain(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
        self.0.close_all(self.0.farewell());
        let gone = async {
            loop {
                let closed = self.0.closed_one.notified();
                if self.connections() == 0 {
                    return;
                }
                closed.await;
            }
        };
        if patience::within(self.0.settings.drain.0, gone).await.is_none() {
            let left = self.connections();
            warn!(left; "{left} sockets had not gone when the time to drain was over");
        }
    }
}

/// Forget references to tokens that nobody used.
async fn sweep(shared: Weak<Shared>) {
    const PAUSE: Duration = Duration::from_secs(60);
    loop {
        actix_rt::time::sleep(PAUSE).await;
        let Some(shared) = shared.upgrade() else { return };
        shared.tokens.sweep(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
    }
}

/// How long sockets stay when the bus is gone: their clients would wait for pushes that cannot come.
const WITHOUT_BUS: Duration = Duration::from_secs(5);

/// Tell every socket to come back, when the bus has been down for too long.
async fn watch_bus(shared: Weak<Shared>, mut state: watch::Receiver<BusState>) {
    // an error says that the bus is gone for good, with the process
    while state.wait_for(|state| !state.serves()).await.is_ok() {
        if timeout(WITHOUT_BUS, state.wait_for(BusState::serves)).await.is_ok() {
            continue;
        }
        let Some(shared) = shared.upgrade() else { return };
        let open = shared.open.load(Ordering::Relaxed);
        warn!(open; "the bus has been down for {} s: {open} sockets are told to come back", WITHOUT_BUS.as_secs());
        // whoever came back to this node at once would be turned away
        shared.close_all(CloseCause::ShuttingDownAlone);
        drop(shared);
        if state.wait_for(BusState::serves).await.is_err() {
            return;
        }
    }
}

/// Tell the coordinator who is alive, and see to it that what is known of members is right afterwards: once at once, and once
/// more when it has been quiet for a lease, when what a former coordinator announced late has arrived.
async fn watch_roster(shared: Weak<Shared>, mut state: watch::Receiver<BusState>) {
    let mut changed = true;
    loop {
        let now = state.borrow_and_update().clone();
        match shared.upgrade() {
            Some(shared) if !shared.is_draining() => {
                shared.coordination.bus_changed(&now);
                if now.up && now.roster_known {
                    shared.refetch_members();
                }
            }
            Some(_) => {}
            None => return,
        }
        let patience = if changed { LEASE } else { Duration::MAX };
        changed = match timeout(patience, state.changed()).await {
            Ok(Ok(())) => true,
            Ok(Err(_)) => return,
            Err(_) => false,
        };
    }
}

impl Shared {
    /// Close every socket, a few at a time, telling each to come back.
    fn close_all(&self, cause: CloseCause) {
        self.close(cause, None);
    }

    /// The same for those that were opened before the socket of that number, if it is about some only.
    fn close(&self, cause: CloseCause, opened_before: Option<u32>) {
        for worker in self.workers().iter() {
            worker.do_send(Drain { cause, at_once: None, opened_before });
        }
    }

    /// What clients hear when this node ends: whether somebody takes them at once.
    fn farewell(&self) -> CloseCause {
        let state = self.bus.state();
        let state = state.borrow();
        let others = state.up && state.slaves.iter().any(|slave| *slave != self.node);
        if others || self.outlived.load(Ordering::Relaxed) {
            CloseCause::ShuttingDown
        } else {
            CloseCause::ShuttingDownAlone
        }
    }

    /// What those hear who come while it ends.
    fn refuse_while_draining(&self) -> Refusal {
        match self.farewell() {
            CloseCause::ShuttingDown => Refusal::moved("shutting down"),
            _ => Refusal::unavailable("shutting down"),
        }
    }

    /// Fetch the lists of members anew: what was announced may have been lost.
    fn refetch_members(self: &Arc<Self>) {
        self.presence.refetch(self);
    }

    fn workers(&self) -> RwLockReadGuard<'_, Vec<Addr<Registry>>> {
        self.workers.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn next_socket_id(&self) -> SocketId {
        SocketId::new(self.node, self.next_socket.fetch_add(1, Ordering::Relaxed))
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Room for one more socket, if there is.
    fn pass(self: &Arc<Self>) -> Option<Pass> {
        let most = match self.settings.max_connections {
            0 => usize::MAX,
            most => most,
        };
        let room = |open| (open < most).then_some(open + 1);
        self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).ok()?;
        self.metrics.connections.inc();
        Some(Pass(self.clone()))
    }
}

/// One of the sockets that may be open; dropping it makes room for another.
pub struct Pass(Arc<Shared>);

impl Pass {
    /// Its socket ends.
    fn closed(&self, cause: CloseCause) {
        self.0.metrics.closed(cause);
    }

    fn goodbye(&self, voice: u8, cause: CloseCause) -> Frame {
        self.0.voices.at(voice).goodbye(cause)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
        self.0.metrics.connections.dec();
        self.0.closed_one.notify_waiters();
    }
}
