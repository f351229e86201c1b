//! Churn for a while: sockets come, subscribe, get pushes and go, wave after wave. At the end nobody is there, and the
//! server should hold no more than after the first waves.

use std::{
    io::{Write, stderr, stdout},
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::{
    load::{Job, LoadWork},
    metrics, proc,
    run::{bench::Bench, contender::Contender},
};

/// What must be back at zero when nobody is connected.
const GAUGES: [&str; 5] =
    ["wellhead_connections", "wellhead_subscriptions", "wellhead_channels", "wellhead_users", "wellhead_queue_bytes"];
/// How much more memory the last tenth may hold than the first: the allocator's own ways.
const SLACK: f64 = 1.10;

/// How long, and with what.
#[derive(Args)]
pub struct SoakOptions {
    /// Minutes
    #[arg(long, default_value = "10")]
    minutes: f64,
    /// Sockets of a wave
    #[arg(long, default_value = "2000")]
    sockets: usize,
    /// The program; the one beside this one
    #[arg(long)]
    wellhead: Option<PathBuf>,
}

/// Churn, and fail if anything is kept.
pub fn run(options: &SoakOptions) -> Result<()> {
    let bench = Bench::new(options.wellhead.clone())?;
    let running = bench.start(Contender::Wellhead, &[])?;
    let admin = running.servers[0].admin.context("it has metrics")?;
    let pids = running.pids();
    let begin = Instant::now();
    let until = begin + Duration::from_secs_f64(options.minutes * 60.0);
    let plain = bench.job()?;
    let mut resident = Vec::new();
    let (mut waves, mut sockets, mut deliveries) = (0, 0, 0);
    while Instant::now() < until || waves < 4 {
        // in turns: everybody on one channel, on channels of their own, on many each, and some who never read
        let job = match waves % 4 {
            0 => Job { work: windowed(100, 8), ..plain.clone() },
            1 => Job { channels: options.sockets, work: windowed(20_000, 16), ..plain.clone() },
            2 => Job {
                subscriptions: 50,
                work: LoadWork::Patterns { patterns: vec!["77$".into()], times: 3 },
                ..plain.clone()
            },
            _ => Job { stuck: 20, size: 16 << 10, work: windowed(50, 4), ..plain.clone() },
        };
        let job = Job { sockets: options.sockets, tokens: plain.tokens.clone(), ..job };
        let report = bench.load(Contender::Wellhead, &running, &job)?;
        ensure!(report["wrong"] == 0 && report["closed"] == 0, "wave {waves} went wrong: {report}");
        ensure!(waves % 4 == 2 || report["lost"] == 0, "wave {waves} lost something: {report}");
        waves += 1;
        sockets += options.sockets;
        deliveries += report["work"]["deliveries"].as_u64().unwrap_or(0);
        let left = gone(admin)?;
        ensure!(left.is_empty(), "wave {waves} left something behind: {left:?}");
        if waves % 4 == 0 {
            let rss = proc::rss(&pids, false)?;
            resident.push(rss);
            let minutes = begin.elapsed().as_secs_f64() / 60.0;
            writeln!(stderr(), "{minutes:.1} min · {waves} waves · RSS {rss:.0} KiB")?;
        }
    }
    let mut out = stdout().lock();
    let (first, last) = (early(&resident), resident.last().copied().unwrap_or(0.0));
    writeln!(
        out,
        "{waves} waves, {sockets} sockets, {deliveries} deliveries in {:.1} minutes; RSS {first:.0} KiB after the first \
         waves, {last:.0} KiB at the end; connections, subscriptions, channels, users and queue at 0",
        begin.elapsed().as_secs_f64() / 60.0
    )?;
    ensure!(last <= first * SLACK, "memory grew by more than a tenth");
    Ok(())
}

fn windowed(pushes: u64, window: usize) -> LoadWork {
    LoadWork::Windowed { pushes, window, batch: 1 }
}

/// What was resident once the server had seen every kind of wave a few times.
fn early(resident: &[f64]) -> f64 {
    resident.iter().take(3.max(resident.len() / 10)).copied().fold(0.0, f64::max)
}

/// Gauges that are not at zero, though they had some seconds.
fn gone(admin: SocketAddr) -> Result<Vec<String>> {
    let until = Instant::now() + Duration::from_secs(15);
    loop {
        let metrics = metrics::scrape(admin)?;
        let left: Vec<_> = GAUGES
            .iter()
            .filter_map(|name| match metrics::gauge(&metrics, name) {
                Some(0.0) => None,
                Some(value) => Some(format!("{name} {value}")),
                None => Some(format!("{name} is missing")),
            })
            .collect();
        if left.is_empty() || Instant::now() > until {
            return Ok(left);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
