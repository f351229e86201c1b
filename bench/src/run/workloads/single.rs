//! One server, in all other ways: many channels, memory, connects, overload, patterns, the clock.

use anyhow::Result;
use serde_json::Value;

use super::{
    Contender::{Textbook, Undisturbed, Wellhead, Write},
    Workload, WorkloadSetup,
    measure::*,
};
use crate::{
    load::{Job, LoadWork, TokenSource},
    run::bench::Bench,
};

/// What batches have to reach of the baseline's deliveries a second: 1.25 times what they did when the baseline came to
/// stand beside them, which was 0.81 of it.
pub const BATCHES: f64 = 1.0;

/// What an idle socket may take of what one of the textbook takes.
const IDLE: Goal = Goal::Beside(Textbook, 0.22);

/// A channel for each socket.
pub fn channels(setup: &WorkloadSetup) -> Vec<Workload> {
    let pushes = if setup.quick { 60_000 } else { 200_000 };
    let job =
        |window| Job { channels: 10_000, work: LoadWork::Windowed { pushes, window, batch: 1 }, ..setup.plain.clone() };
    let batches = Job {
        channels: 10_000,
        work: LoadWork::Windowed { pushes: pushes / 4, window: 16, batch: 10 },
        ..setup.plain.clone()
    };
    vec![
        setup.workload(
            "channels-16",
            "10k sockets on 10k channels, 16 pushes in flight",
            &setup.with_others(&[Write, Wellhead, Textbook]),
            job(16),
            vec![
                cpu_per_push(&[&[Goal::Ratio(1.35)], &AHEAD[..]].concat()),
                pushes_per_second(&[Goal::RatioAtLeast(1.0 / 1.35)]),
                latency("p99", &[Goal::Ratio(2.0)]),
            ],
        ),
        setup.workload(
            "channels-64",
            "10k sockets on 10k channels, 64 pushes in flight",
            &[Write, Wellhead, Textbook],
            job(64),
            vec![cpu_per_push(&[]), pushes_per_second(&[]), latency("p99", &[])],
        ),
        setup.workload(
            "batches",
            "batches of 10 over 10k channels, 16 in flight",
            &[Write, Wellhead],
            batches,
            vec![delivered_per_second(&[Goal::RatioAtLeast(BATCHES)]), cpu_per_million(&[]), latency("p99", &[])],
        ),
    ]
}

/// Sockets that do nothing, and sockets that come.
pub fn connections(bench: &Bench, setup: &WorkloadSetup) -> Result<Vec<Workload>> {
    let own: Result<Vec<_>> = (0..if setup.quick { 1_000 } else { 3_000 }).map(|no| bench.jwt(no)).collect();
    let own = own?;
    let idle = |sockets| Job { sockets, work: LoadWork::Idle, ..setup.plain.clone() };
    Ok(vec![
        setup.workload(
            "memory-10k",
            "10k idle sockets, one subscription each",
            &setup.with_others(&[Write, Wellhead, Textbook]),
            idle(10_000),
            vec![memory_per_socket(&[&[IDLE], &AHEAD[..]].concat())],
        ),
        setup.workload(
            "memory-19k",
            "19k idle sockets, one subscription each",
            &[Write, Wellhead, Textbook],
            idle(19_000),
            vec![memory_per_socket(&[IDLE])],
        ),
        setup.workload(
            "memory-own",
            "10k idle sockets, a channel of its own each",
            &setup.with_others(&[Write, Wellhead, Textbook]),
            Job { channels: 10_000, ..idle(10_000) },
            vec![memory_per_socket(&[&[Goal::AtMost(1.5)], &AHEAD[..]].concat())],
        ),
        setup.workload(
            "memory-channels",
            "100k channels of one subscriber each, 500 for each of 200 sockets",
            &[Wellhead],
            Job { subscriptions: 500, channels: 100_000, ..idle(200) },
            vec![measure("RSS bytes per channel", &[Goal::AtMost(350.0)], |report| {
                let memory = &report["memory"];
                let grown = number(&memory["open_kib"]) - number(&memory["before_kib"]);
                // the sockets themselves are one in five hundred
                grown * 1024.0 / (number(&report["sockets"]) * 500.0)
            })],
        ),
        setup.workload(
            "storm",
            "connect: /auth with an RS256 JWT of its own, upgrade, subscribe; baseline without /auth",
            &[Write, Wellhead],
            Job { sockets: own.len(), tokens: TokenSource::Each(own), work: LoadWork::Idle, ..setup.plain.clone() },
            vec![
                measure("CPU µs per socket", &[Goal::Ratio(4.6)], |report| {
                    total(&report["connect"]["cpu"]) / number(&report["sockets"]) * 1e6
                }),
                measure("sockets/s", &[Goal::RatioAtLeast(0.25)], |report| {
                    number(&report["sockets"]) / number(&report["connect"]["seconds"])
                }),
                measure("p99 ms", &[], |report| number(&report["connect"]["latency"]["p99"]) / 1e3),
            ],
        ),
    ])
}

