//! One connection to a NATS server, from connecting to its end. Nothing of it survives: not its client, not its
//! queues, not its tasks.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use async_nats::{Client, Event, Subscriber, connection::State};
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

use super::{Shared, settings};
use crate::bus::{
    confirms::{self, Confirms, Waiter},
    lobby::Lobby,
    outage,
    wire::Subject,
};

/// How long nothing happens before we look whether all is well.
const TICK: Duration = Duration::from_millis(250);
/// A tick so late means that this thread stood still, the whole process perhaps.
const STOPPED: Duration = Duration::from_secs(1);
/// Longer than anybody waits: the library is to wait so long before it connects again by itself.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3_600);

/// What the wire's callers want of the connection, in their order.
pub(super) enum Order {
    Listen(Subject),
    Unlisten(Subject),
    Confirm(Waiter),
}

/// A connection that is open.
pub(super) struct Connection {
    shared: Arc<Shared>,
    client: Arc<Client>,
    events: mpsc::UnboundedReceiver<Event>,
    orders: mpsc::UnboundedReceiver<Order>,
    /// Nobody but us listens to it.
    echo_subject: String,
    echo: Subscriber,
    confirms: Confirms,
    listening: FxHashMap<Subject, AbortHandle>,
    /// Until it ends.
    sources: Option<mpsc::UnboundedSender<Source>>,
    forwarding: JoinHandle<()>,
}

/// What one subscription hears, until it is unlistened.
type Source = Abortable<Heard>;

struct Heard {
    subject: Subject,
    subscriber: Subscriber,
}

impl Stream for Heard {
    type Item = (Subject, Bytes);

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let subject = self.subject;
        self.subscriber.poll_next_unpin(context).map(|message| message.map(|message| (subject, message.payload)))
    }
}

impl Connection {
    /// Connect.
    pub(super) async fn open(shared: Arc<Shared>, url: &str) -> Result<Self, String> {
        let address = settings::address(url)?;
        let (event, events) = mpsc::unbounded_channel();
        let connected_once = AtomicBool::new(false);
        let options = shared.settings.options(&address).await?;
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
        let client = match timeout(3 * confirms::DEADLINE, options.connect(address)).await {
            Ok(Ok(client)) => Arc::new(client),
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err("no answer".to_owned()),
        };
        shared.max_message.store(client.max_payload(), Ordering::Relaxed);

        let echo_subject = format!("{}echo.{:016x}", shared.prefix, nonce());
        let echo = in_time(client.subscribe(echo_subject.clone())).await?;
        let (order, orders) = mpsc::unbounded_channel();
        shared.table().connection = Some(order);
        let (sources, arriving) = mpsc::unbounded_channel();
        // within a budget it would take 128 messages in a turn, while the library reads thousands in each of its own
        let forwarding = tokio::spawn(unconstrained(forward(shared.clone(), arriving)));
        Ok(Self {
            shared,
            client,
            events,
            orders,
            echo_subject,
            echo,
            confirms: Confirms::default(),
            listening: FxHashMap::default(),
            sources: Some(sources),
            forwarding,
        })
    }

    /// Ask for everything that is listened to and serve until it breaks, and why it did; `up` is called once the server has
    /// everything. What came over it is in the lobby then, and behind it the interruption.
    pub(super) async fn run(mut self, up: impl FnOnce()) -> String {
        let why = match self.serve(up).await {
            Ok(never) => match never {},
            Err(why) => why,
        };
        self.shared.down();
        self.confirms.down();
        // it takes what was read, and ends
        self.sources.take();
        let _ = (&mut self.forwarding).await;
        self.shared.lobby.interrupted();
        why
    }

