//! A node's end of a bus whose server is another process: it connects again whenever its connection is lost. What lasts longer
//! than one connection is here, once for every transport: what is listened to, which connection is up, who waits for a
//! confirmation, when to try again. A [`BusTransport`] opens one connection and serves it.
//!
//! ```text
//! pausing ──▶ opening ──▶ catching up (listens anew, one round trip) ──▶ up
//!    ▲           │                        │                              │
//!    └───────────┴────────────────────────┴───────── it broke ◀──────────┘
//! ```

use std::{
    cell::RefCell,
    future::pending,
    io,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    thread,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use rustc_hash::FxHashSet;
use tokio::{
    runtime,
    sync::{oneshot, watch},
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use wellhead_proto::bus::BusError;

use super::{
    backoff::{self, Backoff},
    flush::{CONFIRMATION, FlushBarrier},
    metrics::PubSubMetrics,
    pubsub::{PubSub, Subject},
};

/// How often we look whether all is well.
const TICK: Duration = Duration::from_millis(250);
/// A tick so late means that this thread stood still, the whole process perhaps.
const STOPPED: Duration = Duration::from_secs(1);
/// So many ticks between two probes.
const PROBE: u32 = 4;
/// How long a connection may take to send what is queued when it is closed.
const FAREWELL: Duration = Duration::from_secs(2);

/// A kind of server: opens a connection to it and serves that.
pub(super) trait BusTransport: Send + Sync + Sized + 'static {
    /// What callers hand messages to, for one connection.
    type Outlet: ClientOutlet;
    /// What reads that connection.
    type Connection;

    /// The longest pause between two tries to connect.
    const LAST_PAUSE: Duration;
    /// Is the server asked once a second whether it is alive? If not, its silence is noticed by who waits for it.
    const PROBES: bool;
    /// Do servers of every release that may be met route slots of users?
    const HAS_USER_SLOTS: bool;
    /// Why a connection ends whose confirmation does not come.
    const SILENT: &'static str;

    /// How many servers there are; they are tried one after the other.
    fn servers(&self) -> usize;

    /// A server, as logs show it.
    fn place(&self, server: usize) -> String;

    /// The largest message, in bytes.
    fn max_message(&self) -> usize;

    /// Is the server itself a node?
    fn is_served_by_a_node(&self) -> bool;

    /// Connect. Every connection has a runtime of its own, which ends with it.
    fn open(&self, server: usize) -> impl Future<Output = Result<(Self::Outlet, Self::Connection), String>>;

    /// Pass on what comes, until the connection breaks; why it did. May be dropped before.
    fn serve(
        &self,
        connection: &mut Self::Connection,
        session: &ConnectionSession<'_, Self>,
    ) -> impl Future<Output = String>;

    /// The connection ended: pass on what was read of it, and that it ended.
    fn close(&self, connection: Self::Connection) -> impl Future<Output = ()>;

    /// Pass on what waits, over all connections, for ever. May be dropped and started again.
    fn pass_on(&self, is_listened_to: impl Fn(Subject) -> bool) -> impl Future<Output = ()> {
        let _ = is_listened_to;
        pending()
    }
}

/// The callers' half of one connection. What is handed over by one caller leaves in that order.
pub(super) trait ClientOutlet: Send + Sync {
    /// Hand over a message; back once it is in the queue to the server.
    fn send(&self, subject: Subject, message: Bytes) -> impl Future<Output = Result<(), BusError>> + Send;

    fn listen(&self, subject: Subject);

    fn unlisten(&self, subject: Subject);

    /// Send what the server answers, behind everything else. `true` if its answer is due from now on, `false` if it leaves later:
    /// see [`ConnectionSession::sent`].
    fn ping(&self, number: u64) -> bool;

    /// Is the connection still there, as far as can be seen from here? Why it is not.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// Say goodbye. `true` if that is worth waiting for.
    fn farewell(&self) -> bool {
        false
    }

    /// The connection ended: let go of who waits for room in it.
    fn abandon(&self) {}
}

/// A client, for as long as its node lives.
pub(super) struct ReconnectingClient<T: BusTransport> {
    shared: Arc<ClientConnections<T>>,
    stop: watch::Sender<bool>,
    ended: watch::Receiver<bool>,
}

/// What the client's thread and its callers share.
struct ClientConnections<T: BusTransport> {
    transport: T,
    metrics: PubSubMetrics,
    up: watch::Sender<bool>,
    /// There while the client is up, with the number of the connection.
    outlet: RwLock<Option<(u32, Arc<T::Outlet>)>>,
    state: Mutex<ClientState<T::Outlet>>,
}

struct ClientState<O> {
    subjects: FxHashSet<Subject>,
    /// There while we are connected, up or not.
    outlet: Option<Arc<O>>,
    /// Counts the connections.
    session: u32,
    barrier: FlushBarrier,
    /// Nothing is read, confirmations neither, since there is no room for it.
    paused: bool,
}

/// One connection, as its transport sees it.
pub(super) struct ConnectionSession<'a, T: BusTransport> {
    shared: &'a ClientConnections<T>,
    outlet: Arc<T::Outlet>,
    /// Told that the client is up, once.
    backoff: RefCell<Option<&'a mut Backoff>>,
    place: &'a str,
}

