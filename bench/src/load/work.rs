//! Carries out a job, and says what it took.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::{
    engine::Engine,
    http::Http,
    job::{Job, Tokens, Work},
    track::{self, Clock, Open, Track},
};
use crate::{
    histogram::Histogram,
    proc::{self, Cpu},
};

/// So long nothing may arrive before a job gives up.
const PATIENCE: Duration = Duration::from_secs(15);
/// Connections that pushes by the clock take turns on.
const PACERS: usize = 8;

/// Do a job.
pub fn carry_out(job: Job) -> Result<Value> {
    let (publishers, urgent) = match &job.work {
        Work::Idle => (0, 0),
        Work::Windowed { window, .. } => (*window, 0),
        Work::Acknowledged { publishers, .. } => (*publishers, 0),
        Work::Paced { .. } => (PACERS, 0),
        Work::Beside { .. } => (2, 1),
        Work::Patterns { .. } => (1, 0),
    };
    ensure!(publishers < 100, "a frame has two digits for its publisher");
    let token = match &job.tokens {
        Tokens::Shared(jwt) => exchange(&job, jwt)?,
        _ => String::new(),
    };
    let all = job.sockets + urgent + job.stuck;
    let urgent_from = if urgent == 0 { usize::MAX } else { job.sockets };
    let mut engine = Engine::new(Track::new(all, publishers.max(1), job.size), urgent_from)?;
    for _ in 0..publishers {
        engine.add_publisher(job.master)?;
    }

    let before = proc::rss(&job.pids, false)?;
    let mut meter = Meter::start(&job)?;
    engine.open(&job, &token, job.sockets, false)?;
    let connect = meter.lap(&job)?;
    if urgent > 0 {
        let beside = Job { channels: usize::MAX, ..job.clone() };
        engine.open(&beside, &token, urgent, false)?;
    }
    engine.open(&job, &token, job.stuck, true)?;
    engine.forget_from(job.sockets + urgent)?;
    let settled = Instant::now() + Duration::from_millis(if matches!(job.work, Work::Idle) { 3000 } else { 300 });
    while Instant::now() < settled {
        engine.turn(Duration::from_millis(50))?;
    }
    let open = proc::rss(&job.pids, false)?;

    let mut worker =
        Worker { job: &job, engine, pushed: 0, expected: 0, refused: 0, counts: vec![0; publishers], next: 0 };
    meter = Meter::start(&job)?;
    let extra = worker.work()?;
    let work = meter.lap(&job)?;
    let Worker { mut engine, pushed, expected, refused, .. } = worker;
    let stuck_closed = if job.stuck > 0 { engine.gone_unread(job.sockets + urgent) } else { 0 };
    let track = &engine.track;
    Ok(json!({
        "sockets": job.sockets,
        "connect": connect.merged(json!({ "latency": engine.opening.report() })),
        "memory": {
            "before_kib": before,
            "open_kib": open,
            "after_kib": proc::rss(&job.pids, false)?,
            "highest_kib": proc::rss(&job.pids, true)?,
        },
        "work": work.merged(json!({
            "pushes": pushed,
            "deliveries": track.deliveries,
            "bytes": track.bytes,
            "latency": track.latency.report(),
        })),
        "extra": extra,
        "lost": expected.saturating_sub(track.deliveries),
        "wrong": track.wrong,
        "example": track.example,
        "closed": engine.gone(job.sockets),
        "stuck_closed": stuck_closed,
        "refused": refused,
    }))
}

/// The token in the body of a reply to `/v1/auth`.
pub fn token_of(body: &[u8]) -> Result<String> {
    let body: Value = serde_json::from_slice(body)?;
    Ok(body["token"].as_str().context("a token is a string")?.to_owned())
}

fn exchange(job: &Job, jwt: &str) -> Result<String> {
    let mut http = Http::connect(job.slave)?;
    http.post("/v1/auth", format!("{{\"jwt\":\"{jwt}\"}}").as_bytes())?;
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        if let Some((status, body)) = http.reply()? {
            ensure!(status == 200, "no token: {status}");
            return token_of(&body);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    bail!("no answer to an exchange of tokens")
}

/// Time and processor time since it was started.
struct Meter {
    at: Instant,
    servers: Cpu,
    own: Cpu,
}

impl Meter {
    fn start(job: &Job) -> Result<Self> {
        Ok(Self { at: Instant::now(), servers: proc::cpu(&job.pids)?, own: proc::cpu(&[std::process::id()])? })
    }

    fn lap(&self, job: &Job) -> Result<Lap> {
        Ok(Lap {
            seconds: self.at.elapsed().as_secs_f64(),
            servers: proc::cpu(&job.pids)? - self.servers,
            own: proc::cpu(&[std::process::id()])? - self.own,
        })
    }
}

struct Lap {
    seconds: f64,
    servers: Cpu,
    own: Cpu,
}

impl Lap {
    fn merged(&self, mut with: Value) -> Value {
        with["seconds"] = json!(self.seconds);
        with["cpu"] = json!(self.servers);
        with["generator_cpu"] = json!(self.own.total());
        with
    }
}

struct Worker<'a> {
    job: &'a Job,
    engine: Engine,
    pushed: u64,
    expected: u64,
    refused: u64,
    /// The last number that each publisher gave a request.
    counts: Vec<u32>,
    /// The next channel.
    next: usize,
}

