//! A slave's end of the socket. Connects whenever a master is there, and listens anew to everything it listened to.

use std::{
    path::PathBuf,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use rustc_hash::FxHashSet;
use tokio::{
    io::AsyncWriteExt,
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    runtime,
    sync::{oneshot, watch},
    time::{MissedTickBehavior, interval, sleep, timeout, timeout_at},
};
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};
use wellhead_proto::{bus::BusError, ids::NodeId};

use super::{
    exchange::LocalLimits,
    frame::{ToExchange, ToLink, VERSION, codec},
    outbound::{NotTaken, Outbound},
    socket::{self, SocketError},
};
use crate::bus::{
    confirms::{self, Confirms},
    metrics::WireMetrics,
    outage::Outage,
    wire::{Ear, Subject, Wire},
};

/// How long a sender waits for room before it is told that the bus is full.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a caller waits for its confirmation: one round may be under way when it comes.
const CONFIRMATION: Duration = Duration::from_secs(2 * confirms::DEADLINE.as_secs() + 1);
/// How long the master may take to welcome us.
const HANDSHAKE: Duration = Duration::from_secs(2);
/// How long the last frame may take.
const FAREWELL: Duration = Duration::from_secs(2);
/// The longest pause between two tries to connect.
const LAST_PAUSE: Duration = Duration::from_secs(1);
/// How often we look whether all is well.
const TICK: Duration = Duration::from_millis(250);
/// A tick so late means that the whole process was stopped.
const STOPPED: Duration = Duration::from_secs(1);
/// So many ticks between two looks whether the master is alive.
const PROBE: u32 = 4;

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
    async fn send(&self, subject: Subject, message: Bytes) -> Result<(), BusError> {
        debug_assert!(subject != Subject::EverySlot, "only to be listened to");
        let limit = self.shared.limits.message;
        let bytes = message.len();
        if bytes > limit {
            return Err(BusError::TooLarge { limit });
        }
        let out = self.shared.out()?;
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
    /// Where to send, while we are up.
    fn out(&self) -> Result<Arc<Outbound>, BusError> {
        let state = self.state();
        if *self.up.borrow() { state.out.clone().ok_or(BusError::Down) } else { Err(BusError::Down) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn not_up(&self) {
        self.metrics.up.set(0);
        self.up.send_if_modified(std::mem::take);
    }

    async fn keep_connected(&self, mut stop: watch::Receiver<bool>) {
        let place = self.path.display().to_string();
        let mut outage = Outage::new(1, LAST_PAUSE);
        loop {
            let out = Arc::new(Outbound::new(self.limits.queue));
            let ended = self.attempt(&out, &place, &mut outage, &mut stop).await;
            self.not_up();
            {
                let mut state = self.state();
                state.out = None;
                state.confirms.down();
            }
            out.cut_off(ToExchange::Goodbye.frame());
            out.wake();
            match ended {
                Some(why) => outage.failed(&place, &why),
                None => return,
            }
        }
    }

    /// Connect, and stay connected until it breaks; why it did, or nothing when the wire is closed.
    async fn attempt(
        &self,
        out: &Arc<Outbound>,
        place: &str,
        outage: &mut Outage,
        stop: &mut watch::Receiver<bool>,
    ) -> Option<String> {
        let mut attempt = pin!(async {
            sleep(outage.pause()).await;
            match self.greet().await {
                Ok((frames, write)) => self.connection(frames, write, out, || outage.over(place, &self.metrics)).await,
                Err(why) => why,
            }
        });
        tokio::select! {
            why = &mut attempt => return Some(why),
            _ = stop.wait_for(|stop| *stop) => {}
        }
        if self.state().out.is_some() {
            out.push_last(ToExchange::Goodbye.frame());
            let _ = timeout(FAREWELL, attempt).await;
        }
        None
    }

    /// Connect, say who we are, and be welcome.
    async fn greet(&self) -> Result<(Frames, OwnedWriteHalf), String> {
        let hello = async {
            let stream =
                UnixStream::connect(&self.path).await.map_err(|error| format!("no master is there: {error}"))?;
            if !socket::is_one_of_us(&stream).map_err(|error| error.to_string())? {
                return Err("it belongs to another user".to_owned());
            }
            let (read, mut write) = stream.into_split();
            let Hello { node, beat } = self.hello.clone();
            let hello = ToExchange::Hello { version: VERSION, node, beat }.frame();
            let written = async {
                write.write_all(&hello.head).await?;
                write.write_all(&hello.body).await
            };
            written.await.map_err(|error| error.to_string())?;
            let mut frames = FramedRead::new(read, codec(self.limits.message));
            let frame = match frames.next().await {
                Some(Ok(frame)) => frame.freeze(),
                Some(Err(error)) => return Err(error.to_string()),
                None => return Err("the master hung up".to_owned()),
            };
            match ToLink::parse(frame).map_err(|error| error.to_string())? {
                ToLink::Welcome { version: VERSION, payload } => {
                    self.welcome.send_replace(Some(payload));
                    Ok((frames, write))
                }
                ToLink::Welcome { version, .. } => Err(format!(
                    "the master speaks version {version} of the local bus and this slave version {VERSION}; run the \
                     same release"
                )),
                _ => Err("the master did not welcome us".to_owned()),
            }
        };
        timeout(HANDSHAKE, hello).await.unwrap_or_else(|_| Err("the master does not answer".to_owned()))
    }

    /// Listen to everything, then speak and hear until it breaks; why it did. `up` is called once the master has
    /// everything.
    async fn connection(
        &self,
        mut frames: Frames,
        mut write: OwnedWriteHalf,
        out: &Arc<Outbound>,
        up: impl FnOnce(),
    ) -> String {
        {
            let mut state = self.state();
            for subject in &state.subjects {
                out.push_urgent(ToExchange::Listen(*subject).frame());
            }
            state.out = Some(out.clone());
            state.paused = false;
            state.begin_round();
        }
        let write = async {
            match out.write_to(&mut write).await {
                Ok(()) => {
                    let _ = write.shutdown().await;
                    "it was closed".to_owned()
                }
                // what is still to be read may say why: that we were cut off, above all
                Err(_) => {
                    self.not_up();
                    out.cut_off(ToExchange::Goodbye.frame());
                    out.wake();
                    std::future::pending().await
                }
            }
        };
        tokio::select! {
            why = self.hear(&mut frames, up) => why,
            why = self.watch() => why,
            why = write => why,
        }
    }

    async fn hear(&self, frames: &mut Frames, up: impl FnOnce()) -> String {
        let mut up = Some(up);
        loop {
            let frame = match frames.next().await {
                Some(Ok(frame)) => frame.freeze(),
                Some(Err(error)) => return error.to_string(),
                None => return "the master is gone".to_owned(),
            };
            match ToLink::parse(frame) {
                Ok(ToLink::Heard(subject, message)) => {
                    self.metrics.heard(message.len());
                    if !self.ear.has_room() {
                        self.state().paused = true;
                        self.ear.room().await;
                        let mut state = self.state();
                        state.paused = false;
                        state.confirms.extend(Instant::now());
                    }
                    if self.state().subjects.contains(&subject) {
                        self.ear.hear(subject, message);
                    }
                }
                Ok(ToLink::Pong(number)) => {
                    let answered = {
                        let mut state = self.state();
                        let answered = state.confirms.answered(number, Instant::now());
                        if state.confirms.wants_round() {
                            state.begin_round();
                        }
                        answered
                    };
                    let Some((took, waited)) = answered else { continue };
                    if waited {
                        self.metrics.confirmed(took);
                    }
                    if let Some(up) = up.take() {
                        up();
                        self.metrics.up.set(1);
                        self.up.send_replace(true);
                    }
                }
                Ok(ToLink::CutOff) => {
                    self.metrics.gaps.inc();
                    self.ear.gap();
                    return "this node fell behind and was cut off".to_owned();
                }
                Ok(ToLink::Goodbye) => return "the master said goodbye".to_owned(),
                Ok(ToLink::Welcome { .. }) => return "the master said welcome twice".to_owned(),
                Err(error) => return error.to_string(),
            }
        }
    }

    /// Returns when the master answers no more.
    async fn watch(&self) -> String {
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
            let mut state = self.state();
            if stopped {
                state.confirms.extend(now);
            }
            if state.confirms.overdue(now) {
                if !state.paused {
                    return "the master answers no more".to_owned();
                }
                state.confirms.refuse(BusError::Full);
                state.confirms.extend(now);
            }
            if ticks.is_multiple_of(PROBE) && !state.confirms.is_under_way() {
                state.begin_round();
            }
        }
    }
}

type Frames = FramedRead<OwnedReadHalf, LengthDelimitedCodec>;

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