/// Too much at once, and those who do not read.
pub fn overload(setup: &WorkloadSetup) -> Vec<Workload> {
    let large = LoadWork::Windowed { pushes: if setup.quick { 200 } else { 300 }, window: 1, batch: 1 };
    vec![
        setup.workload(
            "burst",
            "1k subscribers, 16 publishers as fast as acknowledged",
            &[Wellhead],
            Job {
                sockets: 1_000,
                work: LoadWork::Acknowledged { pushes: if setup.quick { 2_000 } else { 5_000 }, publishers: 16 },
                ..setup.plain.clone()
            },
            vec![
                measure("delivered %", &[Goal::AtLeast(100.0)], |report| {
                    let deliveries = number(&report["work"]["deliveries"]);
                    100.0 * deliveries / (deliveries + number(&report["lost"]))
                }),
                measure("sockets dropped", &[Goal::AtMost(0.0)], |report| number(&report["closed"])),
                delivered_per_second(&[]),
            ],
        ),
        setup.workload(
            "beside",
            "one push after the other to 10k sockets, and 50 a second to another channel",
            &[Write, Wellhead],
            Job {
                work: LoadWork::Beside { pushes: if setup.quick { 40 } else { 100 }, per_second: 50.0 },
                ..setup.plain.clone()
            },
            vec![
                measure("small push, accepted and delivered, p50 ms", &[], |report| {
                    number(&report["extra"]["delivered"]["p50"]) / 1e3
                }),
                measure("small push, accepted and delivered, p99 ms", &[Goal::Ratio(0.5)], |report| {
                    number(&report["extra"]["delivered"]["p99"]) / 1e3
                }),
            ],
        ),
        setup.workload(
            "slow",
            "2k sockets × 8 KiB, one under way, and 100 that never read",
            &[Undisturbed, Wellhead],
            Job { sockets: 2_000, stuck: 100, size: 8 << 10, work: large, ..setup.plain.clone() },
            vec![
                latency("p99", &[Goal::Ratio(1.2)]),
                measure("RSS growth at its highest, KiB", &[Goal::AtMost(100.0 * (1024.0 + 64.0))], |report| {
                    number(&report["memory"]["highest_kib"]) - number(&report["memory"]["open_kib"])
                }),
                measure("of those that never read, closed", &[], |report| number(&report["stuck_closed"])),
            ],
        ),
    ]
}

/// Pushes to patterns, and pushes by the clock.
pub fn patterns_and_clock(setup: &WorkloadSetup) -> Vec<Workload> {
    let patterns = [("literal", "^c0050000$"), ("prefix", "^c00500"), ("unanchored, none matches", "77x[0-9]y")];
    let of_pattern = |at: usize| move |report: &Value| number(&report["extra"][at]["latency"]["p50"]) / 1e3;
    let measures = patterns.iter().enumerate().map(|(at, (kind, _))| {
        let goal = if at == 2 { 5.0 } else { 0.5 };
        measure(&format!("{kind}, answered, p50 ms"), &[Goal::AtMost(goal)], of_pattern(at))
    });
    vec![
        setup.workload(
            "pattern",
            "push to a pattern, 100k channels of 200 sockets",
            &[Wellhead],
            Job {
                sockets: 200,
                subscriptions: 500,
                channels: 100_000,
                work: LoadWork::Patterns {
                    patterns: patterns.map(|(_, pattern)| pattern.to_owned()).to_vec(),
                    times: 50,
                },
                ..setup.plain.clone()
            },
            measures.collect(),
        ),
        setup.workload(
            "paced",
            "5k sockets, 50k deliveries a second by the clock",
            &[Write, Wellhead, Textbook],
            Job {
                sockets: 5_000,
                work: LoadWork::Paced { per_second: 10.0, pushes: if setup.quick { 30 } else { 80 } },
                ..setup.plain.clone()
            },
            vec![latency("p50", &[]), latency("p99", &[Goal::Ratio(60.0 / 43.0)])],
        ),
    ]
}
