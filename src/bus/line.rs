//! A process's end of the bus, whichever bus it is; and how each of them is begun.

use std::{io, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use log::debug;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use wellhead_proto::{bus::Bus, ids::NodeId, roster::Beat};

use super::{
    cluster::{Cluster, ClusterBus, Common, Metrics},
    local::{Exchange, Hello, Hub, Link, LocalLimits, Porter, SocketError},
    metrics::WireMetrics,
    nats::{NatsSettings, NatsWire},
    wire::{Ear, Wire},
};

/// How long a node waits for everybody's hello. The socket's owner knows its links.
const HELLO: Duration = Duration::from_millis(1_500);

/// A process's end of the bus.
pub enum Line {
    /// Nobody else is there.
    Inside(Arc<Hub>),
    /// One node of several.
    Cluster(Arc<Cluster>),
}

impl Line {
    /// As the roles hold it.
    #[must_use]
    pub fn bus(&self) -> Arc<dyn Bus> {
        match self {
            Self::Inside(hub) => hub.clone(),
            Self::Cluster(cluster) => Arc::new(ClusterBus(cluster.clone())),
        }
    }

    /// Nobody is to count on this node from now on. In a cluster it still hears, until [`Line::stop`].
    pub async fn goodbye(&self) {
        match self {
            Self::Inside(hub) => hub.stop(),
            Self::Cluster(cluster) => cluster.goodbye().await,
        }
    }

    /// Hang up.
    pub async fn stop(&self) {
        match self {
            Self::Inside(hub) => hub.stop(),
            Self::Cluster(cluster) => cluster.stop().await,
        }
    }

    /// Resolves when this node is to take another number: somebody else has it.
    pub async fn clashed(&self) {
        match self {
            Self::Inside(_) => std::future::pending().await,
            Self::Cluster(cluster) => cluster.clashed().await,
        }
    }
}

/// A node that is to be one of several: it has no wire yet, and what it hears is attached before it gets one.
pub struct Joining {
    cluster: Arc<Cluster>,
    node: NodeId,
    metrics: WireMetrics,
}

impl Joining {
    /// The node that beats as `me`; `registry` shows what it counts.
    pub fn new(me: Beat, registry: &mut Registry) -> Self {
        let metrics = WireMetrics::new(registry);
        let cluster = Cluster::new(me, Metrics::new(registry, metrics.gaps.clone()));
        Self { cluster, node: me.node, metrics }
    }

    /// Its end of the bus.
    #[must_use]
    pub fn line(&self) -> Line {
        Line::Cluster(self.cluster.clone())
    }

    /// What it must have in common with the others; to be told before it speaks.
    pub fn share(&self, common: Common) {
        self.cluster.share(common);
    }

    /// Speak over NATS, with the nodes of the cluster called `name`.
    ///
    /// # Errors
    ///
    /// The system gives us no thread.
    pub fn over_nats(&self, settings: NatsSettings, name: &str) -> io::Result<()> {
        let wire = NatsWire::connect(settings, name, self.cluster.ear(), self.metrics.clone())?;
        self.cluster.start(wire, HELLO);
        Ok(())
    }

    /// Own the socket of this machine, and give `welcome` to everybody who comes.
    ///
    /// # Errors
    ///
    /// Another master owns it, or the system does not let us.
    pub fn as_owner(&self, socket: &Path, welcome: Bytes, limits: LocalLimits) -> Result<(), SocketError> {
        let porter = Arc::new(Doorman(Arc::downgrade(&self.cluster)));
        let wire = Exchange::bind(socket, welcome, limits, self.cluster.ear(), porter, self.metrics.clone())?;
        self.cluster.start(wire, Duration::ZERO);
        Ok(())
    }

    /// Look for the owner of the socket; what it gives us comes through the receiver, and again whenever another owner
    /// is there. Nothing is heard before [`Joining::as_link`].
    ///
    /// # Errors
    ///
    /// `socket` cannot be one, or the system gives us no thread.
    pub fn find_owner(&self, socket: &Path, limits: LocalLimits) -> Result<Found, SocketError> {
        let ear: Arc<dyn Ear> = self.cluster.ear();
        // the owner puts us on its roster when we say that we are here, which we do once we can answer
        let hello = Hello { node: self.node, beat: Bytes::new() };
        let (link, welcome) = Link::connect(socket.to_owned(), hello, limits, ear, self.metrics.clone())?;
        Ok(Found { link, welcome })
    }

    /// Speak over a link.
    pub fn as_link(&self, link: Arc<Link>) {
        self.cluster.start(link, HELLO);
    }
}

/// A link, before it is used.
pub struct Found {
    /// The link.
    pub link: Arc<Link>,
    /// What the owner gives to everybody who comes.
    pub welcome: watch::Receiver<Option<Bytes>>,
}

impl Found {
    /// End the link unused: what the owner gave does not fit this process.
    pub async fn close(&self) {
        self.link.close().await;
    }
}

/// Tells the roster who is gone.
struct Doorman(std::sync::Weak<Cluster>);

impl Porter for Doorman {
    fn came(&self, node: NodeId, _: Bytes) {
        debug!(node_id:% = node; "node {node} is linked");
    }

    fn lost(&self, node: NodeId) {
        if let Some(cluster) = self.0.upgrade() {
            cluster.lost(node);
        }
    }
}
