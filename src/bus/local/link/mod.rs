//! A slave's end of the socket. Connects whenever a master is there, and listens anew to everything it listened to.

mod connection;

use std::{
    path::PathBuf,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Instant,
};

use async_trait::async_trait;
use bytes::Bytes;
use rustc_hash::FxHashSet;
use tokio::{
    runtime,
    sync::{oneshot, watch},
    time::{timeout, timeout_at},
};
use wellhead_proto::{bus::BusError, ids::NodeId};

use super::{
    exchange::LocalLimits,
    frame::ToExchange,
    outbound::{NotTaken, Outbound},
    socket::{self, SocketError},
};
use crate::bus::{
    confirms::{CONFIRMATION, Confirms, PATIENCE},
    metrics::WireMetrics,
    wire::{Ear, Subject, Wire},
};

/// Who we are.
#[derive(Clone, Debug)]
pub struct Hello {
    /// Our node.
    pub node: NodeId,
    /// What the master is to know of it.
    pub beat: Bytes,
}

/// A slave's end of the socket.
pub struct Link {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    ended: watch::Receiver<bool>,
}

struct Shared {
    path: PathBuf,
    hello: Hello,
    limits: LocalLimits,
    ear: Arc<dyn Ear>,
    metrics: WireMetrics,
    state: Mutex<State>,
    up: watch::Sender<bool>,
    welcome: watch::Sender<Option<Bytes>>,
}

#[derive(Default)]
struct State {
    subjects: FxHashSet<Subject>,
    /// There while we are connected.
    out: Option<Arc<Outbound>>,
    /// Counts the connections.
    session: u32,
    confirms: Confirms,
    /// The ear has no room, so nothing is read, confirmations neither.
    paused: bool,
}

impl Link {
    /// Connect to the master that owns the socket at `path`, now and whenever the connection is lost, for ever. The
    /// receiver holds what the latest master gave us.
    ///
    /// # Errors
    ///
    /// `path` cannot be a socket, or the system gives us no thread.
    pub fn connect(
        path: PathBuf,
        hello: Hello,
        limits: LocalLimits,
        ear: Arc<dyn Ear>,
        metrics: WireMetrics,
    ) -> Result<(Arc<Self>, watch::Receiver<Option<Bytes>>), SocketError> {
        socket::check(&path)?;
        let (welcome, welcomed) = watch::channel(None);
        let shared = Arc::new(Shared {
            path,
            hello,
            limits,
            ear,
            metrics,
            state: Mutex::default(),
            up: watch::Sender::new(false),
            welcome,
        });
        let io = |error| SocketError::Io { path: shared.path.clone(), error };
        let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(io)?;
        let (stop, stopped) = watch::channel(false);
        let (ended_sender, ended) = watch::channel(false);
        let keeper = shared.clone();
        let keep = move || {
            runtime.block_on(keeper.keep_connected(stopped));
            ended_sender.send_replace(true);
        };
        thread::Builder::new().name("bus".to_owned()).spawn(keep).map_err(io)?;
        Ok((Arc::new(Self { shared, stop, ended }), welcomed))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

#[async_trait]
impl Wire for Link {
    fn session(&self) -> Option<u32> {
        self.shared.out().ok().map(|(session, _)| session)
    }

    async fn send_in(&self, session: u32, subject: Subject, message: Bytes) -> Result<(), BusError> {
        debug_assert!(subject != Subject::EverySlot, "only to be listened to");
        let limit = self.shared.limits.message;
        let bytes = message.len();
        if bytes > limit {
            return Err(BusError::TooLarge { limit });
        }
        let (up, out) = self.shared.out()?;
        if up != session {
            return Err(BusError::Down);
        }
        let frame = ToExchange::Send(subject, message).frame();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let mut emptied = pin!(out.emptied());
            emptied.as_mut().enable();
            match out.push(frame.clone()) {
                Ok(()) => {
                    self.shared.metrics.sent(bytes);
                    return Ok(());
                }
                Err(NotTaken::Ended) => return Err(BusError::Down),
                Err(NotTaken::Full) => timeout_at(deadline, emptied).await.map_err(|_| BusError::Full)?,
            }
        }
    }

    fn listen(&self, subject: Subject) {
        let mut state = self.shared.state();
        if state.subjects.insert(subject) {
            state.say(ToExchange::Listen(subject));
            self.shared.metrics.listens_to(state.subjects.len());
        }
    }

    fn unlisten(&self, subject: Subject) {
        let mut state = self.shared.state();
        if state.subjects.remove(&subject) {
            state.say(ToExchange::Unlisten(subject));
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
            state.confirms.ask(waiter);
            if state.confirms.wants_round() {
                state.begin_round();
            }
        }
        match timeout(CONFIRMATION, confirmed).await {
            Ok(Ok(confirmed)) => confirmed,
            Ok(Err(_)) => Err(BusError::Down),
            Err(_) => Err(BusError::Full),
        }
    }

    fn max_message(&self) -> Option<usize> {
        Some(self.shared.limits.message)
    }

    fn is_served_by_a_node(&self) -> bool {
        true
    }

    fn state(&self) -> watch::Receiver<bool> {
        self.shared.up.subscribe()
    }

    async fn close(&self) {
        self.shared.not_up();
        self.stop.send_replace(true);
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }
}

impl Shared {
    /// Where to send, while we are up, and over which connection that is.
    fn out(&self) -> Result<(u32, Arc<Outbound>), BusError> {
        let state = self.state();
        let out = state.out.clone().filter(|_| *self.up.borrow());
        out.map(|out| (state.session, out)).ok_or(BusError::Down)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn not_up(&self) {
        self.metrics.up.set(0);
        self.up.send_if_modified(std::mem::take);
    }
}

impl State {
    fn say(&self, what: ToExchange) {
        if let Some(out) = &self.out {
            out.push_urgent(what.frame());
        }
    }

    fn begin_round(&mut self) {
        if self.out.is_some() {
            let number = self.confirms.begin(Instant::now());
            self.say(ToExchange::Ping(number));
        }
    }
}
