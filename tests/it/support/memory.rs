//! A transport in memory, with random delays: as NATS carries, but for the server. Each node has a queue to the middle and one
//! from there, both in order; everything else may happen at any time.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::yield_now,
    time::sleep,
};
use wellhead::bus::pubsub::{MessageHandler, PubSub, Subject};
use wellhead_proto::bus::BusError;

use super::random::Random;

/// What all nodes are connected to.
#[derive(Clone)]
pub struct MemoryNet(Arc<Mutex<Middle>>);

struct Middle {
    ports: Vec<Port>,
    random: Random,
}

struct Port {
    listens: HashSet<Subject>,
    to_node: mpsc::UnboundedSender<Down>,
    up: watch::Sender<bool>,
}

/// From a node to the middle.
enum Up {
    Send(Subject, Bytes),
    Listen(Subject),
    Unlisten(Subject),
    Confirm(oneshot::Sender<()>),
}

/// From the middle to a node.
enum Down {
    Heard(Subject, Bytes),
    Confirmed(oneshot::Sender<()>),
}

/// A node's end.
pub struct MemoryPubSub {
    net: MemoryNet,
    port: usize,
    to_middle: mpsc::UnboundedSender<Up>,
    most: usize,
}

impl MemoryNet {
    pub fn new(random: Random) -> Self {
        Self(Arc::new(Mutex::new(Middle { ports: Vec::new(), random })))
    }

    fn middle(&self) -> MutexGuard<'_, Middle> {
        self.0.lock().expect("nobody panics with it")
    }

    /// One more node, whose messages have at most `most` bytes.
    pub fn pubsub(&self, handler: Arc<dyn MessageHandler>, most: usize) -> Arc<MemoryPubSub> {
        let (to_middle, from_node) = mpsc::unbounded_channel();
        let (to_node, from_middle) = mpsc::unbounded_channel();
        let (port, there, back) = {
            let mut middle = self.middle();
            let up = watch::Sender::new(true);
            middle.ports.push(Port { listens: HashSet::new(), to_node, up });
            (middle.ports.len() - 1, middle.random.fork(), middle.random.fork())
        };
        tokio::spawn(self.clone().carry_up(port, from_node, there));
        tokio::spawn(self.clone().carry_down(port, handler, from_middle, back));
        Arc::new(MemoryPubSub { net: self.clone(), port, to_middle, most })
    }

    /// The node is gone without a word, with everything that it has not heard yet and that was not heard of it.
    pub fn cut(&self, pubsub: &MemoryPubSub) {
        self.middle().ports[pubsub.port].up.send_replace(false);
    }

    fn is_cut(&self, port: usize) -> bool {
        !*self.middle().ports[port].up.borrow()
    }

    async fn carry_up(self, port: usize, mut from_node: mpsc::UnboundedReceiver<Up>, mut random: Random) {
        while let Some(up) = from_node.recv().await {
            delay(&mut random).await;
            if self.is_cut(port) {
                return;
            }
            let mut middle = self.middle();
            match up {
                Up::Send(subject, message) => middle.route(subject, &message),
                Up::Listen(subject) => drop(middle.ports[port].listens.insert(subject)),
                Up::Unlisten(subject) => drop(middle.ports[port].listens.remove(&subject)),
                Up::Confirm(waiter) => drop(middle.ports[port].to_node.send(Down::Confirmed(waiter))),
            }
        }
    }

    async fn carry_down(
        self,
        port: usize,
        handler: Arc<dyn MessageHandler>,
        mut from_middle: mpsc::UnboundedReceiver<Down>,
        mut random: Random,
    ) {
        while let Some(down) = from_middle.recv().await {
            delay(&mut random).await;
            if self.is_cut(port) {
                return;
            }
            match down {
                Down::Heard(subject, message) => {
                    if !handler.has_room() {
                        handler.room().await;
                    }
                    if self.middle().ports[port].listens.contains(&subject) {
                        handler.hear(subject, message);
                    }
                }
                Down::Confirmed(waiter) => drop(waiter.send(())),
            }
        }
    }
}

impl Middle {
    fn route(&mut self, subject: Subject, message: &Bytes) {
        for port in &self.ports {
            for heard_as in subject.wildcard().into_iter().chain([subject]) {
                if port.listens.contains(&heard_as) {
                    // fails when the node is gone
                    let _ = port.to_node.send(Down::Heard(heard_as, message.clone()));
                }
            }
        }
    }
}

/// Mostly a turn or two of the other tasks, now and then some milliseconds.
async fn delay(random: &mut Random) {
    match random.below(8) {
        0 => sleep(Duration::from_millis(random.below(4) as u64)).await,
        turns @ 1..=3 => {
            for _ in 0..turns {
                yield_now().await;
            }
        }
        _ => {}
    }
}

#[async_trait]
impl PubSub for MemoryPubSub {
    fn session(&self) -> Option<u32> {
        self.state().borrow().then_some(0)
    }

    async fn send_in(&self, _: u32, subject: Subject, message: Bytes) -> Result<(), BusError> {
        if message.len() > self.most {
            return Err(BusError::TooLarge { limit: self.most });
        }
        self.to_middle.send(Up::Send(subject, message)).map_err(|_| BusError::Down)
    }

    fn listen(&self, subject: Subject) {
        let _ = self.to_middle.send(Up::Listen(subject));
    }

    fn unlisten(&self, subject: Subject) {
        let _ = self.to_middle.send(Up::Unlisten(subject));
    }

    async fn confirm(&self) -> Result<(), BusError> {
        let (waiter, confirmed) = oneshot::channel();
        self.to_middle.send(Up::Confirm(waiter)).map_err(|_| BusError::Down)?;
        confirmed.await.map_err(|_| BusError::Down)
    }

    fn max_message(&self) -> Option<usize> {
        Some(self.most)
    }

    fn state(&self) -> watch::Receiver<bool> {
        self.net.middle().ports[self.port].up.subscribe()
    }

    async fn close(&self) {
        let _ = self.confirm().await;
        self.net.cut(self);
    }
}
