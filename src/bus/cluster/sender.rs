//! The sending half of a node: every message gets its number here, in the order in which the bus gets it. Heartbeats,
//! reports and answers wait in one queue; pushes and queries are sent by whoever makes them.

use std::sync::{
    Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::mpsc;
use wellhead_proto::{
    bus::BusError,
    ids::NodeId,
    node_message::{Body, NodeMessage},
};

use super::{Cluster, continuity::SENDER, journal::Journal};
use crate::bus::pubsub::{PubSub, Subject};

/// The receiving half of a node's queue.
pub(super) type Queued = mpsc::UnboundedReceiver<(Subject, Body)>;

/// The sending half of a node.
pub(super) struct MessageSender {
    pubsub: OnceLock<Arc<dyn PubSub>>,
    /// The number of the next message. Those of all nodes differ: the node stands above the count.
    next: AtomicU64,
    /// Held while a message is handed to the transport: their numbers are the order in which it gets them.
    in_order: tokio::sync::Mutex<()>,
    journal: Mutex<Journal>,
    queue: mpsc::UnboundedSender<(Subject, Body)>,
}

impl MessageSender {
    /// Of the node `me`; and what [`send_queued`] is to send.
    pub(super) fn new(me: NodeId) -> (Self, Queued) {
        let (queue, queued) = mpsc::unbounded_channel();
        let sender = Self {
            pubsub: OnceLock::new(),
            next: AtomicU64::new(u64::from(u32::from(me)) << SENDER),
            in_order: tokio::sync::Mutex::default(),
            journal: Mutex::default(),
            queue,
        };
        (sender, queued)
    }

    /// Send over `pubsub` from now on.
    ///
    /// # Panics
    ///
    /// If there is one already.
    pub(super) fn begin(&self, pubsub: Arc<dyn PubSub>) {
        assert!(self.pubsub.set(pubsub).is_ok(), "a node begins once");
    }

    /// The transport, up or down; none before the node begins.
    pub(super) fn pubsub(&self) -> Option<&Arc<dyn PubSub>> {
        self.pubsub.get()
    }

    /// The number of the transport's connection, while it has one.
    pub(super) fn session(&self) -> Option<u32> {
        self.pubsub.get()?.session()
    }

    /// A number that no other message or question of any node has.
    pub(super) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Send `body` behind everything that is queued already. It is lost if the transport is down when its turn comes.
    pub(super) fn queue(&self, subject: Subject, body: Body) {
        // fails only when the process ends
        let _ = self.queue.send((subject, body));
    }

    /// What was pushed lately.
    pub(super) fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cluster {
    /// Send a message now.
    pub(super) async fn send(&self, pubsub: &Arc<dyn PubSub>, subject: Subject, body: Body) -> Result<(), BusError> {
        let session = pubsub.session().ok_or(BusError::Down)?;
        self.send_in(pubsub, session, subject, body, |_| ()).await
    }

    /// Send a message over that connection, in fragments if it must be; `note` its number before the transport has it.
    pub(super) async fn send_in(
        &self,
        pubsub: &Arc<dyn PubSub>,
        session: u32,
        subject: Subject,
        body: Body,
        note: impl FnOnce(u64),
    ) -> Result<(), BusError> {
        let _in_order = self.sender.in_order.lock().await;
        let message = NodeMessage { id: self.sender.number(), session, body };
        note(message.id);
        let formats = self.formats().of(subject, &message.body);
        for &format in formats {
            for bytes in message.encode_within(format, &self.common().key, pubsub.max_message()) {
                pubsub.send_in(session, subject, bytes).await?;
            }
        }
        Ok(())
    }
}

/// Send what a node says of its own accord, in order, as long as the node is there. What cannot be sent is not: heartbeats
/// come again, and who asked does not wait for ever.
pub(super) async fn send_queued(cluster: Weak<Cluster>, mut queued: Queued) {
    while let Some((subject, body)) = queued.recv().await {
        let Some(cluster) = cluster.upgrade() else { return };
        if let Ok(pubsub) = cluster.pubsub() {
            let _ = cluster.send(pubsub, subject, body).await;
        }
    }
}
