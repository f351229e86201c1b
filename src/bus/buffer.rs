//! Where messages wait for the handler's room: what comes off the transport is taken at once, so that a node that falls
//! behind still gets its own confirmations. Bounded in bytes; over the bound all that waits is dropped and the handler
//! is notified.

use std::{
    collections::VecDeque,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use log::warn;
use tokio::sync::Notify;

use super::{
    metrics::PubSubMetrics,
    pubsub::{MessageHandler, Subject},
};

/// What a waiting message costs beyond its bytes.
const OVERHEAD: usize = 64;

/// After so many messages others of the thread have a turn: it has a connection to keep alive. Not after few, or the
/// buffer fills faster than it empties.
const TURN: u32 = 8_192;

/// The messages that wait for one handler.
pub(super) struct ReceiveBuffer {
    handler: Arc<dyn MessageHandler>,
    metrics: PubSubMetrics,
    bound: usize,
    waiting: Mutex<WaitingArrivals>,
    arrived: Notify,
}

#[derive(Default)]
struct WaitingArrivals {
    arrivals: VecDeque<Arrival>,
    bytes: usize,
    gap: bool,
}

enum Arrival {
    Message(Subject, Bytes),
    /// Between two connections.
    Interruption,
}

impl ReceiveBuffer {
    pub(super) fn new(handler: Arc<dyn MessageHandler>, bound: usize, metrics: PubSubMetrics) -> Self {
        Self { handler, metrics, bound, waiting: Mutex::default(), arrived: Notify::new() }
    }

    /// A message came.
    pub(super) fn admit(&self, subject: Subject, message: Bytes) {
        self.metrics.heard(message.len());
        let mut waiting = self.waiting();
        let bytes = message.len() + OVERHEAD;
        if waiting.bytes > 0 && waiting.bytes + bytes > self.bound {
            let lost = waiting.drop_all() + 1;
            drop(waiting);
            warn!(lost, gap = "too slow"; "this node fell behind the bus by more than {} bytes: {lost} messages are lost", self.bound);
        } else {
            waiting.bytes += bytes;
            waiting.arrivals.push_back(Arrival::Message(subject, message));
            drop(waiting);
        }
        self.arrived.notify_one();
    }

    /// Messages were lost before they came here.
    pub(super) fn gap(&self) {
        self.waiting().gap = true;
        self.arrived.notify_one();
    }

    /// The connection ended; what comes next comes over another.
    pub(super) fn interrupted(&self) {
        let mut waiting = self.waiting();
        if !matches!(waiting.arrivals.back(), Some(Arrival::Interruption)) {
            waiting.arrivals.push_back(Arrival::Interruption);
        }
        drop(waiting);
        self.arrived.notify_one();
    }

    /// Pass on what comes, as far as it is still listened to, for ever. May be dropped and started again.
    pub(super) async fn pass_on(&self, listens: impl Fn(Subject) -> bool) {
        let mut in_a_row = 0;
        loop {
            let arrived = self.arrived.notified();
            if self.is_empty() {
                in_a_row = 0;
                arrived.await;
                continue;
            }
            if !self.handler.has_room() {
                self.handler.room().await;
            }
            if mem::take(&mut self.waiting().gap) {
                self.metrics.gaps.inc();
                self.handler.gap();
            }
            let next = self.waiting().pop();
            match next {
                Some(Arrival::Message(subject, message)) if listens(subject) => self.handler.hear(subject, message),
                Some(Arrival::Interruption) => self.handler.interrupted(),
                Some(Arrival::Message(..)) | None => {}
            }
            in_a_row += 1;
            if in_a_row == TURN {
                in_a_row = 0;
                tokio::task::yield_now().await;
            }
        }
    }

    fn is_empty(&self) -> bool {
        let waiting = self.waiting();
        waiting.arrivals.is_empty() && !waiting.gap
    }

    fn waiting(&self) -> MutexGuard<'_, WaitingArrivals> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WaitingArrivals {
    fn pop(&mut self) -> Option<Arrival> {
        let next = self.arrivals.pop_front()?;
        if let Arrival::Message(_, message) = &next {
            self.bytes -= message.len() + OVERHEAD;
        }
        Some(next)
    }

    /// Drop the messages; how many they were.
    fn drop_all(&mut self) -> u64 {
        let before = self.arrivals.len();
        self.arrivals.retain(|arrival| matches!(arrival, Arrival::Interruption));
        self.bytes = 0;
        self.gap = true;
        (before - self.arrivals.len()) as u64
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::watch;
    use wellhead_proto::bus::BoxFuture;

    use super::*;

    #[derive(Default)]
    struct TestHandler {
        heard: Mutex<Vec<Bytes>>,
        gaps: AtomicUsize,
        interruptions: Mutex<Vec<usize>>,
        room: watch::Sender<bool>,
    }

    impl MessageHandler for TestHandler {
        fn hear(&self, _: Subject, message: Bytes) {
            self.heard.lock().unwrap().push(message);
        }

        fn has_room(&self) -> bool {
            *self.room.borrow()
        }

        fn room(&self) -> BoxFuture<()> {
            let mut room = self.room.subscribe();
            Box::pin(async move {
                let _ = room.wait_for(|room| *room).await;
            })
        }

        fn gap(&self) {
            self.gaps.fetch_add(1, Ordering::SeqCst);
        }

        fn interrupted(&self) {
            self.interruptions.lock().unwrap().push(self.heard.lock().unwrap().len());
        }
    }

    /// What the handler gets, when it has room, of what is in the buffer.
    async fn heard(
        buffer: &ReceiveBuffer,
        handler: &TestHandler,
        listens: impl Fn(Subject) -> bool,
    ) -> (Vec<Bytes>, usize) {
        handler.room.send_replace(true);
        tokio::select! {
            biased;
            () = buffer.pass_on(listens) => unreachable!("it goes on for ever"),
            () = async {
                while !buffer.is_empty() {
                    tokio::task::yield_now().await;
                }
            } => {}
        }
        handler.room.send_replace(false);
        (mem::take(&mut handler.heard.lock().unwrap()), handler.gaps.load(Ordering::SeqCst))
    }

    #[tokio::test]
    async fn over_its_bound_everything_is_dropped_and_the_ear_told_before_what_follows() {
        let handler = Arc::new(TestHandler::default());
        let buffer = ReceiveBuffer::new(handler.clone(), 10_000, PubSubMetrics::default());
        let large = Bytes::from(vec![0; 20_000]);
        buffer.admit(Subject::Everyone, large.clone());
        assert_eq!(heard(&buffer, &handler, |_| true).await, (vec![large], 0), "a single one always has room");
        for _ in 0..10 {
            buffer.admit(Subject::Everyone, Bytes::from(vec![0; 990]));
        }
        assert!(buffer.waiting().bytes <= 10_000);
        buffer.admit(Subject::Everyone, Bytes::from_static(b"after"));
        assert_eq!(heard(&buffer, &handler, |_| true).await, (vec![Bytes::from_static(b"after")], 1));
        assert_eq!(buffer.waiting().bytes, 0);
    }

    #[tokio::test]
    async fn an_interruption_is_told_between_what_came_before_it_and_what_came_after() {
        let handler = Arc::new(TestHandler::default());
        let buffer = ReceiveBuffer::new(handler.clone(), 10_000, PubSubMetrics::default());
        buffer.admit(Subject::Everyone, Bytes::from_static(b"before"));
        buffer.interrupted();
        buffer.interrupted();
        buffer.admit(Subject::Everyone, Bytes::from_static(b"after"));
        assert_eq!(heard(&buffer, &handler, |_| true).await.0.len(), 2);
        assert_eq!(*handler.interruptions.lock().unwrap(), [1]);
        // it is not forgotten with the messages that are dropped
        buffer.admit(Subject::Everyone, Bytes::from(vec![0; 9_000]));
        buffer.interrupted();
        buffer.admit(Subject::Everyone, Bytes::from(vec![0; 9_000]));
        assert_eq!(heard(&buffer, &handler, |_| true).await, (vec![], 1));
        assert_eq!(*handler.interruptions.lock().unwrap(), [1, 0]);
    }

    #[tokio::test]
    async fn what_is_not_listened_to_any_more_is_not_heard() {
        let handler = Arc::new(TestHandler::default());
        let buffer = ReceiveBuffer::new(handler.clone(), 10_000, PubSubMetrics::default());
        buffer.admit(Subject::Slot(1), Bytes::from_static(b"one"));
        buffer.admit(Subject::Slot(2), Bytes::from_static(b"two"));
        let two = |subject| subject == Subject::Slot(2);
        assert_eq!(heard(&buffer, &handler, two).await, (vec![Bytes::from_static(b"two")], 0));
    }
}
