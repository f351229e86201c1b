//! What is measured, and the figures to reach.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;
use serde_json::Value;

use super::contender::{Bench, Contender};
use crate::load::{Job, Tokens, Work};

/// Something that is measured with several servers.
pub struct Workload {
    /// What `--only` calls it.
    pub name: &'static str,
    /// What tables call it.
    pub title: String,
    /// Who takes part.
    pub contenders: Vec<Contender>,
    /// Whom Wellhead is compared with.
    pub base: Option<Contender>,
    /// What the generator does.
    pub job: Job,
    /// Settings of Wellhead.
    pub settings: Vec<(&'static str, String)>,
    /// What is read from the reports.
    pub measures: Vec<Measure>,
    /// How often.
    pub rounds: usize,
}

/// A number in a report.
pub struct Measure {
    /// What tables call it.
    pub name: String,
    /// Where it comes from.
    pub of: Box<dyn Fn(&Value) -> f64>,
    /// What it should be.
    pub goal: Option<Goal>,
}

/// What a number should be.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    /// At most so many times the baseline's.
    Ratio(f64),
    /// At least so many times the baseline's.
    RatioAtLeast(f64),
    /// At most.
    AtMost(f64),
    /// At least.
    AtLeast(f64),
    /// What it is compared with has at most so much more.
    BaseAtMostMore(f64),
}