impl<T: BusTransport> ReconnectingClient<T> {
    /// Connect, now and whenever the connection is lost, for ever.
    ///
    /// # Errors
    ///
    /// The system gives us no thread.
    pub(super) fn start(transport: T, metrics: PubSubMetrics) -> io::Result<Arc<Self>> {
        let shared = Arc::new(ClientConnections {
            transport,
            metrics,
            up: watch::Sender::new(false),
            outlet: RwLock::default(),
            state: Mutex::new(ClientState {
                subjects: FxHashSet::default(),
                outlet: None,
                session: 0,
                barrier: FlushBarrier::default(),
                paused: false,
            }),
        });
        let (stop, stopped) = watch::channel(false);
        let (ended_sender, ended) = watch::channel(false);
        let connections = shared.clone();
        let keep = move || {
            connections.keep_connected(stopped);
            ended_sender.send_replace(true);
        };
        thread::Builder::new().name("bus".to_owned()).spawn(keep)?;
        Ok(Arc::new(Self { shared, stop, ended }))
    }
}

impl<T: BusTransport> Drop for ReconnectingClient<T> {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

#[async_trait]
impl<T: BusTransport> PubSub for ReconnectingClient<T> {
    fn session(&self) -> Option<u32> {
        self.shared.outlet().map(|(session, _)| session)
    }

    async fn send_in(&self, session: u32, subject: Subject, message: Bytes) -> Result<(), BusError> {
        debug_assert!(!subject.is_wildcard(), "only to be listened to");
        let (_, outlet) = self.shared.outlet().filter(|(up, _)| *up == session).ok_or(BusError::Down)?;
        let (bytes, limit) = (message.len(), self.shared.transport.max_message());
        if bytes > limit {
            return Err(BusError::TooLarge { limit });
        }
        outlet.send(subject, message).await?;
        self.shared.metrics.sent(bytes);
        Ok(())
    }

    fn listen(&self, subject: Subject) {
        let mut state = self.shared.state();
        if state.subjects.insert(subject) {
            if let Some(outlet) = &state.outlet {
                outlet.listen(subject);
            }
            self.shared.metrics.listens_to(state.subjects.len());
        }
    }

    fn unlisten(&self, subject: Subject) {
        let mut state = self.shared.state();
        if state.subjects.remove(&subject) {
            if let Some(outlet) = &state.outlet {
                outlet.unlisten(subject);
            }
            self.shared.metrics.listens_to(state.subjects.len());
        }
    }

    async fn confirm(&self) -> Result<(), BusError> {
        let (waiter, confirmed) = oneshot::channel();
        {
            let mut state = self.shared.state();
            if !*self.shared.up.borrow() {
                return Err(BusError::Down);
            }
            state.barrier.ask(waiter);
            if state.barrier.wants_round() {
                state.begin_round();
            }
        }
        match timeout(CONFIRMATION, confirmed).await {
            Ok(Ok(confirmed)) => confirmed,
            // the connection ended, and nobody waits for its confirmations any more
            Ok(Err(_)) | Err(_) => Err(BusError::Down),
        }
    }

    fn max_message(&self) -> Option<usize> {
        Some(self.shared.transport.max_message())
    }

    fn is_served_by_a_node(&self) -> bool {
        self.shared.transport.is_served_by_a_node()
    }

    fn has_user_slots(&self) -> bool {
        T::HAS_USER_SLOTS
    }

    fn state(&self) -> watch::Receiver<bool> {
        self.shared.up.subscribe()
    }

    async fn close(&self) {
        // a round trip empties the queue; if it fails, there is nobody to send to
        let _ = self.confirm().await;
        self.shared.not_up();
        self.stop.send_replace(true);
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }
}

impl<T: BusTransport> ClientConnections<T> {
    /// Connection after connection, each on a runtime of its own: what its library keeps queued or running ends with it.
    fn keep_connected(&self, mut stop: watch::Receiver<bool>) {
        let servers = self.transport.servers().max(1);
        let mut backoff = Backoff::new(servers, T::LAST_PAUSE);
        // so that not every node connects to the first server
        let mut server = backoff::random_below(servers);
        while !*stop.borrow() {
            let place = self.transport.place(server);
            let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => {
                    backoff.failed(&place, &format!("cannot start a connection: {error}"));
                    thread::sleep(T::LAST_PAUSE);
                    continue;
                }
            };
            let ended = runtime.block_on(async {
                tokio::select! {
                    ended = self.until_stopped(server, &place, &mut backoff, &mut stop) => ended,
                    () = self.transport.pass_on(|subject| self.state().subjects.contains(&subject)) => None,
                }
            });
            self.down();
            // a thread that still looks a name up is not waited for
            runtime.shutdown_background();
            if let Some(why) = ended {
                backoff.failed(&place, &why);
            }
            server = (server + 1) % servers;
        }
    }

