//! From one connection to the next: when to try again, and what is logged about it. Each cause is logged once until the
//! bus is back.

use std::{collections::hash_map::RandomState, hash::BuildHasher, mem, time::Duration};

use log::{info, warn};
use rustc_hash::FxHashSet;

use super::metrics::PubSubMetrics;

/// The pause before the second consecutive try; it doubles from there.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Causes that are said in one backoff. Some hold numbers and never repeat.
const SAID: usize = 8;

pub(super) struct Backoff {
    /// How many servers there are, to be tried one after the other without a pause.
    servers: u32,
    last_pause: Duration,
    /// Since we were connected.
    tries: u32,
    connected: bool,
    ever_connected: bool,
    said: FxHashSet<String>,
}

impl Backoff {
    pub(super) fn new(servers: usize, last_pause: Duration) -> Self {
        Self {
            servers: u32::try_from(servers.max(1)).unwrap_or(u32::MAX),
            last_pause,
            tries: 0,
            connected: false,
            ever_connected: false,
            said: FxHashSet::default(),
        }
    }

    /// How long to wait before the next try.
    pub(super) fn pause(&mut self) -> Duration {
        let tries = self.tries;
        self.tries = tries.saturating_add(1);
        if !tries.is_multiple_of(self.servers) || (tries == 0 && !self.ever_connected) {
            return Duration::ZERO;
        }
        let rounds = (tries / self.servers).min(10);
        let longest = FIRST_PAUSE.saturating_mul(1 << rounds).min(self.last_pause);
        // up to half less: not every node comes back at the same moment
        longest - longest.mul_f64(0.5 * random_below(1_000) as f64 / 1_000.0)
    }

    /// A try, or a connection, ended.
    pub(super) fn failed(&mut self, place: &str, why: &str) {
        if mem::take(&mut self.connected) {
            warn!(place, error = why; "the bus is down: {place}: {why}; connecting until it is back");
            self.said.insert(why.to_owned());
        } else if self.said.len() < SAID && self.said.insert(why.to_owned()) {
            warn!(place, error = why; "no bus: {place}: {why}; trying until it is there");
        }
    }

    /// We are connected.
    pub(super) fn over(&mut self, place: &str, metrics: &PubSubMetrics) {
        if self.ever_connected {
            metrics.reconnects.inc();
        }
        info!(place; "the bus is up: {place}");
        self.said.clear();
        self.tries = 0;
        self.connected = true;
        self.ever_connected = true;
    }
}

/// Good enough to spread nodes over servers and time.
pub(super) fn random_below(bound: usize) -> usize {
    (RandomState::new().hash_one(0) % bound.max(1) as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_tried_in_turn_and_then_after_a_growing_pause() {
        let last_pause = Duration::from_secs(2);
        let mut backoff = Backoff::new(2, last_pause);
        assert_eq!([backoff.pause(), backoff.pause()], [Duration::ZERO; 2]);
        let pause = backoff.pause();
        assert!(pause >= FIRST_PAUSE && pause <= 2 * FIRST_PAUSE, "{pause:?}");
        for _ in 0..201 {
            backoff.pause();
        }
        let pause = backoff.pause();
        assert!(pause >= last_pause / 2 && pause <= last_pause, "{pause:?}");
        backoff.over("a", &PubSubMetrics::default());
        let pause = backoff.pause();
        assert!(pause >= FIRST_PAUSE / 2 && pause <= FIRST_PAUSE, "{pause:?}");
    }
}
