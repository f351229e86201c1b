//! A node of a test: a transport, and an ear that remembers and has room when it is told so.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use prometheus_client::registry::Registry;
use tokio::sync::{Mutex, mpsc, watch};
use wellhead::bus::pubsub::{MessageHandler, PubSub, Subject};
use wellhead_proto::bus::{BoxFuture, BusError};

use crate::support::{until, within};

pub struct PubSubNode {
    pub pubsub: Arc<dyn PubSub>,
    pub handler: Arc<RecordingHandler>,
    pub registry: Registry,
}

pub struct RecordingHandler {
    heard: mpsc::UnboundedSender<(Subject, Bytes)>,
    inbox: Mutex<mpsc::UnboundedReceiver<(Subject, Bytes)>>,
    room: watch::Sender<bool>,
    gaps: AtomicUsize,
    interruptions: AtomicUsize,
    count: AtomicUsize,
    busy: std::sync::Mutex<()>,
}

impl RecordingHandler {
    pub fn new() -> Arc<Self> {
        let (heard, inbox) = mpsc::unbounded_channel();
        Arc::new(Self {
            heard,
            inbox: Mutex::new(inbox),
            room: watch::Sender::new(true),
            gaps: AtomicUsize::new(0),
            interruptions: AtomicUsize::new(0),
            count: AtomicUsize::new(0),
            busy: std::sync::Mutex::default(),
        })
    }

    pub fn gaps(&self) -> usize {
        self.gaps.load(Ordering::SeqCst)
    }

    pub fn interruptions(&self) -> usize {
        self.interruptions.load(Ordering::SeqCst)
    }

    /// As long as this is held, the transport's thread gets nothing done beyond the next message.
    pub fn busy(&self) -> std::sync::MutexGuard<'_, ()> {
        self.busy.lock().expect("no test panics with it")
    }

    pub fn set_room(&self, room: bool) {
        self.room.send_replace(room);
    }

    pub async fn next(&self) -> (Subject, Bytes) {
        within("a message", async { self.inbox.lock().await.recv().await.expect("the ear is there") }).await
    }

    /// What has come already.
    pub async fn so_far(&self) -> Vec<(Subject, Bytes)> {
        let mut inbox = self.inbox.lock().await;
        std::iter::from_fn(|| inbox.try_recv().ok()).collect()
    }
}

impl MessageHandler for RecordingHandler {
    fn hear(&self, subject: Subject, message: Bytes) {
        drop(self.busy.lock().expect("no test panics with it"));
        self.count.fetch_add(1, Ordering::SeqCst);
        self.heard.send((subject, message)).expect("the ear is there");
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
        self.interruptions.fetch_add(1, Ordering::SeqCst);
    }
}

impl PubSubNode {
    /// The same, once it is up.
    pub async fn up(self) -> Self {
        self.is(true).await;
        self
    }

    /// Wait until it is up, or down.
    pub async fn is(&self, up: bool) {
        let what = if up { "the wire is up" } else { "the wire is down" };
        within(what, async {
            self.pubsub.state().wait_for(|is| *is == up).await.expect("the wire is there");
        })
        .await;
    }

    /// Listen, and be sure of it.
    pub async fn listens(self, subjects: &[Subject]) -> Self {
        for subject in subjects {
            self.pubsub.listen(*subject);
        }
        self.pubsub.confirm().await.expect("a confirmation");
        self
    }

    pub async fn send(&self, subject: Subject, text: impl Into<String>) {
        self.pubsub.send(subject, text.into().into()).await.expect("it was sent");
    }

    /// The next thing heard is `text` on `subject`.
    pub async fn hears(&self, subject: Subject, text: &str) {
        let (on, message) = self.handler.next().await;
        assert_eq!((on, String::from_utf8_lossy(&message).as_ref()), (subject, text));
    }

    pub async fn has_gaps(&self, gaps: usize) {
        until("gaps", gaps, || async { self.handler.gaps() }).await;
    }

    /// What `name`, a metric with its labels, says.
    pub fn metric(&self, name: &str) -> f64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).expect("a string takes all");
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {name} in {text}")).parse().expect("a number")
    }

    /// Wait until all that came over the transport was heard.
    pub async fn has_heard_all(&self) {
        let came = || self.metric("bus_messages_total{direction=\"in\"}") as usize;
        until("all was heard", true, || async { came() == self.handler.count.load(Ordering::SeqCst) }).await;
    }

    pub async fn takes_nothing(&self) {
        assert_eq!(self.pubsub.send(Subject::Everyone, "nothing".into()).await, Err(BusError::Down));
        assert_eq!(self.pubsub.confirm().await, Err(BusError::Down));
    }
}