impl Worker<'_> {
    fn work(&mut self) -> Result<Value> {
        match &self.job.work {
            Work::Idle => {}
            &Work::Windowed { pushes, window, batch } => {
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
            &Work::Acknowledged { pushes, publishers } => {
                self.engine.track.clock = Clock::None;
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
            &Work::Paced { per_second, pushes } => return self.pace(per_second, pushes),
            &Work::Beside { pushes, per_second } => return self.beside(pushes, per_second),
            Work::Patterns { patterns, times } => return self.patterns(patterns, *times),
        }
        Ok(Value::Null)
    }

    fn quiet(&self) -> bool {
        self.engine.track.open.iter().all(Option::is_none)
    }

    fn replies(&mut self) -> Vec<(usize, Vec<u8>)> {
        let replies = std::mem::take(&mut self.engine.replies);
        self.refused += replies.iter().filter(|(_, status, _)| *status != 200).count() as u64;
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
    fn push(&mut self, publisher: usize, batch: usize) -> Result<()> {
        let job = self.job;
        let begin = self.next;
        self.next = (self.next + batch) % job.channels;
        let channels = (begin..begin + batch).map(|no| no % job.channels);
        if batch == 1 {
            return self.push_to(publisher, begin % job.channels, (job.sockets / job.channels) as u64);
        }
        let count = self.count(publisher);
        let data = track::data(publisher, count, job.size);
        let messages: Vec<_> = channels.map(|no| track::frame(&track::channel(no), &data)).collect();
        let owed = (batch * job.sockets / job.channels) as u64;
        self.open(publisher, count, owed);
        self.engine.publishers[publisher]
            .post("/v1/apps/bench/messages/batch", format!("[{}]", messages.join(",")).as_bytes())
    }

    fn push_to(&mut self, publisher: usize, channel: usize, owed: u64) -> Result<()> {
        let count = self.count(publisher);
        let channel = track::channel(channel);
        let data = track::data(publisher, count, self.job.size);
        let body =
            if self.job.raw { track::frame(&channel, &data) } else { format!("{{\"event\":\"m\",\"data\":{data}}}") };
        self.open(publisher, count, owed);
        self.engine.publishers[publisher].post(&format!("/v1/apps/bench/channels/{channel}/messages"), body.as_bytes())
    }

    fn count(&mut self, publisher: usize) -> u32 {
        self.counts[publisher] += 1;
        self.counts[publisher]
    }

    fn open(&mut self, publisher: usize, count: u32, owed: u64) {
        self.pushed += 1;
        self.expected += owed;
        self.engine.track.open[publisher] = Some(Open { since: Instant::now(), count, owed, unanswered: true });
    }

    /// Pushes by the clock: what is late is late for those who wait, too.
    fn pace(&mut self, per_second: f64, pushes: u64) -> Result<Value> {
        let every = Duration::from_secs_f64(1.0 / per_second);
        // one publisher's number for all, so that the number of a push says when it was due
        let start = Instant::now() + every;
        self.engine.track.clock = Clock::Due { start, every };
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

    fn beside(&mut self, pushes: u64, per_second: f64) -> Result<Value> {
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

    fn patterns(&mut self, patterns: &[String], times: u64) -> Result<Value> {
        self.engine.track.clock = Clock::None;
        let mut reports = Vec::new();
        for pattern in patterns {
            let mut latency = Histogram::default();
            let mut total = Value::Null;
            for _ in 0..times {
                let count = self.count(0);
                let data = track::data(0, count, self.job.size);
                let body = json!({ "channel_pattern": pattern, "event": "m" }).to_string();
                let body = format!("{},\"data\":{data}}}", body.trim_end_matches('}'));
                let since = Instant::now();
                self.pushed += 1;
                self.engine.publishers[0].post("/v1/apps/bench/messages", body.as_bytes())?;
                let until = since + PATIENCE;
                let answer = loop {
                    self.engine.turn(Duration::from_millis(100))?;
                    if let Some((_, answer)) = self.replies().pop() {
                        break answer;
                    }
                    ensure!(Instant::now() < until, "no answer to a pattern push");
                };
                latency.note(since.elapsed());
                total = serde_json::from_slice::<Value>(&answer).unwrap_or(Value::Null)["total"].take();
            }
            reports.push(json!({ "pattern": pattern, "total": total, "latency": latency.report() }));
        }
        Ok(json!(reports))
    }
}
