//! One connection after the other to whatever master is there: its greeting, what is said and heard, its end.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use tokio::{
    io::AsyncWriteExt,
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};
use wellhead_proto::bus::BusError;

use super::{Hello, Shared};
use crate::bus::{
    local::{
        frame::{ToExchange, ToLink, VERSION, codec},
        outbound::Outbound,
        socket,
    },
    outage::Outage,
};

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

type Frames = FramedRead<OwnedReadHalf, LengthDelimitedCodec>;

impl Shared {
    pub(super) async fn keep_connected(&self, mut stop: watch::Receiver<bool>) {
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
            self.ear.interrupted();
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
            state.session = state.session.wrapping_add(1);
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
