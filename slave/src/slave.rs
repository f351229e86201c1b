//! A slave as the process sees it: made from its parts, given worker threads, opened to clients, and ended.

use std::{
    cell::RefCell,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, Weak},
};

use actix::Actor;
use log::{error, warn};
use wellhead_proto::{
    bus::{Bus, BusHandler},
    dialect::contract::{Dialect, Role, Route},
    http_api::{Head, Router},
    ids::NodeId,
    tenants::TenantDirectory,
};

use crate::{
    admission::Admission,
    backlog::Backlog,
    dispatcher::BusDispatcher,
    encodings::Encodings,
    handshake::{self, Accepted, Opened, Rejected},
    interests::Interests,
    keep_alive::KeepAliveConfig,
    lifecycle,
    memory::{Memory, Share},
    metrics::Metrics,
    patience,
    presence::{
        Presence,
        coordination::Coordination,
        facts::{FactFilter, FactReader},
    },
    registries::Registries,
    registry::{CHUNK, Registry, Shard, ShardCell},
    remote::{RemoteCaller, RemoteCalls},
    settings::{self, Limits, Settings},
    state::SlaveState,
    token::Tokens,
    webhooks::WebhookSender,
};

/// What a slave is made from.
pub struct SlaveSetup {
    /// Which node of the cluster it is.
    pub node: NodeId,
    /// `[slave]`.
    pub settings: Settings,
    /// `[limits]`.
    pub limits: Limits,
    /// `[jwt]`, as far as connection tokens go.
    pub tokens: settings::TokenSettings,
    /// The cluster's name.
    pub cluster: String,
    /// The cluster's secret: signs connection tokens.
    pub secret: Vec<u8>,
    /// The apps that are served.
    pub tenants: Arc<TenantDirectory>,
    /// The dialects that are served.
    pub dialects: Vec<Arc<dyn Dialect>>,
    /// The way to the other nodes.
    pub bus: Arc<dyn Bus>,
    /// Posts remote commands.
    pub remote: Arc<dyn RemoteCaller>,
    /// Sends webhooks.
    pub webhooks: Arc<dyn WebhookSender>,
}

/// A slave: one for each process, shared by its worker threads.
#[derive(Clone)]
pub struct Slave(pub(crate) Arc<SlaveState>);

thread_local! {
    /// The shards of this thread, each with its slave: one, unless a test runs several nodes in a process. Held weakly, a
    /// slave's address is not given to another, which would be taken for it.
    static SHARDS: RefCell<Vec<(Weak<SlaveState>, Rc<ShardCell>)>> = const { RefCell::new(Vec::new()) };
}

impl Slave {
    /// A slave without worker threads; `registry` shows its counters.
    #[must_use]
    pub fn new(setup: SlaveSetup, registry: &mut prometheus_client::registry::Registry) -> Self {
        let SlaveSetup { node, settings, limits, tokens, cluster, secret, tenants, dialects, bus, remote, webhooks } =
            setup;
        let metrics = Metrics::new(registry);
        metrics.limit_bytes.set(limits.memory.0 as i64);
        let grace = settings.member_grace.0;
        let coordination = Coordination::new(node, Arc::default(), grace, bus.clone(), metrics.clone());
        let coordination = Arc::new(coordination);
        let others = bus.clone();
        let clocks = Box::new(move |node| others.clock_ahead_of(node));
        let interests = Arc::new(Interests::new(bus.clone(), coordination.clone()));
        let backlog = Arc::<Backlog>::default();
        Self(Arc::new(SlaveState {
            node,
            encodings: Encodings::new(&dialects),
            router: Router::new(Role::Slave, dialects),
            tokens: Tokens::new(tokens, node, cluster, &secret).with_clocks(clocks),
            registries: Arc::new(Registries::new(interests.clone(), backlog.clone())),
            interests,
            presence: Arc::new(Presence::new(coordination.clone(), bus.clone(), tenants.clone())),
            tenants,
            coordination,
            backlog,
            memory: Arc::new(Memory::new(if limits.memory.0 == 0 { usize::MAX } else { limits.memory.bytes() })),
            admission: Arc::new(Admission::new(node, settings.max_connections, bus.clone(), metrics.clone())),
            bus,
            metrics,
            settings,
            limits,
            remote: Arc::new(RemoteCalls::new(remote)),
            webhooks,
        }))
    }

