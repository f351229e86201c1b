//! When a socket is pinged, and when it counts as dead, idle or stuck. Pure: it looks at the time that `heartbeat` gives
//! it and counts no ticks. A thread that stood still has read nothing meanwhile, so what it missed is held against nobody:
//! every span begins anew when it goes on.

use std::{num::NonZeroU32, time::Duration};

use crate::settings::{Limits, Settings};

/// Between two ticks.
pub const BEAT: Duration = Duration::from_secs(1);
/// A beat that comes so long after the one before means that the thread stood still.
const STOOD_STILL: Duration = Duration::from_secs(2);

/// A point in time, in tenths of a second since the thread began: each socket holds some, so they are small.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Moment(NonZeroU32);

impl Moment {
    /// The first.
    pub const FIRST: Self = Self(NonZeroU32::MIN);

    /// So long after the thread began.
    #[must_use]
    pub fn at(since_start: Duration) -> Self {
        Self(NonZeroU32::MIN.saturating_add(tenths(since_start)))
    }

    /// Tenths of a second since `earlier`.
    fn since(self, earlier: Self) -> u32 {
        self.0.get().saturating_sub(earlier.0.get())
    }

    /// One beat before.
    fn one_beat_earlier(self) -> Self {
        Self(NonZeroU32::new(self.0.get().saturating_sub(tenths(BEAT))).unwrap_or(NonZeroU32::MIN))
    }
}

/// Whole tenths of a second: ticks are at least [`BEAT`] apart, and stay so when both ends are cut off alike.
pub fn tenths(span: Duration) -> u32 {
    u32::try_from(span.as_millis() / 100).unwrap_or(u32::MAX - 1)
}

/// What a tick knows of the time.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// When it is.
    pub at: Moment,
    /// Since when the thread has not stood still.
    pub awake_since: Moment,
}

impl Now {
    /// Has `span` passed since `earlier`, without standing still?
    pub fn is_after(self, span: u32, earlier: Moment) -> bool {
        self.at.since(earlier.max(self.awake_since)) >= span
    }
}

/// The time of one thread, beat by beat.
#[derive(Debug)]
pub struct ThreadClock {
    last: Duration,
    awake_since: Moment,
}

impl Default for ThreadClock {
    fn default() -> Self {
        Self { last: Duration::ZERO, awake_since: Moment::FIRST }
    }
}

impl ThreadClock {
    /// A beat, so long after the thread began.
    pub fn tick(&mut self, since_start: Duration) -> Now {
        let at = Moment::at(since_start);
        if since_start.saturating_sub(self.last) >= STOOD_STILL {
            self.awake_since = at;
        }
        self.last = since_start;
        Now { at, awake_since: self.awake_since }
    }
}

/// When a socket is pinged and how long it may stay silent or behind. In tenths of a second.
#[derive(Clone, Copy, Debug)]
pub struct KeepAliveConfig {
    ping: u32,
    pong: u32,
    idle: Option<u32>,
    /// A client that sends nothing for so long is idle, whatever it subscribes to, and is not pinged.
    silence: Option<u32>,
    stall: u32,
}

impl KeepAliveConfig {
    /// As the settings say.
    #[must_use]
    pub fn new(settings: &Settings, limits: &Limits) -> Self {
        Self {
            ping: tenths(settings.ping_interval.0),
            pong: tenths(settings.pong_timeout.0),
            idle: (!settings.idle_timeout.0.is_zero()).then(|| tenths(settings.idle_timeout.0)),
            silence: None,
            stall: tenths(limits.stall.0),
        }
    }

    /// The same for clients that may be silent for so long, if their dialect has such a rule.
    #[must_use]
    pub fn with_silence(self, most: Option<Duration>) -> Self {
        Self { silence: most.map(tenths), ..self }
    }

    /// Has a socket that has been behind since then been so for too long?
    #[must_use]
    pub fn is_stalled(&self, now: Now, behind_since: Moment) -> bool {
        now.is_after(self.stall, behind_since)
    }
}

/// What the heartbeat knows of one socket.
#[derive(Clone, Copy, Debug)]
pub struct KeepAlive {
    /// When it was last pinged; when it came, if it was not.
    pinged: Moment,
    /// The beat that last saw that the client had asked for something, or that it held a subscription.
    active: Moment,
    /// The last ping has not been answered.
    unanswered: bool,
    /// The client has asked for something since the last tick.
    acted: bool,
    /// No tick has seen it yet.
    new: bool,
}

impl Default for KeepAlive {
    fn default() -> Self {
        Self { pinged: Moment::FIRST, active: Moment::FIRST, unanswered: false, acted: true, new: true }
    }
}

/// What a tick asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeepAliveVerdict {
    /// Nothing.
    Well,
    /// A ping.
    Ping,
    /// An end: no answer to a ping in time, unless one waits to be read.
    Dead,
    /// An end: nothing was asked for in time.
    Idle,
}

impl KeepAlive {
    /// One tick: has the client shown itself since the last (`heard`), and does it hold a subscription?
    pub fn tick(&mut self, now: Now, heard: bool, subscribed: bool, config: &KeepAliveConfig) -> KeepAliveVerdict {
        if std::mem::take(&mut self.new) {
            // it came since the last tick: a ping may be early, never late
            self.pinged = now.at.one_beat_earlier();
        }
        if let Some(most) = config.silence {
            if std::mem::take(&mut self.acted) || heard {
                self.active = now.at;
            }
            return if now.is_after(most, self.active) { KeepAliveVerdict::Idle } else { KeepAliveVerdict::Well };
        }
        if heard {
            self.unanswered = false;
        }
        if std::mem::take(&mut self.acted) || subscribed {
            self.active = now.at;
        }
        if self.unanswered && now.is_after(config.pong, self.pinged) {
            return KeepAliveVerdict::Dead;
        }
        if config.idle.is_some_and(|most| now.is_after(most, self.active)) {
            return KeepAliveVerdict::Idle;
        }
        // one that is unanswered is waited for, however short the interval is: another would only move its end
        if !self.unanswered && now.at.since(self.pinged) >= config.ping {
            (self.pinged, self.unanswered) = (now.at, true);
            return KeepAliveVerdict::Ping;
        }
        KeepAliveVerdict::Well
    }

    /// The client asked for something.
    pub fn note_action(&mut self) {
        self.acted = true;
    }

    /// The client is there after all: something of it waits to be read.
    pub fn is_alive(&mut self) {
        self.unanswered = false;
    }
}

#[cfg(test)]
mod tests;
