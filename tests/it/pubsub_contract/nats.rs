//! NATS as a carrier, and what only NATS does.

use std::time::{Duration, Instant};

use prometheus_client::registry::Registry;
use wellhead::bus::{
    metrics::PubSubMetrics,
    nats::{self, NatsSettings},
    pubsub::Subject::{EverySlot, Everyone, Slot},
};
use wellhead_proto::bus::BusError;

use super::{
    PubSubCarrier,
    node::{PubSubNode, RecordingHandler},
};
use crate::support::{nats::NatsServer, until};

pub struct NatsPubSubCarrier(NatsServer);

impl PubSubCarrier for NatsPubSubCarrier {
    const FLOOD: usize = 80 << 20;
    const CUTS_OFF: bool = false;

    fn prepared() -> Self {
        Self(NatsServer::prepared(""))
    }

    fn start(&mut self) {
        self.0.start();
    }

    fn stop(&mut self) {
        self.0.kill();
    }

    fn node(&mut self) -> PubSubNode {
        node(self.0.settings())
    }
}

pub fn node(settings: NatsSettings) -> PubSubNode {
    node_of("wellhead", settings)
}

fn node_of(cluster: &str, settings: NatsSettings) -> PubSubNode {
    let handler = RecordingHandler::new();
    let mut registry = Registry::default();
    let metrics = PubSubMetrics::new(&mut registry);
    let pubsub = nats::connect(settings, cluster, handler.clone(), metrics).expect("a thread");
    PubSubNode { pubsub, handler, registry }
}

#[tokio::test]
async fn clusters_of_different_names_do_not_hear_each_other() {
    let server = NatsServer::started("");
    // names that would meet if they were put into subjects as they are
    let names = ["a", "b", "a.slot", "a.slot.1", "*", ">", "", "A", "ä b"];
    let mut nodes = Vec::new();
    for name in names {
        let node = node_of(name, server.settings()).up().await;
        nodes.push((name, node.listens(&[EverySlot, Slot(1), Everyone]).await));
    }
    for (name, node) in &nodes {
        node.send(Slot(2), format!("slot of {name}")).await;
        node.send(Everyone, format!("all of {name}")).await;
        node.pubsub.confirm().await.unwrap();
    }
    for (name, node) in &nodes {
        node.send(Slot(3), "end").await;
        node.send(Everyone, "end").await;
        let mut heard = Vec::new();
        for _ in 0..4 {
            let (subject, message) = node.handler.next().await;
            heard.push((subject, String::from_utf8(message.to_vec()).unwrap()));
        }
        heard.sort();
        let mut wanted = [
            (EverySlot, format!("slot of {name}")),
            (EverySlot, "end".to_owned()),
            (Everyone, format!("all of {name}")),
            (Everyone, "end".to_owned()),
        ];
        wanted.sort();
        assert_eq!(heard, wanted, "{name}");
    }
}

/// A node whose wire gets nothing done.
struct StandsStill {
    thread: std::thread::JoinHandle<()>,
    end: std::sync::mpsc::Sender<()>,
}

impl StandsStill {
    fn from_now(node: &PubSubNode) -> Self {
        let handler = node.handler.clone();
        let (end, ended) = std::sync::mpsc::channel();
        let (begun, begins) = std::sync::mpsc::channel();
        // on a thread of its own: the guard must not be held over an await
        let thread = std::thread::spawn(move || {
            let _busy = handler.busy();
            begun.send(()).expect("the test waits");
            ended.recv().expect("the test goes on");
        });
        begins.recv().expect("it begins");
        Self { thread, end }
    }

    fn ends(self) {
        self.end.send(()).expect("it waits");
        self.thread.join().expect("it ends");
    }
}

#[tokio::test]
async fn who_is_cut_off_by_the_server_is_told_and_comes_back() {
    let server = NatsServer::started("write_deadline: \"500ms\"");
    let ann = node(server.settings()).up().await;
    let bob = node(server.settings()).up().await.listens(&[Slot(1)]).await;
    let stands_still = StandsStill::from_now(&bob);
    until("the server has enough", true, || async {
        ann.pubsub.send(Slot(1), vec![0; 1 << 19].into()).await.unwrap();
        server.log().contains("Slow Consumer")
    })
    .await;
    // as long as it takes to be noticed by him
    let since = Instant::now();
    until("a while", true, || async { since.elapsed() > Duration::from_millis(1_500) }).await;
    stands_still.ends();
    until("bob is told", 1, || async { bob.handler.interruptions() }).await;
    until("bob is back", 1.0, || async { bob.metric("bus_reconnects_total") }).await;
    bob.is(true).await;
    ann.send(Slot(1), "again").await;
    while bob.handler.next().await.1 != "again" {}
    assert_eq!((bob.handler.interruptions(), ann.handler.interruptions()), (1, 0));
}