    /// What handles what it receives from the bus.
    #[must_use]
    pub fn bus_handler(&self) -> Arc<dyn BusHandler> {
        Arc::new(BusDispatcher(self.0.clone()))
    }

    /// Make the calling thread one of its workers, with a registry of its own. Doing it twice is harmless.
    ///
    /// # Panics
    ///
    /// Outside of an actix arbiter, and beyond 64 threads.
    pub fn start_worker(&self) {
        if self.cell().is_some() {
            return;
        }
        let state = &self.0;
        let worker = state.registries.add(|worker| {
            let shard = Shard::new(
                worker,
                CHUNK,
                state.limits.grants.bytes(),
                Rc::new(state.encodings.clone()),
                state.interests.clone(),
                state.presence.clone(),
                state.metrics.clone(),
            );
            let cell = ShardCell::new(shard, Share::new(state.memory.clone(), state.limits.queue.bytes()));
            let of_the_gone: Vec<_> = SHARDS.with_borrow_mut(|cells| {
                cells.push((Arc::downgrade(state), cell.clone()));
                cells.extract_if(.., |(slave, _)| slave.strong_count() == 0).collect()
            });
            drop(of_the_gone);
            Registry::new(cell, KeepAliveConfig::new(&state.settings, &state.limits), state.metrics.clone()).start()
        });
        if worker == 0 {
            lifecycle::start(state);
        }
    }

    fn cell(&self) -> Option<Rc<ShardCell>> {
        SHARDS.with_borrow(|cells| {
            let mine = cells.iter().find(|(slave, _)| slave.as_ptr() == Arc::as_ptr(&self.0));
            mine.map(|(_, cell)| cell.clone())
        })
    }

    /// Is there a route for sockets at this path?
    #[must_use]
    pub fn opens_socket(&self, head: Head<'_>) -> bool {
        self.0.router.find_own(Route::SOCKET, head.path, &self.0.tenants.load()).is_ok()
    }

    /// Judge a request for a socket; `peer` is for the log.
    ///
    /// # Errors
    ///
    /// The client may not come in.
    pub async fn handshake(&self, head: Head<'_>, peer: Option<SocketAddr>) -> Result<Accepted, Rejected> {
        handshake::judge(&self.0, head, peer).await
    }

    /// Take over the connection of a client that was accepted: on this thread it becomes a session.
    pub fn open(&self, accepted: Accepted, opened: Opened) {
        match self.cell() {
            Some(cell) => handshake::open(&self.0, &cell, accepted, opened),
            None => error!("a socket came to a thread that is no worker of this slave"),
        }
    }

    /// Read what happens on the channels of apps, as far as `filter` lets it through: what this slave decides for the cluster, and
    /// what its own clients publish. To be called once.
    #[must_use]
    pub fn read_facts(&self, filter: Arc<dyn FactFilter>) -> FactReader {
        self.0.coordination.read_for_webhooks(filter)
    }

    /// How many sockets are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.0.admission.open()
    }

    /// Take no more sockets, and hand over what this slave coordinates for the cluster. To be called before it says goodbye on
    /// the bus. `outlived`: the socket that clients connect to stays open for a successor.
    pub fn prepare_to_go(&self, outlived: bool) {
        self.0.admission.set_outlived(outlived);
        self.0.admission.drain();
        let slaves = self.0.bus.state().borrow().slaves.clone();
        self.0.coordination.hand_over(&slaves);
    }

    /// Take no more sockets and close those that are open, telling each to come back. Back when all are gone, or when the
    /// time for it is over.
    pub async fn drain(&self) {
        let SlaveState { admission, registries, settings, .. } = &*self.0;
        admission.drain();
        registries.close_sockets(admission.farewell(), None);
        if patience::within(settings.drain.0, admission.all_closed()).await.is_none() {
            let left = admission.open();
            warn!(left; "{left} sockets had not gone when the time to drain was over");
        }
    }
}
