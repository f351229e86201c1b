//! Nodes of a cluster in this process: real slaves with real sockets, real ends of the bus, on a transport in memory.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use actix_rt::task::JoinHandle;
use jsonwebtoken::{EncodingKey, Header};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use wellhead::{
    bus::cluster::{Cluster, ClusterBus, Metrics},
    http::{
        head::{HeadScanner, RequestHead},
        reply::{After, encode, switching_protocols},
    },
};
use wellhead_proto::{
    bus::{Bus, BusState},
    dialect,
    ids::{NodeId, SocketIdSeal},
    jwt::{Key, Keyring},
    membership::Heartbeat,
    origin::Origins,
    tenants::{TenantDirectory, Tenants},
};
use wellhead_slave::{Opened, Rejected, Slave, SlaveSetup, Transport, settings};

use crate::support::{
    keys::claims,
    memory::{MemoryNet, MemoryPubSub},
    within,
};

const SECRET: &[u8] = b"the secret of a cluster that lives for a second";

/// A token that opens a socket of `user` anywhere in `app`.
pub fn token(app: &str, user: &str) -> String {
    let key = EncodingKey::from_secret(SECRET);
    jsonwebtoken::encode(&Header::default(), &claims(app, user, &["*"]), &key).expect("claims are JSON")
}

/// A node's end of the bus.
pub struct NodeEnd {
    pub id: NodeId,
    pub bus: Arc<ClusterBus>,
    pub cluster: Arc<Cluster>,
    pub pubsub: Arc<MemoryPubSub>,
}

impl NodeEnd {
    /// A node that is not begun yet: see [`NodeEnd::begin`].
    fn new(net: &MemoryNet, number: u32, slave: bool, most: usize) -> Self {
        let id = NodeId::from_random(number);
        let beat = Heartbeat::new(id, slave, u64::from(number));
        let cluster = Cluster::new(beat, Metrics::default(), &actix_rt::Arbiter::current());
        let pubsub = net.pubsub(cluster.handler(), most);
        Self { id, bus: Arc::new(ClusterBus(cluster.clone())), cluster, pubsub }
    }

    fn begin(&self) {
        self.cluster.start(self.pubsub.clone(), Duration::ZERO);
    }

    /// A master.
    pub fn master(net: &MemoryNet, number: u32, most: usize) -> Self {
        let end = Self::new(net, number, false, most);
        end.begin();
        end
    }

    /// Wait until it is up and knows slaves as `right` wants.
    pub async fn knows(&self, what: &str, right: impl Fn(&BusState) -> bool) {
        let mut state = self.bus.state();
        let node = self.id;
        let known = state.wait_for(|state| state.up && state.roster_known && right(state));
        drop(within(&format!("node {node} knows {what}"), known).await.expect("the node lives"));
    }
}

/// A slave.
pub struct SlaveNode {
    pub end: NodeEnd,
    pub address: SocketAddr,
    slave: Slave,
    accepting: JoinHandle<()>,
}

impl SlaveNode {
    pub async fn start(net: &MemoryNet, number: u32, most: usize) -> Self {
        let end = NodeEnd::new(net, number, true, most);
        let key = Key::from_secret(SECRET).expect("long enough");
        let seal = SocketIdSeal::new(SECRET);
        let tenants = Tenants::new(Keyring::new(vec![key], false), [], true, Origins::any());
        let setup = SlaveSetup {
            node: end.id,
            settings: settings::Settings::default(),
            limits: settings::Limits::default(),
            tokens: settings::TokenSettings::default(),
            cluster: "model".to_owned(),
            secret: SECRET.to_vec(),
            tenants: Arc::new(TenantDirectory::new(tenants)),
            dialects: dialect::all(&dialect::Settings::default(), &seal),
            bus: end.bus.clone(),
        };
        let slave = Slave::new(setup, &mut prometheus_client::registry::Registry::default());
        end.bus.attach(slave.bus_handler());
        slave.start_worker();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it listens");
        let accepting = actix_rt::spawn(accept(slave.clone(), listener));
        end.begin();
        Self { end, address, slave, accepting }
    }

    /// End in order: no more clients, goodbye, every socket told to come back.
    pub async fn stop(&self) {
        self.accepting.abort();
        self.end.cluster.stop().await;
        within("a slave drains", self.slave.drain()).await;
    }

    /// End at once; nobody is told.
    pub fn kill(&self, net: &MemoryNet) {
        self.accepting.abort();
        net.cut(&self.end.pubsub);
    }
}

async fn accept(slave: Slave, listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        actix_rt::spawn(serve(slave.clone(), stream));
    }
}

/// Read the head of a handshake, and open the socket that it asks for; a client of these tests that is refused needs no
/// reason.
async fn serve(slave: Slave, mut stream: TcpStream) {
    let mut read = bytes::BytesMut::new();
    let mut scanner = HeadScanner::default();
    let length = loop {
        if let Some(length) = scanner.find_end(&read).expect("a small head") {
            break length;
        }
        if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
            return;
        }
    };
    let head = read.split_to(length);
    let request = RequestHead::parse(&head).expect("a head of HTTP");
    match slave.handshake(request.head(), None).await {
        Ok(accepted) => {
            let answer = switching_protocols(accepted.accept(), accepted.subprotocol());
            slave.open(accepted, Opened { transport: Transport::plain(stream), answer, early: read });
        }
        Err(Rejected::Reply(reply)) => {
            let mut out = Vec::new();
            encode(&reply, false, After::Closes, &mut out);
            let _ = stream.write_all(&out).await;
        }
        Err(Rejected::RejectedSocket { accept, frames }) => {
            let _ = stream.write_all(&[switching_protocols(&accept, None), frames].concat()).await;
        }
    }
}