    async fn serve(&mut self, up: impl FnOnce()) -> Result<std::convert::Infallible, String> {
        let subjects: Vec<Subject> = self.shared.table().subjects.iter().copied().collect();
        for subject in subjects {
            self.listen(subject).await?;
        }
        let mut up = Some(up);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut ticked = Instant::now();
        self.begin_round().await?;
        loop {
            tokio::select! {
                echo = self.echo.next() => {
                    let echo = echo.ok_or("the connection ended")?;
                    let number = echo.payload.as_ref().try_into().map(u64::from_be_bytes).unwrap_or_default();
                    if let Some((took, _)) = self.confirms.answered(number, Instant::now()) {
                        self.shared.metrics.confirmed(took);
                        if let Some(up) = up.take() {
                            up();
                            self.shared.up(self.client.clone());
                        }
                    }
                    if self.confirms.wants_round() {
                        self.begin_round().await?;
                    }
                }
                order = self.orders.recv() => match order.ok_or("the wire was closed")? {
                    Order::Listen(subject) => self.listen(subject).await?,
                    Order::Unlisten(subject) => self.unlisten(subject),
                    Order::Confirm(waiter) => {
                        self.confirms.ask(waiter);
                        if self.confirms.wants_round() {
                            self.begin_round().await?;
                        }
                    }
                },
                event = self.events.recv() => self.happened(event.ok_or("the client ended")?)?,
                _ = tick.tick() => {
                    let now = Instant::now();
                    if now - ticked > STOPPED {
                        self.confirms.extend(now);
                    }
                    ticked = now;
                    if self.confirms.overdue(now) {
                        return Err("no confirmation in time".to_owned());
                    }
                    // the events are a bounded queue that may have dropped this one
                    if self.client.connection_state() != State::Connected {
                        return Err("the connection was lost".to_owned());
                    }
                }
            }
        }
    }

    fn happened(&self, event: Event) -> Result<(), String> {
        match event {
            Event::Disconnected => Err("the connection was lost".to_owned()),
            Event::Closed => Err("the connection ended".to_owned()),
            Event::SlowConsumer(_) => {
                self.shared.lobby.gap();
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

    async fn begin_round(&mut self) -> Result<(), String> {
        let number = self.confirms.begin(Instant::now());
        let echo = Bytes::copy_from_slice(&number.to_be_bytes());
        in_time(self.client.publish(self.echo_subject.clone(), echo)).await
    }

    async fn listen(&mut self, subject: Subject) -> Result<(), String> {
        // a change of the table while it was read is told twice
        if self.listening.contains_key(&subject) {
            return Ok(());
        }
        let subscriber = in_time(self.client.subscribe(self.shared.subject(subject))).await?;
        let (handle, registration) = AbortHandle::new_pair();
        self.listening.insert(subject, handle);
        let source = Abortable::new(Heard { subject, subscriber }, registration);
        let taken = self.sources.as_ref().is_some_and(|sources| sources.send(source).is_ok());
        if taken { Ok(()) } else { Err("the client ended".to_owned()) }
    }

    /// The forwarding task drops the subscriber, which tells the server; nothing is heard from now on.
    fn unlisten(&mut self, subject: Subject) {
        if let Some(handle) = self.listening.remove(&subject) {
            handle.abort();
        }
    }
}

/// All subscriptions into one lobby, until the connection ends; then what was read of each. Takes what comes at once: the
/// library drops silently what is not taken.
async fn forward(shared: Arc<Shared>, mut arriving: mpsc::UnboundedReceiver<Source>) {
    let lobby: &Lobby = &shared.lobby;
    let mut sources = SelectAll::new();
    loop {
        tokio::select! {
            source = arriving.recv() => match source {
                Some(source) => sources.push(source),
                None => break,
            },
            Some((subject, message)) = sources.next(), if !sources.is_empty() => lobby.admit(subject, message),
        }
    }
    // the library's task runs on this thread, too: nothing more is read meanwhile
    for mut source in sources {
        while let Some(Some((subject, message))) = source.next().now_or_never() {
            lobby.admit(subject, message);
        }
    }
}

async fn in_time<T, E: std::fmt::Display>(call: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    match timeout(confirms::DEADLINE, call).await {
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
        Err(_) => outage::random_below(usize::MAX) as u64,
    }
}
