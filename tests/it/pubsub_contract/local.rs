//! The Unix socket as a carrier, and what only it does.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use wellhead::bus::{
    local::{ClientWatcher, Hello, LocalLimits, SocketError, UnixBroker, UnixClient},
    metrics::PubSubMetrics,
    pubsub::{
        PubSub,
        Subject::{Everyone, Slot},
    },
};
use wellhead_proto::ids::NodeId;

use super::{
    PubSubCarrier,
    node::{PubSubNode, RecordingHandler},
};
use crate::support::{nats::TestFolder, until, within};

const LIMITS: LocalLimits = LocalLimits { message: 2 << 20, queue: 16 << 20 };

/// Links of one machine; the exchange is there for them only.
pub struct ClientList {
    pub folder: TestFolder,
    pub exchange: Option<Arc<UnixBroker>>,
    pub porter: Arc<SeenClients>,
    nodes: u32,
}

/// Writes down who comes and goes.
#[derive(Default)]
pub struct SeenClients(Mutex<Vec<String>>);

impl ClientWatcher for SeenClients {
    fn came(&self, node: NodeId, beat: Bytes) {
        self.0.lock().unwrap().push(format!("{node} came: {}", String::from_utf8_lossy(&beat)));
    }

    fn lost(&self, node: NodeId) {
        self.0.lock().unwrap().push(format!("{node} is lost"));
    }
}

impl SeenClients {
    pub async fn says(&self, wanted: &[&str]) {
        let wanted: Vec<String> = wanted.iter().map(|&line| line.to_owned()).collect();
        until("the porter's book", wanted, || async { self.0.lock().unwrap().clone() }).await;
    }
}

impl ClientList {
    pub fn path(&self) -> PathBuf {
        self.folder.0.join("run/bus.sock")
    }

    /// A master that welcomes with these words, and itself as a node.
    pub fn exchange(&self, welcome: &'static str) -> Result<(Arc<UnixBroker>, PubSubNode), SocketError> {
        let (welcome, handler) = (Bytes::from_static(welcome.as_bytes()), RecordingHandler::new());
        let mut registry = Registry::default();
        let metrics = PubSubMetrics::new(&mut registry);
        let exchange = UnixBroker::bind(&self.path(), welcome, LIMITS, handler.clone(), self.porter.clone(), metrics)?;
        Ok((exchange.clone(), PubSubNode { pubsub: exchange, handler, registry }))
    }

    pub fn link(&self, node: u32) -> (PubSubNode, watch::Receiver<Option<Bytes>>) {
        let hello = Hello { node: NodeId::from_random(node), heartbeat: format!("beat of {node}").into() };
        let handler = RecordingHandler::new();
        let mut registry = Registry::default();
        let metrics = PubSubMetrics::new(&mut registry);
        let client = UnixClient::connect(self.path(), hello, LIMITS, handler.clone(), metrics).expect("a good path");
        (PubSubNode { pubsub: client.pubsub, handler, registry }, client.welcome)
    }
}

impl PubSubCarrier for ClientList {
    const FLOOD: usize = 4 * LIMITS.queue;
    const CUTS_OFF: bool = true;

    fn prepared() -> Self {
        Self { folder: TestFolder::new(), exchange: None, porter: Arc::default(), nodes: 0 }
    }

    fn start(&mut self) {
        self.exchange = Some(self.exchange("welcome").expect("nobody else owns it").0);
    }

    fn stop(&mut self) {
        let exchange = self.exchange.take().expect("it runs");
        let close = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(exchange.close());
        };
        std::thread::spawn(close).join().expect("it closes");
    }

    fn node(&mut self) -> PubSubNode {
        self.nodes += 1;
        self.link(self.nodes).0
    }
}

/// The same, but the first node is the exchange itself.
pub struct BrokerFirst {
    links: ClientList,
    first: Option<PubSubNode>,
}

impl PubSubCarrier for BrokerFirst {
    const FLOOD: usize = ClientList::FLOOD;
    const CUTS_OFF: bool = true;

    fn prepared() -> Self {
        Self { links: ClientList::prepared(), first: None }
    }

    fn start(&mut self) {
        let (exchange, node) = self.links.exchange("welcome").expect("nobody else owns it");
        self.links.exchange = Some(exchange);
        self.first = Some(node);
    }

    fn stop(&mut self) {
        self.first = None;
        self.links.stop();
    }

    fn node(&mut self) -> PubSubNode {
        self.first.take().unwrap_or_else(|| self.links.node())
    }
}

#[tokio::test]
async fn a_second_master_is_told_about_nats() {
    let links = ClientList::started();
    let error = links.exchange("second").err().expect("it is owned").to_string();
    assert!(error.contains("another master") && error.contains("NATS"), "{error}");
}

#[tokio::test]
async fn every_master_welcomes_with_its_own_words() {
    let mut links = ClientList::prepared();
    let (ann, mut welcome) = links.link(1);
    assert_eq!(*welcome.borrow(), None);
    for words in ["first", "second"] {
        links.exchange = Some(links.exchange(words).unwrap().0);
        let heard = |welcome: &Option<Bytes>| welcome.as_deref() == Some(words.as_bytes());
        within("a welcome", welcome.wait_for(heard)).await.unwrap();
        ann.is(true).await;
        links.stop();
        ann.is(false).await;
    }
}

#[tokio::test]
async fn the_porter_knows_who_came_and_who_went_without_a_word() {
    let links = ClientList::started();
    let ann = links.link(1).0.up().await;
    links.porter.says(&["1 came: beat of 1"]).await;
    let bob = links.link(2).0.up().await;
    links.porter.says(&["1 came: beat of 1", "2 came: beat of 2"]).await;
    ann.pubsub.close().await;
    let raw = super::hostile::Raw::said_hello(&links, 3).await;
    links.porter.says(&["1 came: beat of 1", "2 came: beat of 2", "3 came: "]).await;
    drop(raw);
    links.porter.says(&["1 came: beat of 1", "2 came: beat of 2", "3 came: ", "3 is lost"]).await;
    bob.pubsub.confirm().await.unwrap();
}

#[tokio::test]
async fn a_node_that_came_back_before_its_end_was_seen_is_not_lost() {
    let links = ClientList::started();
    let old = super::hostile::Raw::said_hello(&links, 3).await;
    let new = super::hostile::Raw::said_hello(&links, 3).await;
    drop(old);
    // the exchange reads in one thread: once it answers, it has seen the end of the older
    let mut new = new;
    new.pings().await;
    links.porter.says(&["3 came: ", "3 came: "]).await;
    drop(new);
    links.porter.says(&["3 came: ", "3 came: ", "3 is lost"]).await;
}

#[tokio::test]
async fn a_master_without_room_loses_but_is_told() {
    let mut carrier = BrokerFirst::started();
    let master = carrier.node().listens(&[Slot(1), Everyone]).await;
    let ann = carrier.node().up().await;
    master.handler.set_room(false);
    let messages = 2 * LIMITS.queue / 1_000_000;
    for _ in 0..messages {
        ann.pubsub.send(Slot(1), vec![0; 1_000_000].into()).await.unwrap();
    }
    ann.pubsub.confirm().await.unwrap();
    master.handler.set_room(true);
    master.has_gaps(1).await;
    assert_eq!(master.metric("bus_gaps_total"), 1.0);
    ann.send(Everyone, "again").await;
    within("the master hears again", async { while master.handler.next().await != (Everyone, "again".into()) {} })
        .await;
    assert_eq!(master.handler.gaps(), 1);
}