fn measure(name: &str, goal: Option<Goal>, of: impl Fn(&Value) -> f64 + 'static) -> Measure {
    Measure { name: name.to_owned(), of: Box::new(of), goal }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

fn total(cpu: &Value) -> f64 {
    number(&cpu["user"]) + number(&cpu["system"])
}

fn cpu_per_million(goal: Option<Goal>) -> Measure {
    measure("CPU s per 1M deliveries", goal, |report| {
        total(&report["work"]["cpu"]) / number(&report["work"]["deliveries"]) * 1e6
    })
}

fn user_per_million() -> Measure {
    measure("of it in the program, s", None, |report| {
        number(&report["work"]["cpu"]["user"]) / number(&report["work"]["deliveries"]) * 1e6
    })
}

fn delivered_per_second(goal: Option<Goal>) -> Measure {
    measure("deliveries/s", goal, |report| number(&report["work"]["deliveries"]) / number(&report["work"]["seconds"]))
}

fn latency(share: &'static str, goal: Option<Goal>) -> Measure {
    measure(&format!("{share} ms"), goal, move |report| number(&report["work"]["latency"][share]) / 1e3)
}

/// Idle sockets on one channel: what all jobs are made from.
pub fn plain(bench: &Bench) -> Result<Job> {
    let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    Ok(Job {
        slave: nowhere,
        master: nowhere,
        pids: Vec::new(),
        raw: false,
        tokens: Tokens::Shared(bench.jwt(0)?),
        sockets: 10_000,
        channels: 1,
        subscriptions: 1,
        stuck: 0,
        size: 100,
        work: Work::Idle,
    })
}

/// All of them, the most important first.
pub fn all(bench: &Bench, quick: bool) -> Result<Vec<Workload>> {
    use Contender::{Coalesce, Nats, Textbook, Undisturbed, Wellhead, Write};
    let plain = plain(bench)?;
    let rounds = if quick { 1 } else { 3 };
    let mut all = Vec::new();
    let mut add = |name, title: &str, contenders: &[Contender], job: Job, measures| {
        all.push(Workload {
            name,
            title: title.to_owned(),
            contenders: contenders.to_vec(),
            base: contenders.iter().copied().find(|&one| one != Wellhead && one != Textbook),
            job,
            settings: Vec::new(),
            measures,
            rounds,
        });
    };

    let sizes: &[usize] = if quick { &[5_000] } else { &[5_000, 10_000] };
    for &sockets in sizes {
        let deliveries = if quick { 250_000 } else { 600_000 };
        let thousands = sockets / 1000;
        let pushes = deliveries / sockets as u64;
        let one = Work::Windowed { pushes, window: 1, batch: 1 };
        add(
            "fanout-1",
            &format!("{thousands}k sockets × 100 B, one under way"),
            &[Write, Wellhead, Textbook],
            Job { sockets, work: one, ..plain.clone() },
            vec![
                cpu_per_million(Some(Goal::Ratio(1.10))),
                user_per_million(),
                delivered_per_second(None),
                latency("p50", None),
            ],
        );
        let eight = Work::Windowed { pushes: pushes * 4, window: 8, batch: 1 };
        add(
            "fanout-8",
            &format!("{thousands}k sockets × 100 B, eight under way"),
            &[Coalesce, Wellhead, Textbook],
            Job { sockets, work: eight, ..plain.clone() },
            vec![
                cpu_per_million(Some(Goal::Ratio(1.13))),
                user_per_million(),
                delivered_per_second((sockets == 5000).then_some(Goal::AtLeast(620_000.0))),
                latency("p50", None),
            ],
        );
    }

    let pushes = if quick { 60_000 } else { 200_000 };
    add(
        "channels",
        "10k sockets on 10k channels, 16 pushes in flight",
        &[Write, Wellhead, Textbook],
        Job { channels: 10_000, work: Work::Windowed { pushes, window: 16, batch: 1 }, ..plain.clone() },
        vec![
            measure("CPU µs per push", Some(Goal::Ratio(18.5 / 15.0)), |report| {
                total(&report["work"]["cpu"]) / number(&report["work"]["pushes"]) * 1e6
            }),
            measure("pushes/s", Some(Goal::RatioAtLeast(53.0 / 65.0)), |report| {
                number(&report["work"]["pushes"]) / number(&report["work"]["seconds"])
            }),
            latency("p99", Some(Goal::AtMost(0.8))),
        ],
    );
    let memory = |name: &'static str, goal| {
        measure(name, goal, |report| {
            (number(&report["memory"]["open_kib"]) - number(&report["memory"]["before_kib"]))
                / number(&report["sockets"])
        })
    };
    add(
        "memory",
        "10k idle sockets, one subscription each",
        &[Write, Wellhead, Textbook],
        Job { work: Work::Idle, ..plain.clone() },
        vec![memory("RSS KiB per socket", Some(Goal::AtMost(3.0)))],
    );
    let own: Result<Vec<_>> = (0..if quick { 1_000 } else { 3_000 }).map(|no| bench.jwt(no)).collect();
    let own = own?;
    add(
        "storm",
        "connect: /auth with an RS256 JWT of its own, upgrade, subscribe",
        &[Wellhead],
        Job { sockets: own.len(), tokens: Tokens::Each(own), work: Work::Idle, ..plain.clone() },
        vec![
            measure("CPU µs per socket", Some(Goal::AtMost(104.0)), |report| {
                total(&report["connect"]["cpu"]) / number(&report["sockets"]) * 1e6
            }),
            measure("sockets/s", Some(Goal::AtLeast(8600.0)), |report| {
                number(&report["sockets"]) / number(&report["connect"]["seconds"])
            }),
            measure("p99 ms", None, |report| number(&report["connect"]["latency"]["p99"]) / 1e3),
        ],
    );
    add(
        "batches",
        "batches of 10 over 10k channels, 16 in flight",
        &[Wellhead],
        Job { channels: 10_000, work: Work::Windowed { pushes: pushes / 4, window: 16, batch: 10 }, ..plain.clone() },
        vec![delivered_per_second(Some(Goal::AtLeast(150_000.0))), cpu_per_million(None), latency("p99", None)],
    );
    add(
        "burst",
        "1k subscribers, 16 publishers as fast as acknowledged",
        &[Wellhead],
        Job {
            sockets: 1_000,
            work: Work::Acknowledged { pushes: if quick { 2_000 } else { 5_000 }, publishers: 16 },
            ..plain.clone()
        },
        vec![
            measure("delivered %", Some(Goal::AtLeast(100.0)), |report| {
                let deliveries = number(&report["work"]["deliveries"]);
                100.0 * deliveries / (deliveries + number(&report["lost"]))
            }),
            measure("sockets dropped", Some(Goal::AtMost(0.0)), |report| number(&report["closed"])),
            delivered_per_second(None),
        ],
    );
    let fan = if quick { 40 } else { 100 };
    add(
        "beside",
        "one push after the other to 10k sockets, and 50 a second to another channel",
        &[Wellhead],
        Job { work: Work::Beside { pushes: fan, per_second: 50.0 }, ..plain.clone() },
        vec![
            measure("small push, accepted and delivered, p50 ms", None, |report| {
                number(&report["extra"]["delivered"]["p50"]) / 1e3
            }),
            measure("small push, accepted and delivered, p99 ms", Some(Goal::AtMost(10.0)), |report| {
                number(&report["extra"]["delivered"]["p99"]) / 1e3
            }),
        ],
    );
    let large = Work::Windowed { pushes: if quick { 200 } else { 300 }, window: 1, batch: 1 };
    add(
        "slow",
        "2k sockets × 8 KiB, one under way, and 100 that never read",
        &[Undisturbed, Wellhead],
        Job { sockets: 2_000, stuck: 100, size: 8 << 10, work: large, ..plain.clone() },
        vec![
            latency("p99", Some(Goal::Ratio(1.2))),
            measure("RSS growth at its highest, KiB", Some(Goal::AtMost(100.0 * (1024.0 + 64.0))), |report| {
                number(&report["memory"]["highest_kib"]) - number(&report["memory"]["open_kib"])
            }),
            measure("of those that never read, closed", None, |report| number(&report["stuck_closed"])),
        ],
    );
    let patterns = [("literal", "^c0050000$"), ("prefix", "^c00500"), ("unanchored, none matches", "77x[0-9]y")];
    let of_pattern = |at: usize| move |report: &Value| number(&report["extra"][at]["latency"]["p50"]) / 1e3;
    add(
        "pattern",
        "push to a pattern, 100k channels of 200 sockets",
        &[Wellhead],
        Job {
            sockets: 200,
            subscriptions: 500,
            channels: 100_000,
            work: Work::Patterns { patterns: patterns.map(|(_, pattern)| pattern.to_owned()).to_vec(), times: 50 },
            ..plain.clone()
        },
        patterns
            .iter()
            .enumerate()
            .map(|(at, (kind, _))| {
                let goal = if at == 2 { 5.0 } else { 0.5 };
                measure(&format!("{kind}, answered, p50 ms"), Some(Goal::AtMost(goal)), of_pattern(at))
            })
            .collect(),
    );
    add(
        "paced",
        "5k sockets, 50k deliveries a second by the clock",
        &[Write, Wellhead, Textbook],
        Job {
            sockets: 5_000,
            work: Work::Paced { per_second: 10.0, pushes: if quick { 30 } else { 80 } },
            ..plain.clone()
        },
        vec![latency("p50", None), latency("p99", Some(Goal::Ratio(60.0 / 43.0)))],
    );
    if super::contender::has("nats-server") {
        add(
            "nats",
            "one socket, one push after the other, idle otherwise",
            &[Nats, Wellhead],
            Job { sockets: 1, work: Work::Paced { per_second: 200.0, pushes: 600 }, ..plain.clone() },
            vec![latency("p50", Some(Goal::BaseAtMostMore(0.2))), latency("p99", None)],
        );
    }
    Ok(all)
}
