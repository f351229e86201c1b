//! When a socket is pinged, and when it counts as dead or idle. Pure: counted in beats, which `heartbeat` gives.

use std::time::Duration;

use crate::settings::{Limits, Settings};

/// Between two beats. Everything below is counted in beats.
pub const BEAT: Duration = Duration::from_secs(1);

/// When a socket is pinged and how long it may stay silent.
#[derive(Clone, Copy, Debug)]
pub struct Rhythm {
    ping: u32,
    pong: u32,
    idle: Option<u32>,
    /// Beats that a socket may be behind.
    pub stall: u32,
}

/// What the heart knows of one socket.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pulse {
    /// Beats since the last ping.
    since_ping: u32,
    /// The last ping has not been answered.
    unanswered: bool,
    /// Beats since the client last asked for something or had a subscription.
    idle: u32,
}

impl Rhythm {
    /// The rhythm that the settings ask for, in whole beats.
    #[must_use]
    pub fn new(settings: &Settings, limits: &Limits) -> Self {
        let beats = |span: Duration| span.as_secs_f64().div_euclid(BEAT.as_secs_f64()).max(1.0) as u32;
        Self {
            ping: beats(settings.ping_interval.0),
            pong: beats(settings.pong_timeout.0),
            idle: (!settings.idle_timeout.0.is_zero()).then(|| beats(settings.idle_timeout.0)),
            stall: beats(limits.stall.0),
        }
    }
}

/// What a beat asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Nothing.
    Well,
    /// A ping.
    Ping,
    /// An end: no answer to a ping in time.
    Dead,
    /// An end: nothing was asked for in time.
    Idle,
}

impl Pulse {
    /// One beat: `heard` of the client since the last, and does it hold a subscription?
    pub fn beat(&mut self, heard: bool, subscribed: bool, rhythm: &Rhythm) -> Verdict {
        self.since_ping += 1;
        if heard {
            self.unanswered = false;
        }
        self.idle = if subscribed { 0 } else { self.idle + 1 };
        if self.unanswered && self.since_ping >= rhythm.pong {
            return Verdict::Dead;
        }
        if rhythm.idle.is_some_and(|most| self.idle >= most) {
            return Verdict::Idle;
        }
        if self.since_ping >= rhythm.ping {
            (self.since_ping, self.unanswered) = (0, true);
            return Verdict::Ping;
        }
        Verdict::Well
    }

    /// The client asked for something.
    pub fn note_action(&mut self) {
        self.idle = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RHYTHM: Rhythm = Rhythm { ping: 5, pong: 2, idle: None, stall: 30 };

    fn beats(pulse: &mut Pulse, heard: &[bool], rhythm: &Rhythm) -> Vec<Verdict> {
        heard.iter().map(|&heard| pulse.beat(heard, false, rhythm)).collect()
    }

    #[test]
    fn who_answers_pings_lives() {
        use Verdict::{Ping, Well};
        let mut pulse = Pulse::default();
        let heard = [false, false, false, false, false, true, false, false, false, false, true];
        let expected = [Well, Well, Well, Well, Ping, Well, Well, Well, Well, Ping, Well];
        assert_eq!(beats(&mut pulse, &heard, &RHYTHM), expected);
    }

    #[test]
    fn who_does_not_is_dead_after_the_timeout() {
        use Verdict::{Dead, Ping, Well};
        let mut pulse = Pulse::default();
        // what came before the ping is no answer to it
        let heard = [true, true, true, true, true, false, false];
        assert_eq!(beats(&mut pulse, &heard, &RHYTHM), [Well, Well, Well, Well, Ping, Well, Dead]);
    }

    #[test]
    fn only_who_neither_asks_nor_subscribes_is_idle() {
        let rhythm = Rhythm { idle: Some(3), ping: 100, ..RHYTHM };
        let mut pulse = Pulse::default();
        assert_eq!(pulse.beat(false, true, &rhythm), Verdict::Well);
        assert_eq!(beats(&mut pulse, &[false, false], &rhythm), [Verdict::Well, Verdict::Well]);
        pulse.note_action();
        assert_eq!(beats(&mut pulse, &[true, true, true], &rhythm), [Verdict::Well, Verdict::Well, Verdict::Idle]);
    }

    #[test]
    fn spans_become_whole_beats() {
        let rhythm = Rhythm::new(&Settings::default(), &Limits::default());
        assert_eq!((rhythm.ping, rhythm.pong, rhythm.idle, rhythm.stall), (54, 10, None, 30));
    }
}
