//! The publishers' side of a job: who pushes what, and when the next.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::Value;

use super::PATIENCE;
use crate::load::{
    engine::Engine,
    job::{Job, LoadWork},
    speech::PushRequest,
    track::{self, LoadClock, Open},
};

/// The publishers, and what they have done.
pub struct Worker<'a> {
    pub(super) job: &'a Job,
    /// Sockets and connections.
    pub engine: Engine,
    /// Requests that were sent.
    pub pushed: u64,
    /// Deliveries that they should cause.
    pub expected: u64,
    /// Replies that were no success.
    pub refused: u64,
    /// The last number that each publisher gave a request.
    pub(super) counts: Vec<u32>,
    /// The next channel.
    next: usize,
}

impl<'a> Worker<'a> {
    /// Nothing is done yet.
    pub fn new(job: &'a Job, engine: Engine, publishers: usize) -> Self {
        Self { job, engine, pushed: 0, expected: 0, refused: 0, counts: vec![0; publishers], next: 0 }
    }

    /// Do the work of the job; what there is to say beyond times and counts.
    pub fn work(&mut self) -> Result<Value> {
        match &self.job.work {
            LoadWork::Idle => {}
            &LoadWork::Rest { seconds } => {
                let until = Instant::now() + Duration::from_secs_f64(seconds);
                while Instant::now() < until {
                    self.engine.turn(until.saturating_duration_since(Instant::now()))?;
                }
            }
            &LoadWork::Windowed { pushes, window, batch } => {
                for publisher in 0..window.min(usize::try_from(pushes)?) {
                    self.push(publisher, batch)?;
                }
                self.run(|worker| {
                    for publisher in std::mem::take(&mut worker.engine.track.done) {
                        if worker.pushed < pushes {
                            worker.push(publisher, batch)?;
                        }
                    }
                    Ok(worker.pushed == pushes && worker.quiet())
                })?;
            }
            &LoadWork::Acknowledged { pushes, publishers } => {
                self.engine.track.clock = LoadClock::None;
                for publisher in 0..publishers {
                    self.push(publisher, 1)?;
                }
                self.run(|worker| {
                    for (publisher, _) in worker.replies() {
                        if worker.pushed < pushes {
                            worker.push(publisher, 1)?;
                        }
                    }
                    Ok(worker.pushed == pushes && worker.engine.track.deliveries >= worker.expected)
                })?;
            }
            &LoadWork::Paced { per_second, pushes } => return self.pace(per_second, pushes),
            &LoadWork::Beside { pushes, per_second } => return self.beside(pushes, per_second),
            LoadWork::Patterns { patterns, times } => return self.patterns(patterns, *times),
            LoadWork::Calls { method, target, body, times } => return self.calls(method, target, body, *times),
        }
        Ok(Value::Null)
    }

    pub(super) fn quiet(&self) -> bool {
        self.engine.track.open.iter().all(Option::is_none)
    }

    pub(super) fn replies(&mut self) -> Vec<(usize, Vec<u8>)> {
        let replies = std::mem::take(&mut self.engine.replies);
        self.refused += replies.iter().filter(|(_, status, _)| !(200..300).contains(status)).count() as u64;
        replies.into_iter().map(|(publisher, _, body)| (publisher, body)).collect()
    }

    /// Turn after turn until `step` says that it is over, or nothing arrives any more.
    fn run(&mut self, mut step: impl FnMut(&mut Self) -> Result<bool>) -> Result<()> {
        let mut progress = (self.engine.track.deliveries, Instant::now());
        loop {
            self.engine.turn(Duration::from_millis(100))?;
            if step(self)? {
                return Ok(());
            }
            self.replies();
            if self.engine.track.deliveries > progress.0 {
                progress = (self.engine.track.deliveries, Instant::now());
            } else if progress.1.elapsed() > PATIENCE {
                return Ok(());
            }
        }
    }

    /// The next push of `publisher`, to the next `batch` channels.
    pub(super) fn push(&mut self, publisher: usize, batch: usize) -> Result<()> {
        let job = self.job;
        let begin = self.next;
        self.next = (self.next + batch) % job.channels;
        if batch == 1 {
            return self.push_to(publisher, begin % job.channels, job.audience());
        }
        let count = self.count(publisher);
        let channels: Vec<_> = (begin..begin + batch).map(|no| track::channel(no % job.channels)).collect();
        let post = self.engine.speech.batch(&channels, &track::data(publisher, count, job.size));
        self.open(publisher, count, batch as u64 * job.audience());
        self.send(publisher, &post)
    }

    pub(super) fn push_to(&mut self, publisher: usize, channel: usize, owed: u64) -> Result<()> {
        let count = self.count(publisher);
        let data = track::data(publisher, count, self.job.size);
        let post = self.engine.speech.push(&track::channel(channel), &data);
        self.open(publisher, count, owed);
        self.send(publisher, &post)
    }

    fn send(&mut self, publisher: usize, post: &PushRequest) -> Result<()> {
        self.engine.publishers[publisher].ask("POST", &post.target, post.body.as_bytes())
    }

    pub(super) fn count(&mut self, publisher: usize) -> u32 {
        self.counts[publisher] += 1;
        self.counts[publisher]
    }

    pub(super) fn open(&mut self, publisher: usize, count: u32, owed: u64) {
        self.pushed += 1;
        self.expected += owed;
        self.engine.track.open[publisher] = Some(Open { since: Instant::now(), count, owed, unanswered: true });
    }
}
