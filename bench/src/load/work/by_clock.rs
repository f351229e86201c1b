//! Pushes that are due at fixed times.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use anyhow::Result;
use serde_json::{Value, json};

use super::{PACERS, PATIENCE, worker::Worker};
use crate::{histogram::Histogram, load::track::LoadClock};

impl Worker<'_> {
    /// Pushes by the clock: what is late is late for those who wait, too.
    pub(super) fn pace(&mut self, per_second: f64, pushes: u64) -> Result<Value> {
        let every = Duration::from_secs_f64(1.0 / per_second);
        // one publisher's number for all, so that the number of a push says when it was due
        let start = Instant::now() + every;
        self.engine.track.clock = LoadClock::Due { start, every };
        // in turns: a connection on which nothing is asked for long is closed
        let mut free: VecDeque<usize> = (0..PACERS).collect();
        let mut progress = (0, Instant::now());
        while self.engine.track.deliveries < self.expected || self.pushed < pushes {
            let now = Instant::now();
            let passed = now.saturating_duration_since(start).as_secs_f64() * per_second;
            // the first is due at the start
            let due = if now < start { 0 } else { passed as u64 + 1 };
            while self.pushed < pushes.min(due)
                && let Some(publisher) = free.pop_front()
            {
                let count = u32::try_from(self.pushed + 1)?;
                self.counts[publisher] = count - 1;
                self.push(publisher, 1)?;
            }
            let next = start + Duration::from_secs_f64(self.pushed as f64 / per_second);
            let wait = if self.pushed < pushes && !free.is_empty() {
                next.saturating_duration_since(Instant::now())
            } else {
                Duration::from_millis(20)
            };
            // the kernel waits in whole milliseconds
            self.engine.turn(Duration::from_millis(u64::try_from(wait.as_millis())?))?;
            free.extend(self.replies().into_iter().map(|(publisher, _)| publisher));
            if self.engine.track.deliveries > progress.0 {
                progress = (self.engine.track.deliveries, Instant::now());
            } else if progress.1.elapsed() > PATIENCE {
                break;
            }
        }
        Ok(Value::Null)
    }

    pub(super) fn beside(&mut self, pushes: u64, per_second: f64) -> Result<Value> {
        let every = Duration::from_secs_f64(1.0 / per_second);
        self.engine.track.beside = Some(Histogram::default());
        let everybody = self.job.sockets as u64;
        let (mut large, mut small) = (1, 0_u64);
        self.push_to(0, 0, everybody)?;
        let mut due = Instant::now();
        let mut answers = Histogram::default();
        let mut progress = (0, Instant::now());
        while large < pushes || !self.quiet() {
            let now = Instant::now();
            if now >= due && large < pushes && self.engine.track.open[1].is_none() {
                // the channel of the one socket that is looked at first
                self.push_to(1, self.job.sockets, 1)?;
                small += 1;
                due = (due + every).max(now);
            }
            let wait = due.saturating_duration_since(now).min(Duration::from_millis(20));
            self.engine.turn(Duration::from_millis(u64::try_from(wait.as_millis())?))?;
            let since = self.engine.track.open[1].map(|open| open.since);
            for (publisher, _) in self.replies() {
                if let (1, Some(since)) = (publisher, since) {
                    answers.note(since.elapsed());
                }
            }
            for publisher in std::mem::take(&mut self.engine.track.done) {
                if publisher == 0 && large < pushes {
                    self.push_to(0, 0, everybody)?;
                    large += 1;
                }
            }
            if self.engine.track.deliveries > progress.0 {
                progress = (self.engine.track.deliveries, Instant::now());
            } else if progress.1.elapsed() > PATIENCE {
                break;
            }
        }
        let beside = self.engine.track.beside.take().map(|beside| beside.report());
        Ok(json!({ "small_pushes": small, "delivered": beside, "answered_first": answers.report() }))
    }
}
