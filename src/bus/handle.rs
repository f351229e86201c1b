//! A process's end of the bus, whichever bus it is; and how each of them is begun.

use std::{io, path::Path, sync::Arc, time::Duration};

use actix_rt::ArbiterHandle;
use bytes::Bytes;
use log::debug;
use prometheus_client::registry::Registry;
use wellhead_proto::{bus::Bus, ids::NodeId, membership::Heartbeat, node_message::NodeMessage};

use super::{
    cluster::{Cluster, ClusterBus, Common, Metrics},
    local::{ClientWatcher, Hello, InProcessBus, LocalLimits, SocketError, UnixBroker, UnixClient},
    metrics::PubSubMetrics,
    nats::{self, NatsSettings},
    pubsub::{MessageHandler, PubSub},
};

/// How long a node waits for everybody's hello. The socket's owner knows its clients.
const HELLO: Duration = Duration::from_millis(1_500);

/// A process's end of the bus.
#[derive(Clone)]
pub enum BusHandle {
    /// Nobody else is there.
    Inside(Arc<InProcessBus>),
    /// One node of several.
    Cluster(Arc<Cluster>),
}

impl BusHandle {
    /// As the roles hold it.
    #[must_use]
    pub fn bus(&self) -> Arc<dyn Bus> {
        match self {
            Self::Inside(bus) => bus.clone(),
            Self::Cluster(cluster) => Arc::new(ClusterBus(cluster.clone())),
        }
    }

    /// Nobody is to count on this node from now on. In a cluster it still hears, until [`BusHandle::stop`].
    pub async fn goodbye(&self) {
        match self {
            Self::Inside(bus) => bus.stop(),
            Self::Cluster(cluster) => cluster.goodbye().await,
        }
    }

    /// Disconnect.
    pub async fn stop(&self) {
        match self {
            Self::Inside(bus) => bus.stop(),
            Self::Cluster(cluster) => cluster.stop().await,
        }
    }

    /// Resolves when this node is to take another number: somebody else has it.
    pub async fn conflict(&self) {
        match self {
            Self::Inside(_) => std::future::pending().await,
            Self::Cluster(cluster) => cluster.conflict().await,
        }
    }
}

/// Builds a node of a cluster. It has no transport yet: its handlers are attached before it gets one.
pub struct ClusterBuilder {
    cluster: Arc<Cluster>,
    node: NodeId,
    metrics: PubSubMetrics,
}

impl ClusterBuilder {
    /// The node whose heartbeat is `me`; `registry` shows its metrics.
    pub fn new(me: Heartbeat, arbiter: &ArbiterHandle, registry: &mut Registry) -> Self {
        let metrics = PubSubMetrics::new(registry);
        let cluster = Cluster::new(me, Metrics::new(registry, metrics.gaps.clone()), arbiter);
        Self { cluster, node: me.node, metrics }
    }

    /// Its end of the bus.
    #[must_use]
    pub fn bus(&self) -> BusHandle {
        BusHandle::Cluster(self.cluster.clone())
    }

    /// Sets what it must have in common with the others. To be called before it connects.
    pub fn share(&self, common: Common) {
        self.cluster.share(common);
    }

    /// Connect over NATS to the nodes of the cluster called `name`.
    ///
    /// # Errors
    ///
    /// The system gives us no thread.
    pub fn over_nats(&self, settings: NatsSettings, name: &str) -> io::Result<()> {
        let pubsub = nats::connect(settings, name, self.cluster.handler(), self.metrics.clone())?;
        self.cluster.start(pubsub, HELLO);
        Ok(())
    }

    /// Own the socket of this machine, and give `welcome` to everybody who comes.
    ///
    /// # Errors
    ///
    /// Another master owns it, or the system does not let us.
    pub fn as_owner(&self, socket: &Path, welcome: Bytes, limits: LocalLimits) -> Result<(), SocketError> {
        let watcher = Arc::new(LostClients(Arc::downgrade(&self.cluster)));
        let pubsub = UnixBroker::bind(socket, welcome, limits, self.cluster.handler(), watcher, self.metrics.clone())?;
        self.cluster.start(pubsub, Duration::ZERO);
        Ok(())
    }

    /// Look for the owner of the socket; what it gives us comes through the client, and again whenever another owner
    /// is there. Nothing is heard before [`ClusterBuilder::as_guest`].
    ///
    /// # Errors
    ///
    /// `socket` cannot be one, or the system gives us no thread.
    pub fn find_owner(&self, socket: &Path, limits: LocalLimits) -> Result<UnixClient, SocketError> {
        let handler: Arc<dyn MessageHandler> = self.cluster.handler();
        // the owner adds this node to its membership at its first heartbeat, which it sends once it can answer;
        // it says at once which formats it reads, so that it gets no message in another
        let hello = Hello { node: self.node, heartbeat: Bytes::from_static(&[NodeMessage::VERSION]) };
        UnixClient::connect(socket.to_owned(), hello, limits, handler, self.metrics.clone())
    }

    /// Use the socket of this machine, which another node owns.
    pub fn as_guest(&self, pubsub: Arc<dyn PubSub>) {
        self.cluster.start(pubsub, HELLO);
    }
}

/// Tells the membership who is gone.
struct LostClients(std::sync::Weak<Cluster>);

impl ClientWatcher for LostClients {
    fn came(&self, node: NodeId, reads: Bytes) {
        debug!(node_id:% = node; "node {node} is linked");
        if let Some(cluster) = self.0.upgrade() {
            cluster.linked(node, &reads);
        }
    }

    fn lost(&self, node: NodeId) {
        if let Some(cluster) = self.0.upgrade() {
            cluster.lost(node);
        }
    }
}
