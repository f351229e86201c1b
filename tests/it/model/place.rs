//! Nodes of a cluster in this process: real slaves with real sockets, real ends of the bus, on a wire in memory.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use actix_rt::task::JoinHandle;
use jsonwebtoken::{EncodingKey, Header};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
};
use wellhead::bus::cluster::{Cluster, ClusterBus, Metrics};
use wellhead_proto::{
    app::Apps,
    bus::{Bus, BusState},
    dialect,
    ids::{NodeId, SocketIdSeal},
    jwt::{Key, Keyring},
    origin::Origins,
    roster::Beat,
};
use wellhead_slave::{Setup, Slave, settings};

use crate::support::{
    keys::claims,
    memory::{MemoryWire, Net},
    within,
};

const SECRET: &[u8] = b"the secret of a cluster that lives for a second";

/// A token that opens a socket of `user` anywhere in `app`.
pub fn token(app: &str, user: &str) -> String {
    let key = EncodingKey::from_secret(SECRET);
    jsonwebtoken::encode(&Header::default(), &claims(app, user, &["*"]), &key).expect("claims are JSON")
}

/// A node's end of the bus.
pub struct End {
    pub id: NodeId,
    pub bus: Arc<ClusterBus>,
    pub cluster: Arc<Cluster>,
    pub wire: Arc<MemoryWire>,
}

impl End {
    /// A node that is not begun yet: see [`End::begin`].
    fn new(net: &Net, number: u32, slave: bool, most: usize) -> Self {
        let id = NodeId::from_random(number);
        let beat = Beat { node: id, slave, incarnation: u64::from(number) };
        let cluster = Cluster::new(beat, Metrics::default());
        let wire = net.wire(cluster.ear(), most);
        Self { id, bus: Arc::new(ClusterBus(cluster.clone())), cluster, wire }
    }

    fn begin(&self) {
        self.cluster.start(self.wire.clone(), Duration::ZERO);
    }

    /// A master.
    pub fn master(net: &Net, number: u32, most: usize) -> Self {
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
    pub end: End,
    pub address: SocketAddr,
    slave: Slave,
    accepting: JoinHandle<()>,
}

impl SlaveNode {
    pub async fn start(net: &Net, number: u32, most: usize) -> Self {
        let end = End::new(net, number, true, most);
        let key = Key::from_secret(SECRET).expect("long enough");
        let seal = SocketIdSeal::new(SECRET);
        let setup = Setup {
            node: end.id,
            settings: settings::Settings::default(),
            limits: settings::Limits::default(),
            tokens: settings::Tokens::default(),
            cluster: "model".to_owned(),
            secret: SECRET.to_vec(),
            apps: Arc::new(Apps::new(Keyring::new(vec![key], false), Default::default(), true, Origins::any())),
            dialects: dialect::all(&dialect::Settings::default(), &seal),
            bus: end.bus.clone(),
        };
        let slave = Slave::new(setup, &mut prometheus_client::registry::Registry::default());
        end.bus.attach(slave.inbox());
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
    pub fn kill(&self, net: &Net) {
        self.accepting.abort();
        net.cut(&self.end.wire);
    }
}

async fn accept(slave: Slave, listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        let slave = slave.clone();
        actix_rt::spawn(async move {
            if let Some((request, stream, early)) = knock(stream).await {
                slave.upgrade(request, stream, early).await;
            }
        });
    }
}

/// Read the head of a request, as clients of these tests send it.
async fn knock(mut stream: TcpStream) -> Option<(actix_http::Request, TcpStream, bytes::BytesMut)> {
    let mut read = bytes::BytesMut::new();
    let end = loop {
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(read.split_to(end).to_vec()).expect("a head is text");
    let mut lines = head.trim_end().split("\r\n");
    let mut request = actix_http::Request::new();
    let path = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a request line");
    request.head_mut().uri = path.parse().expect("a path");
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        let name: actix_http::header::HeaderName = name.parse().expect("a name");
        request.headers_mut().insert(name, value.parse().expect("a value"));
    }
    Some((request, stream, read))
}
