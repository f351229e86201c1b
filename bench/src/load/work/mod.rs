//! Carries out a job, and says what it took.

mod by_clock;
mod calls;
mod meter;
mod worker;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};

use self::{meter::Meter, worker::Worker};
use super::{
    engine::Engine,
    http::{self, LoadHttp},
    job::{Job, LoadWork, TokenSource},
    track::Track,
};
use crate::{metrics, proc};

/// So long nothing may arrive before a job gives up.
const PATIENCE: Duration = Duration::from_secs(15);
/// Connections that pushes by the clock take turns on.
const PACERS: usize = 8;

const CHANNELS_OF_A_BYSTANDER: usize = 500;

/// Do a job.
pub fn carry_out(job: Job) -> Result<Value> {
    let (publishers, urgent) = match &job.work {
        LoadWork::Idle | LoadWork::Rest { .. } => (0, 0),
        LoadWork::Windowed { window, .. } => (*window, 0),
        LoadWork::Acknowledged { publishers, .. } => (*publishers, 0),
        LoadWork::Paced { .. } => (PACERS, 0),
        LoadWork::Beside { .. } => (2, 1),
        LoadWork::Patterns { .. } | LoadWork::Calls { .. } => (1, 0),
    };
    ensure!(publishers < 100, "a frame has two digits for its publisher");
    let token = match &job.tokens {
        TokenSource::Given(token) => token.clone(),
        TokenSource::Shared(jwt) => exchange(&job, jwt)?,
        TokenSource::None | TokenSource::Each(_) => String::new(),
    };
    let read = job.sockets + urgent + job.bystanders;
    let urgent_from = if urgent == 0 { usize::MAX } else { job.sockets };
    let speech = job.protocol.speech();
    let track = Track::new(read + job.stuck, publishers.max(1), job.size, speech.layout());
    let mut engine = Engine::new(speech, track, urgent_from)?;

    let (before, slab_before) = (resident(&job)?, proc::slab());
    let mut meter = Meter::start(&job)?;
    engine.open(&job, &token, job.sockets, false)?;
    let connect = meter.lap(&job, json!({ "latency": engine.opening.report() }))?;
    if urgent > 0 {
        let beside = Job { channels: usize::MAX, ..job.clone() };
        engine.open(&beside, &token, urgent, false)?;
    }
    if let Some(&last) = job.slaves.last() {
        let bystander = Job { slaves: vec![last], subscriptions: CHANNELS_OF_A_BYSTANDER, ..job.clone() };
        engine.open(&bystander, &token, job.bystanders, false)?;
    }
    engine.open(&job, &token, job.stuck, true)?;
    engine.forget_from(read)?;
    let settled = Instant::now() + Duration::from_millis(if matches!(job.work, LoadWork::Idle) { 3000 } else { 300 });
    while Instant::now() < settled {
        engine.turn(Duration::from_millis(50))?;
    }
    let (open, slab_open) = (resident(&job)?, proc::slab());
    // only now: a server need not wait as long as all sockets take for a first request. Those that exchanged tokens go
    engine.publishers.clear();
    for _ in 0..publishers {
        engine.add_publisher(job.master)?;
    }

    let mut worker = Worker::new(&job, engine, publishers);
    meter = Meter::start(&job)?;
    let extra = worker.work()?;
    let track = &worker.engine.track;
    let work = meter.lap(
        &job,
        json!({
            "pushes": worker.pushed,
            "deliveries": track.deliveries,
            "pings": track.pings,
            "bytes": track.bytes,
            "latency": track.latency.report(),
        }),
    )?;
    let after = resident(&job)?;
    let Worker { mut engine, expected, refused, .. } = worker;
    let stuck_closed = if job.stuck > 0 { engine.gone_unread(read) } else { 0 };
    let closed = engine.gone(job.sockets);
    let leave = if job.leave { leave(&job, &mut engine)? } else { Value::Null };
    let track = &engine.track;
    Ok(json!({
        "sockets": job.sockets,
        "connect": connect,
        "memory": {
            "before_kib": before.iter().sum::<f64>(),
            "open_kib": open.iter().sum::<f64>(),
            "after_kib": after.iter().sum::<f64>(),
            "highest_kib": proc::rss(&job.pids, true)?,
            "kernel_kib": slab_open - slab_before,
            "before_each_kib": before,
            "open_each_kib": open,
        },
        "work": work,
        "leave": leave,
        "extra": extra,
        "lost": expected.saturating_sub(track.deliveries),
        "wrong": track.wrong,
        "example": track.example,
        "closed": closed,
        "stuck_closed": stuck_closed,
        "refused": refused,
    }))
}

fn resident(job: &Job) -> Result<Vec<f64>> {
    job.pids.iter().map(|&pid| proc::rss(&[pid], false)).collect()
}

fn exchange(job: &Job, jwt: &str) -> Result<String> {
    let mut http = LoadHttp::connect(job.slaves[0])?;
    http.ask("POST", "/v1/auth", format!("{{\"jwt\":\"{jwt}\"}}").as_bytes())?;
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        if let Some((status, body)) = http.reply()? {
            ensure!(status == 200, "no token: {status}");
            return http::token_of(&body);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    bail!("no answer to an exchange of tokens")
}

/// Close everything, and wait until the servers know.
fn leave(job: &Job, engine: &mut Engine) -> Result<Value> {
    let meter = Meter::start(job)?;
    engine.close_all();
    let until = Instant::now() + PATIENCE;
    for &admin in &job.admins {
        while !is_deserted(admin)? {
            ensure!(Instant::now() < until, "{admin} still has connections");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    meter.lap(job, json!({}))
}

fn is_deserted(admin: SocketAddr) -> Result<bool> {
    let metrics = metrics::scrape(admin)?;
    // a master has no such gauges
    let is_zero = |name: &&str| metrics::gauge(&metrics, name).unwrap_or(0.0) == 0.0;
    Ok(["wellhead_connections", "wellhead_subscriptions"].iter().all(is_zero))
}
