//! What a bus can stand on: NATS, the Unix socket, a transport in memory.

use std::{path::PathBuf, sync::Arc, time::Duration};

use actix_rt::{Arbiter, ArbiterHandle};
use bytes::Bytes;
use prometheus_client::registry::Registry;
use tokio::{runtime::Handle, sync::oneshot};
use wellhead::bus::{
    BusHandle, ClusterBuilder,
    cluster::{Cluster, ClusterBus, Metrics},
    local::LocalLimits,
};
use wellhead_proto::{ids::NodeId, membership::Heartbeat};

use super::node::BusNode;
use crate::support::{
    memory::MemoryNet,
    nats::{NatsServer, TestFolder},
    random::Random,
};

/// Something that a bus of several nodes stands on.
pub trait BusCarrier: Sized {
    /// One that runs.
    fn started() -> Self;

    /// One more node.
    fn node(&mut self, slave: bool) -> BusNode;
}

/// One whose middle can be taken away, and brought back.
pub trait Breakable: BusCarrier {
    fn stop(&mut self);
    fn start(&mut self);
}

fn beat(number: u32, slave: bool) -> Heartbeat {
    Heartbeat::new(NodeId::from_random(number), slave, u64::from(number))
}

/// A thread of its own for a node, as a process has, with its arbiter; it ends when the sender is dropped.
fn runtime() -> (Handle, ArbiterHandle, oneshot::Sender<()>) {
    let (stop, stopped) = oneshot::channel();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        actix_rt::System::new().block_on(async {
            tell.send((Handle::current(), Arbiter::current())).expect("it is waited for");
            // an error says that the node is gone
            let _ = stopped.await;
        });
    });
    let (handle, arbiter) = told.recv().expect("the thread runs");
    (handle, arbiter, stop)
}

fn joining(number: u32, slave: bool) -> (ClusterBuilder, BusNode) {
    let (handle, arbiter, stop) = runtime();
    let _entered = handle.enter();
    let beat = beat(number, slave);
    let mut registry = Registry::default();
    let joining = ClusterBuilder::new(beat, &arbiter, &mut registry);
    let BusHandle::Cluster(cluster) = joining.bus() else { unreachable!("it is one of several") };
    let node = BusNode::new(beat.node, Arc::new(ClusterBus(cluster.clone())), Some(cluster));
    let node = BusNode { registry: Some(registry), _runtime: Some(stop), ..node };
    if slave {
        node.bus.attach(node.book.clone());
    }
    (joining, node)
}

/// A real server.
pub struct NatsCarrier {
    server: NatsServer,
    nodes: u32,
}

impl BusCarrier for NatsCarrier {
    fn started() -> Self {
        Self { server: NatsServer::started(""), nodes: 0 }
    }

    fn node(&mut self, slave: bool) -> BusNode {
        self.nodes += 1;
        let (joining, node) = joining(self.nodes, slave);
        joining.over_nats(self.server.settings(), "contract").expect("a thread");
        node
    }
}

impl Breakable for NatsCarrier {
    fn stop(&mut self) {
        self.server.kill();
    }

    fn start(&mut self) {
        self.server.start();
    }
}

/// Processes of one machine: the first node owns the socket, and is a master.
pub struct Local {
    folder: TestFolder,
    owned: bool,
    nodes: u32,
}

impl Local {
    fn path(&self) -> PathBuf {
        self.folder.0.join("bus.sock")
    }
}

impl BusCarrier for Local {
    fn started() -> Self {
        Self { folder: TestFolder::new(), owned: false, nodes: 0 }
    }

    fn node(&mut self, slave: bool) -> BusNode {
        self.nodes += 1;
        let (joining, node) = joining(self.nodes, slave);
        let limits = LocalLimits::default();
        if std::mem::replace(&mut self.owned, true) {
            let found = joining.find_owner(&self.path(), limits).expect("a good path");
            joining.as_guest(found.pubsub);
        } else {
            joining.as_owner(&self.path(), Bytes::new(), limits).expect("nobody else owns it");
        }
        node
    }
}

/// A transport in memory, on which everything takes its time, and large messages travel in many pieces.
pub struct MemoryCarrier {
    net: MemoryNet,
    nodes: u32,
}

impl BusCarrier for MemoryCarrier {
    fn started() -> Self {
        Self { net: MemoryNet::new(Random::new(7)), nodes: 0 }
    }

    fn node(&mut self, slave: bool) -> BusNode {
        self.nodes += 1;
        let (handle, arbiter, stop) = runtime();
        let _entered = handle.enter();
        let beat = beat(self.nodes, slave);
        let cluster = Cluster::new(beat, Metrics::default(), &arbiter);
        let pubsub = self.net.pubsub(cluster.handler(), 128 << 10);
        let node = BusNode::new(beat.node, Arc::new(ClusterBus(cluster.clone())), Some(cluster.clone()));
        let node = BusNode { _runtime: Some(stop), ..node };
        if slave {
            node.bus.attach(node.book.clone());
        }
        cluster.start(pubsub, Duration::ZERO);
        node
    }
}