    /// One connection; why it ended, or nothing if it was to end.
    async fn until_stopped(
        &self,
        server: usize,
        place: &str,
        backoff: &mut Backoff,
        stop: &mut watch::Receiver<bool>,
    ) -> Option<String> {
        let mut connection = pin!(self.one_connection(server, place, backoff));
        tokio::select! {
            why = &mut connection => return Some(why),
            _ = stop.wait_for(|stop| *stop) => {}
        }
        let outlet = self.state().outlet.clone();
        if outlet.is_some_and(|outlet| outlet.farewell()) {
            let _ = timeout(FAREWELL, connection).await;
        }
        None
    }

    async fn one_connection(&self, server: usize, place: &str, backoff: &mut Backoff) -> String {
        sleep(backoff.pause()).await;
        let (outlet, mut connection) = match self.transport.open(server).await {
            Ok(opened) => opened,
            Err(why) => return why,
        };
        let outlet = Arc::new(outlet);
        self.state().begin(outlet.clone());
        let session = ConnectionSession { shared: self, outlet, backoff: RefCell::new(Some(backoff)), place };
        let why = tokio::select! {
            why = self.transport.serve(&mut connection, &session) => why,
            why = self.watch(&session.outlet) => why,
        };
        self.down();
        self.transport.close(connection).await;
        why
    }

    /// Returns when the server answers no more.
    async fn watch(&self, outlet: &T::Outlet) -> String {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ticks = 0_u32;
        let mut ticked = Instant::now();
        loop {
            tick.tick().await;
            ticks = ticks.wrapping_add(1);
            let now = Instant::now();
            let stopped = now - ticked > STOPPED;
            ticked = now;
            {
                let mut state = self.state();
                if stopped {
                    state.barrier.extend(now);
                }
                if state.barrier.overdue(now) {
                    if !state.paused {
                        return T::SILENT.to_owned();
                    }
                    state.barrier.refuse(BusError::Full);
                    state.barrier.extend(now);
                }
                if T::PROBES && ticks.is_multiple_of(PROBE) && !state.barrier.is_under_way() {
                    state.begin_round();
                }
            }
            if let Err(why) = outlet.check() {
                return why;
            }
        }
    }

    fn outlet(&self) -> Option<(u32, Arc<T::Outlet>)> {
        self.outlet.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn state(&self) -> MutexGuard<'_, ClientState<T::Outlet>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_up(&self, session: u32, outlet: Arc<T::Outlet>) {
        *self.outlet.write().unwrap_or_else(PoisonError::into_inner) = Some((session, outlet));
        self.metrics.up.set(1);
        self.up.send_replace(true);
    }

    fn not_up(&self) {
        *self.outlet.write().unwrap_or_else(PoisonError::into_inner) = None;
        self.metrics.up.set(0);
        self.up.send_if_modified(std::mem::take);
    }

    /// There is no connection any more, and nobody waits for one that was.
    fn down(&self) {
        self.not_up();
        let outlet = {
            let mut state = self.state();
            state.barrier.down();
            state.outlet.take()
        };
        if let Some(outlet) = outlet {
            outlet.abandon();
        }
    }
}

impl<O: ClientOutlet> ClientState<O> {
    /// Listen to everything over a new connection, and ask whether the server has it.
    fn begin(&mut self, outlet: Arc<O>) {
        for subject in &self.subjects {
            outlet.listen(*subject);
        }
        self.outlet = Some(outlet);
        self.session = self.session.wrapping_add(1);
        self.paused = false;
        self.begin_round();
    }

    fn begin_round(&mut self) {
        if let Some(outlet) = &self.outlet {
            let number = self.barrier.begin();
            if outlet.ping(number) {
                self.barrier.sent(number, Instant::now());
            }
        }
    }
}

impl<T: BusTransport> ConnectionSession<'_, T> {
    /// A ping left: its answer is due from now on.
    pub(super) fn sent(&self, number: u64) {
        self.shared.state().barrier.sent(number, Instant::now());
    }

    /// The server answered a ping: it has everything that went before. The first time, that is all that is listened to, and the
    /// client is up.
    pub(super) fn answered(&self, number: u64) {
        let (answered, session) = {
            let mut state = self.shared.state();
            let answered = state.barrier.answered(number, Instant::now());
            if state.barrier.wants_round() {
                state.begin_round();
            }
            (answered, state.session)
        };
        let Some((took, waited)) = answered else { return };
        if waited {
            self.shared.metrics.confirmed(took);
        }
        if let Some(backoff) = self.backoff.borrow_mut().take() {
            backoff.over(self.place, &self.shared.metrics);
            self.shared.is_up(session, self.outlet.clone());
        }
    }

    pub(super) fn is_listened_to(&self, subject: Subject) -> bool {
        self.shared.state().subjects.contains(&subject)
    }

    /// Nothing is read for a while, or it is read again.
    pub(super) fn pause(&self, paused: bool) {
        let mut state = self.shared.state();
        state.paused = paused;
        if !paused {
            state.barrier.extend(Instant::now());
        }
    }

    /// Nothing can be sent any more, though something may still be read.
    pub(super) fn not_up(&self) {
        self.shared.not_up();
    }

    pub(super) fn metrics(&self) -> &PubSubMetrics {
        &self.shared.metrics
    }
}
