//! One connection to a NATS server, from connecting to its end. Nothing of it survives: not its client, not its
//! queues, not its tasks.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use async_nats::{Client, Event, Subscriber};
use bytes::Bytes;
use futures_util::{
    FutureExt, Stream, StreamExt,
    stream::{AbortHandle, Abortable, SelectAll},
};
use log::warn;
use rustc_hash::FxHashMap;
use tokio::{
    sync::mpsc,
    task::{JoinHandle, unconstrained},
    time::timeout,
};

use super::{ConnectionOrder, NatsOutlet, NatsTransport, settings};
use crate::bus::{backoff, buffer::ReceiveBuffer, client::ConnectionSession, flush, pubsub::Subject};

/// Longer than anybody waits: the library is to wait so long before it connects again by itself.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3_600);

/// A connection that is open.
pub(super) struct NatsConnection {
    client: Arc<Client>,
    prefix: Arc<str>,
    buffer: Arc<ReceiveBuffer>,
    events: mpsc::UnboundedReceiver<Event>,
    orders: mpsc::UnboundedReceiver<ConnectionOrder>,
    /// Nobody but us listens to it.
    echo_subject: String,
    echo: Subscriber,
    listening: FxHashMap<Subject, AbortHandle>,
    sources: mpsc::UnboundedSender<SubscriptionSource>,
    forwarding: JoinHandle<()>,
}

/// What one subscription hears, until it is unlistened.
type SubscriptionSource = Abortable<SubscriptionStream>;

struct SubscriptionStream {
    subject: Subject,
    subscriber: Subscriber,
}

impl Stream for SubscriptionStream {
    type Item = (Subject, Bytes);

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let subject = self.subject;
        self.subscriber.poll_next_unpin(context).map(|message| message.map(|message| (subject, message.payload)))
    }
}

impl NatsConnection {
    /// Connect.
    pub(super) async fn open(transport: &NatsTransport, url: &str) -> Result<(NatsOutlet, Self), String> {
        let address = settings::address(url)?;
        let (event, events) = mpsc::unbounded_channel();
        let connected_once = AtomicBool::new(false);
        let options = transport.settings.options(&address).await?;
        let options = options
            .event_callback(move |heard| {
                let event = event.clone();
                async move {
                    let _ = event.send(heard);
                }
            })
            // asked before every try, of which the first is ours
            .reconnect_delay_callback(move |_| match connected_once.swap(true, Ordering::Relaxed) {
                true => NEVER,
                false => Duration::ZERO,
            });
        let client = match timeout(3 * flush::DEADLINE, options.connect(address)).await {
            Ok(Ok(client)) => Arc::new(client),
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err("no answer".to_owned()),
        };
        transport.max_message.store(client.max_payload(), Ordering::Relaxed);

        let (prefix, buffer) = (transport.prefix.clone(), transport.buffer.clone());
        let echo_subject = format!("{prefix}echo.{:016x}", nonce());
        let echo = in_time(client.subscribe(echo_subject.clone())).await?;
        let (order, orders) = mpsc::unbounded_channel();
        let (sources, arriving) = mpsc::unbounded_channel();
        // within a budget it would take 128 messages in a turn, while the library reads thousands in each of its own
        let forwarding = tokio::spawn(unconstrained(forward(buffer.clone(), arriving)));
        let outlet = NatsOutlet {
            client: client.clone(),
            orders: order,
            prefix: prefix.clone(),
            large: transport.large.clone(),
        };
        let listening = FxHashMap::default();
        Ok((
            outlet,
            Self { client, prefix, buffer, events, orders, echo_subject, echo, listening, sources, forwarding },
        ))
    }

    /// Serve until it breaks, and why it did.
    pub(super) async fn serve(&mut self, session: &ConnectionSession<'_, NatsTransport>) -> Result<Infallible, String> {
        loop {
            tokio::select! {
                echo = self.echo.next() => {
                    let echo = echo.ok_or("the connection ended")?;
                    session.answered(echo.payload.as_ref().try_into().map(u64::from_be_bytes).unwrap_or_default());
                }
                order = self.orders.recv() => match order.ok_or("the client was closed")? {
                    ConnectionOrder::Listen(subject) => self.listen(subject).await?,
                    ConnectionOrder::Unlisten(subject) => self.unlisten(subject),
                    ConnectionOrder::Ping(number) => {
                        let echo = Bytes::copy_from_slice(&number.to_be_bytes());
                        in_time(self.client.publish(self.echo_subject.clone(), echo)).await?;
                        session.sent(number);
                    }
                },
                event = self.events.recv() => self.happened(event.ok_or("the client ended")?)?,
            }
        }
    }

    /// It ended: what was read of it comes into the buffer.
    pub(super) async fn pass_on_the_rest(self) {
        // it takes what was read, and ends
        drop(self.sources);
        let _ = self.forwarding.await;
    }

    fn happened(&self, event: Event) -> Result<(), String> {
        match event {
            Event::Disconnected => Err("the connection was lost".to_owned()),
            Event::Closed => Err("the connection ended".to_owned()),
            Event::SlowConsumer(_) => {
                self.buffer.gap();
                Ok(())
            }
            Event::ServerError(error) => {
                // a refused subject, above all: half a bus is worse than none
                Err(format!("the server says {error}"))
            }
            Event::LameDuckMode => {
                warn!("the NATS server is about to shut down");
                Ok(())
            }
            Event::Connected | Event::Draining | Event::ClientError(_) => Ok(()),
        }
    }

    async fn listen(&mut self, subject: Subject) -> Result<(), String> {
        // a change of the table while it was read is told twice
        if self.listening.contains_key(&subject) {
            return Ok(());
        }
        let subscriber = in_time(self.client.subscribe(format!("{}{subject}", self.prefix))).await?;
        let (handle, registration) = AbortHandle::new_pair();
        self.listening.insert(subject, handle);
        let source = Abortable::new(SubscriptionStream { subject, subscriber }, registration);
        self.sources.send(source).map_err(|_| "the client ended".to_owned())
    }

    /// The forwarding task drops the subscriber, which tells the server; nothing is heard from now on.
    fn unlisten(&mut self, subject: Subject) {
        if let Some(handle) = self.listening.remove(&subject) {
            handle.abort();
        }
    }
}

/// All subscriptions into one buffer, until the connection ends; then what was read of each. Takes what comes at once: the
/// library drops silently what is not taken.
async fn forward(buffer: Arc<ReceiveBuffer>, mut arriving: mpsc::UnboundedReceiver<SubscriptionSource>) {
    let mut sources = SelectAll::new();
    loop {
        tokio::select! {
            source = arriving.recv() => match source {
                Some(source) => sources.push(source),
                None => break,
            },
            Some((subject, message)) = sources.next(), if !sources.is_empty() => buffer.admit(subject, message),
        }
    }
    // the library's task runs on this thread, too: nothing more is read meanwhile
    for mut source in sources {
        while let Some(Some((subject, message))) = source.next().now_or_never() {
            buffer.admit(subject, message);
        }
    }
}

async fn in_time<T, E: std::fmt::Display>(call: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    match timeout(flush::DEADLINE, call).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("the server takes nothing".to_owned()),
    }
}

/// Tells this connection from every other.
fn nonce() -> u64 {
    let mut bytes = [0; 8];
    // the hasher's keys are random, too, and the system has always had some for them
    match getrandom::fill(&mut bytes) {
        Ok(()) => u64::from_ne_bytes(bytes),
        Err(_) => backoff::random_below(usize::MAX) as u64,
    }
}