#[tokio::test]
async fn what_piles_up_while_the_thread_is_busy_is_heard() {
    const MESSAGES: u32 = 150_000;
    let server = NatsServer::started("");
    let ann = node(server.settings()).up().await;
    let bob = node(server.settings()).up().await.listens(&[EverySlot]).await;
    let stands_still = StandsStill::from_now(&bob);
    for number in 0..MESSAGES {
        ann.pubsub.send(Slot(number as u16), number.to_be_bytes().repeat(50).into()).await.unwrap();
    }
    ann.pubsub.confirm().await.unwrap();
    stands_still.ends();
    for number in 0..MESSAGES {
        let (_, message) = bob.handler.next().await;
        assert_eq!(message[..4], number.to_be_bytes());
    }
    assert_eq!(bob.handler.gaps(), 0);
}

#[tokio::test]
async fn a_server_that_is_silent_is_noticed_within_seconds() {
    let server = NatsServer::started("");
    let ann = node(server.settings()).up().await.listens(&[Slot(1)]).await;
    server.signal("STOP");
    let since = Instant::now();
    ann.is(false).await;
    // 3 s, and some for two busy cores
    assert!(since.elapsed() < Duration::from_secs(6), "{:?}", since.elapsed());
    ann.takes_nothing().await;
    server.signal("CONT");
    ann.is(true).await;
    ann.send(Slot(1), "back").await;
    ann.hears(Slot(1), "back").await;
}

#[tokio::test]
async fn who_waits_for_a_silent_server_is_told_in_time() {
    let server = NatsServer::started("");
    let ann = node(server.settings()).up().await;
    server.signal("STOP");
    let since = Instant::now();
    assert_eq!(ann.pubsub.confirm().await, Err(BusError::Down));
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    // a full queue lets nobody wait for ever, either
    let message = vec![0; 500_000];
    while ann.pubsub.send(Slot(1), message.clone().into()).await.is_ok() {}
    server.signal("CONT");
}

#[tokio::test]
async fn the_first_server_that_answers_is_taken_and_the_next_when_it_dies() {
    let mut one = NatsServer::started("");
    let mut other = NatsServer::prepared("");
    let urls = [&one, &other].map(|server| format!("nats://{}", server.address)).to_vec();
    let ann = node(NatsSettings { urls, ..NatsSettings::default() }).up().await.listens(&[Slot(1)]).await;
    other.start();
    one.kill();
    ann.is(false).await;
    ann.is(true).await;
    ann.send(Slot(1), "elsewhere").await;
    ann.hears(Slot(1), "elsewhere").await;
}

#[tokio::test]
async fn the_largest_message_is_the_servers() {
    let server = NatsServer::started("max_payload: 65536");
    let ann = node(server.settings()).up().await.listens(&[Slot(1)]).await;
    assert_eq!(ann.pubsub.max_message(), Some(65_536));
    assert_eq!(ann.pubsub.send(Slot(1), vec![0; 65_537].into()).await, Err(BusError::TooLarge { limit: 65_536 }));
    ann.send(Slot(1), "still here").await;
    ann.hears(Slot(1), "still here").await;
}

#[tokio::test]
async fn thousands_of_subjects_are_listened_to_again_after_a_restart() {
    let mut server = NatsServer::started("");
    let ann = node(server.settings()).up().await;
    for slot in 0..16_384 {
        ann.pubsub.listen(Slot(slot));
    }
    ann.pubsub.confirm().await.unwrap();
    for round in 0..2 {
        for slot in (0..16_384).step_by(1_023) {
            ann.send(Slot(slot), round.to_string()).await;
            ann.hears(Slot(slot), &round.to_string()).await;
        }
        server.kill();
        ann.is(false).await;
        server.start();
        ann.is(true).await;
    }
}
