//! The way between machines: a NATS server. This folder is the one place that knows NATS: what a client of it hands over, and
//! one connection. What lasts longer is `client`'s matter.

mod connection;
mod settings;

use std::{
    fmt::Write,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_nats::{Client, PublishErrorKind, connection::State};
use bytes::Bytes;
use tokio::{
    sync::{Semaphore, mpsc},
    time::timeout,
};
use wellhead_proto::bus::BusError;

use self::connection::NatsConnection;
pub use self::settings::{NatsSettings, NatsTls};
use super::{
    buffer::ReceiveBuffer,
    client::{BusTransport, ClientOutlet, ConnectionSession, ReconnectingClient},
    flush::PATIENCE,
    metrics::PubSubMetrics,
    pubsub::{MessageHandler, PubSub, Subject},
};

/// Messages from this size on are let into the queue a few at a time, for the queue is bounded in messages only.
const LARGE: usize = 64 * 1_024;
/// How many of them.
const LARGE_ONES: usize = 16;
/// What may wait for the handler, in bytes.
const BUFFER: usize = 64 * 1_024 * 1_024;
/// Until a server tells otherwise.
const MAX_MESSAGE: usize = 1_024 * 1_024;

/// Connect to the servers of `settings` as a node of `cluster`, now and whenever the connection is lost, for ever.
///
/// # Errors
///
/// The system gives us no thread.
pub fn connect(
    settings: NatsSettings,
    cluster: &str,
    handler: Arc<dyn MessageHandler>,
    metrics: PubSubMetrics,
) -> io::Result<Arc<dyn PubSub>> {
    // the library would pick by itself, and panic once a dependency brought a second one; fails if there is one already
    let _ = async_nats::rustls::crypto::aws_lc_rs::default_provider().install_default();
    let transport = NatsTransport {
        settings,
        prefix: format!("wellhead.{}.", token(cluster)).into(),
        buffer: Arc::new(ReceiveBuffer::new(handler, BUFFER, metrics.clone())),
        max_message: AtomicUsize::new(MAX_MESSAGE),
        large: Arc::new(Semaphore::new(LARGE_ONES)),
    };
    Ok(ReconnectingClient::start(transport, metrics)?)
}

/// A list of NATS servers.
struct NatsTransport {
    settings: NatsSettings,
    /// Of every subject.
    prefix: Arc<str>,
    /// What came, over all connections.
    buffer: Arc<ReceiveBuffer>,
    max_message: AtomicUsize,
    large: Arc<Semaphore>,
}

impl BusTransport for NatsTransport {
    type Outlet = NatsOutlet;
    type Connection = NatsConnection;

    const LAST_PAUSE: Duration = Duration::from_secs(2);
    const PROBES: bool = false;
    const HAS_USER_SLOTS: bool = true;
    const SILENT: &'static str = "no confirmation in time";

    fn servers(&self) -> usize {
        self.settings.urls.len()
    }

    fn place(&self, server: usize) -> String {
        settings::place(self.url(server))
    }

    fn max_message(&self) -> usize {
        self.max_message.load(Ordering::Relaxed)
    }

    fn is_served_by_a_node(&self) -> bool {
        false
    }

    /// The library keeps what is queued across its own reconnects, and takes it along into nothing when its runtime goes.
    async fn open(&self, server: usize) -> Result<(NatsOutlet, NatsConnection), String> {
        NatsConnection::open(self, self.url(server)).await
    }

    async fn serve(&self, connection: &mut NatsConnection, session: &ConnectionSession<'_, Self>) -> String {
        match connection.serve(session).await {
            Ok(never) => match never {},
            Err(why) => why,
        }
    }

    async fn close(&self, connection: NatsConnection) {
        connection.pass_on_the_rest().await;
        self.buffer.interrupted();
    }

    async fn pass_on(&self, is_listened_to: impl Fn(Subject) -> bool) {
        self.buffer.pass_on(is_listened_to).await;
    }
}

impl NatsTransport {
    fn url(&self, server: usize) -> &str {
        self.settings.urls.get(server).map_or("", String::as_str)
    }
}

/// What is handed to one connection: messages go to the library's client at once, everything else through the connection's
/// task.
struct NatsOutlet {
    client: Arc<Client>,
    orders: mpsc::UnboundedSender<ConnectionOrder>,
    prefix: Arc<str>,
    large: Arc<Semaphore>,
}

/// What callers want of the connection, in their order.
enum ConnectionOrder {
    Listen(Subject),
    Unlisten(Subject),
    Ping(u64),
}

impl NatsOutlet {
    fn order(&self, order: ConnectionOrder) {
        // a connection that is ending takes none: the next one listens to everything anew
        let _ = self.orders.send(order);
    }
}

impl ClientOutlet for NatsOutlet {
    async fn send(&self, subject: Subject, message: Bytes) -> Result<(), BusError> {
        let client = &self.client;
        let subject = format!("{}{subject}", self.prefix);
        let sent = timeout(PATIENCE, async {
            if message.len() < LARGE {
                return client.publish(subject, message).await;
            }
            let _one_of_few = self.large.acquire().await;
            client.publish(subject, message).await?;
            // it only empties the write buffer, which is what is waited for here
            let _ = client.flush().await;
            Ok(())
        });
        match sent.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) if error.kind() == PublishErrorKind::MaxPayloadExceeded => {
                Err(BusError::TooLarge { limit: client.max_payload() })
            }
            Ok(Err(_)) => Err(BusError::Down),
            Err(_) => Err(BusError::Full),
        }
    }

    fn listen(&self, subject: Subject) {
        self.order(ConnectionOrder::Listen(subject));
    }

    fn unlisten(&self, subject: Subject) {
        self.order(ConnectionOrder::Unlisten(subject));
    }

    fn ping(&self, number: u64) -> bool {
        self.order(ConnectionOrder::Ping(number));
        // behind everything that is to be listened to, which may take its time
        false
    }

    fn check(&self) -> Result<(), String> {
        // the events are a bounded queue that may have dropped this one
        match self.client.connection_state() {
            State::Connected => Ok(()),
            State::Pending | State::Disconnected => Err("the connection was lost".to_owned()),
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
