//! The wire between machines: a NATS server. Everything that lasts longer than one connection is here: what is listened
//! to, whether we are connected, and the loop that connects again. The one place with `connection` that knows NATS.

mod connection;
mod settings;

use std::{
    fmt::Write,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use async_nats::{Client, PublishErrorKind};
use async_trait::async_trait;
use bytes::Bytes;
use rustc_hash::FxHashSet;
use tokio::{
    runtime,
    sync::{Semaphore, mpsc, oneshot, watch},
    time::timeout,
};
use wellhead_proto::bus::BusError;

use self::connection::{Connection, Order};
pub use self::settings::{NatsSettings, NatsTls};
use super::{
    confirms::{CONFIRMATION, PATIENCE},
    lobby::Lobby,
    metrics::WireMetrics,
    outage::{self, Outage},
    wire::{Ear, Subject, Wire},
};

/// Messages from this size on are let into the queue a few at a time, for the queue is bounded in messages only.
const LARGE: usize = 64 * 1_024;
/// How many of them.
const LARGE_ONES: usize = 16;
/// What may wait for the ear, in bytes.
const LOBBY: usize = 64 * 1_024 * 1_024;
/// Until a server tells otherwise.
const MAX_MESSAGE: usize = 1_024 * 1_024;
/// The longest pause between two tries to connect.
const LAST_PAUSE: Duration = Duration::from_secs(2);

/// A node's end of a NATS server.
pub struct NatsWire {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
}

/// What the wire's thread and its callers share.
struct Shared {
    settings: NatsSettings,
    prefix: String,
    lobby: Lobby,
    metrics: WireMetrics,
    table: Mutex<Table>,
    /// There while the wire is up, with the number of the connection.
    client: RwLock<Option<(u32, Arc<Client>)>>,
    sessions: AtomicU32,
    up: watch::Sender<bool>,
    max_message: AtomicUsize,
    large: Semaphore,
}

/// What is listened to, and who must be told of changes.
#[derive(Default)]
struct Table {
    subjects: FxHashSet<Subject>,
    connection: Option<mpsc::UnboundedSender<Order>>,
}

impl NatsWire {
    /// Connect to the servers of `settings` as a node of `cluster`, now and whenever the connection is lost, for ever.
    ///
    /// # Errors
    ///
    /// The system gives us no thread.
    pub fn connect(
        settings: NatsSettings,
        cluster: &str,
        ear: Arc<dyn Ear>,
        metrics: WireMetrics,
    ) -> io::Result<Arc<Self>> {
        // the library would pick by itself, and panic once a dependency brought a second one; fails if there is one already
        let _ = async_nats::rustls::crypto::aws_lc_rs::default_provider().install_default();
        let shared = Arc::new(Shared {
            settings,
            prefix: format!("wellhead.{}.", token(cluster)),
            lobby: Lobby::new(ear, LOBBY, metrics.clone()),
            metrics,
            table: Mutex::default(),
            client: RwLock::default(),
            up: watch::Sender::new(false),
            sessions: AtomicU32::new(0),
            max_message: AtomicUsize::new(MAX_MESSAGE),
            large: Semaphore::new(LARGE_ONES),
        });
        let (stop, stopped) = watch::channel(false);
        let keeper = shared.clone();
        thread::Builder::new().name("bus".to_owned()).spawn(move || keeper.keep_connected(stopped))?;
        Ok(Arc::new(Self { shared, stop }))
    }
}

impl Drop for NatsWire {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

#[async_trait]
impl Wire for NatsWire {
    fn session(&self) -> Option<u32> {
        self.shared.client().map(|(session, _)| session)
    }

    async fn send_in(&self, session: u32, subject: Subject, message: Bytes) -> Result<(), BusError> {
        self.shared.send(session, subject, message).await
    }

    fn listen(&self, subject: Subject) {
        let mut table = self.shared.table();
        if table.subjects.insert(subject) {
            table.tell(Order::Listen(subject));
            self.shared.metrics.listens_to(table.subjects.len());
        }
    }

    fn unlisten(&self, subject: Subject) {
        let mut table = self.shared.table();
        if table.subjects.remove(&subject) {
            table.tell(Order::Unlisten(subject));
            self.shared.metrics.listens_to(table.subjects.len());
        }
    }

    async fn confirm(&self) -> Result<(), BusError> {
        if !*self.shared.up.borrow() {
            return Err(BusError::Down);
        }
        let (waiter, confirmed) = oneshot::channel();
        self.shared.table().tell(Order::Confirm(waiter));
        match timeout(CONFIRMATION, confirmed).await {
            Ok(Ok(confirmed)) => confirmed,
            // the connection ended, and with it everybody's waiting
            Ok(Err(_)) | Err(_) => Err(BusError::Down),
        }
    }

    fn max_message(&self) -> Option<usize> {
        Some(self.shared.max_message.load(Ordering::Relaxed))
    }

    fn state(&self) -> watch::Receiver<bool> {
        self.shared.up.subscribe()
    }

    async fn close(&self) {
        // a round trip empties the queue; if it fails, there is nobody to send to
        let _ = self.confirm().await;
        self.stop.send_replace(true);
        self.shared.down();
    }
}

impl Shared {
    fn client(&self) -> Option<(u32, Arc<Client>)> {
        self.client.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn send(&self, session: u32, subject: Subject, message: Bytes) -> Result<(), BusError> {
        debug_assert!(subject != Subject::EverySlot, "only to be listened to");
        let (_, client) = self.client().filter(|(up, _)| *up == session).ok_or(BusError::Down)?;
        let bytes = message.len();
        let limit = client.max_payload();
        if bytes > limit {
            return Err(BusError::TooLarge { limit });
        }
        let subject = self.subject(subject);
        let sent = timeout(PATIENCE, async {
            if bytes < LARGE {
                return client.publish(subject, message).await;
            }
            let _one_of_few = self.large.acquire().await;
            client.publish(subject, message).await?;
            // it only empties the write buffer, which is what is waited for here
            let _ = client.flush().await;
            Ok(())
        });
        match sent.await {
            Ok(Ok(())) => {
                self.metrics.sent(bytes);
                Ok(())
            }
            Ok(Err(error)) if error.kind() == PublishErrorKind::MaxPayloadExceeded => {
                Err(BusError::TooLarge { limit: client.max_payload() })
            }
            Ok(Err(_)) => Err(BusError::Down),
            Err(_) => Err(BusError::Full),
        }
    }

    fn subject(&self, subject: Subject) -> String {
        format!("{}{subject}", self.prefix)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listens(&self, subject: Subject) -> bool {
        self.table().subjects.contains(&subject)
    }

    fn up(&self, client: Arc<Client>) {
        let session = self.sessions.fetch_add(1, Ordering::Relaxed);
        *self.client.write().unwrap_or_else(PoisonError::into_inner) = Some((session, client));
        self.metrics.up.set(1);
        self.up.send_replace(true);
    }

    fn down(&self) {
        *self.client.write().unwrap_or_else(PoisonError::into_inner) = None;
        self.table().connection = None;
        self.metrics.up.set(0);
        self.up.send_if_modified(std::mem::take);
    }

    /// Connection after connection, each on a runtime of its own: the library keeps what is queued across its own
    /// reconnects, and takes it along into nothing when its runtime goes.
    fn keep_connected(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut outage = Outage::new(self.settings.urls.len(), LAST_PAUSE);
        // not every node at the first server
        let mut next = outage::random_below(self.settings.urls.len());
        while !*stop.borrow() {
            let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => {
                    outage.failed("NATS", &format!("cannot start a connection: {error}"));
                    thread::sleep(LAST_PAUSE);
                    continue;
                }
            };
            let url = self.settings.urls.get(next).map_or("", String::as_str);
            next = (next + 1) % self.settings.urls.len().max(1);
            runtime.block_on(async {
                tokio::select! {
                    () = self.one_connection(url, &mut outage) => {}
                    () = self.lobby.pass_on(|subject| self.listens(subject)) => {}
                    _ = stop.wait_for(|stop| *stop) => {}
                }
            });
            self.down();
            // a thread that still looks a name up is not waited for
            runtime.shutdown_background();
        }
    }

    async fn one_connection(self: &Arc<Self>, url: &str, outage: &mut Outage) {
        tokio::time::sleep(outage.pause()).await;
        let place = settings::place(url);
        let why = match Connection::open(self.clone(), url).await {
            Ok(connection) => connection.run(|| outage.over(&place, &self.metrics)).await,
            Err(why) => why,
        };
        outage.failed(&place, &why);
    }
}

impl Table {
    fn tell(&self, order: Order) {
        if let Some(connection) = &self.connection {
            // a connection that is ending takes no orders: the next one reads the table
            let _ = connection.send(order);
        }
    }
}

/// `cluster` as one token of a subject; different names never make the same token, nor one that a wildcard of the other
/// matches.
fn token(cluster: &str) -> String {
    let mut token = String::with_capacity(cluster.len());
    for byte in cluster.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => token.push(char::from(byte)),
            _ => write!(token, "={byte:02x}").expect("a string takes all"),
        }
    }
    if token.is_empty() { "=".to_owned() } else { token }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_one_token_of_a_subject() {
        assert_eq!(token("wellhead-1_B"), "wellhead-1_B");
        assert_eq!(token("a.slot"), "a=2eslot");
        assert_eq!(token("a=2eslot"), "a=3d2eslot");
        assert_eq!(token("*"), "=2a");
        assert_eq!(token("ä >\r\n"), "=c3=a4=20=3e=0d=0a");
        assert_eq!(token(""), "=");
    }
}
