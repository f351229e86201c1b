//! Several processes with a bus between them, and a second API on the same channels.

use super::{
    Contender::{self, Nats, Pusher, Slaves, SlavesNats, Wellhead},
    Setup, Workload,
    measure::*,
};
use crate::{
    load::{Job, Work},
    run::bench::{Bench, has},
};

/// A master and its slaves.
pub fn cluster(setup: &Setup) -> Vec<Workload> {
    let mut all = Vec::new();
    let pushes = if setup.quick { 40 } else { 80 };
    let sockets = 5_000;
    let mut buses = vec![("local", "on one machine's bus", Slaves)];
    if has("nats-server") {
        buses.push(("nats", "over NATS", SlavesNats));
    }
    for (short, title, contender) in buses {
        let mut add = |kind: &str, what: &str, job, measures| {
            all.push(Workload {
                ours: contender,
                base: Some(Wellhead),
                rounds: setup.rounds.min(2),
                ..setup.workload(
                    &format!("slaves-{short}-{kind}"),
                    &format!("{what}, half of them on each of two slaves {title}"),
                    &[Wellhead, contender],
                    job,
                    measures,
                )
            });
        };
        add(
            "fanout",
            "5k sockets × 100 B, one under way",
            Job { sockets, work: Work::Windowed { pushes, window: 1, batch: 1 }, ..setup.plain.clone() },
            vec![cpu_per_million(None), delivered_per_second(None), latency("p50", None)],
        );
        add(
            "channels",
            "5k sockets on 5k channels, 16 pushes in flight",
            Job {
                sockets,
                channels: sockets,
                work: Work::Windowed { pushes: pushes * 500, window: 16, batch: 1 },
                ..setup.plain.clone()
            },
            vec![cpu_per_push(None), pushes_per_second(None), latency("p99", None)],
        );
    }
    if has("nats-server") {
        all.push(Workload {
            rounds: setup.rounds.min(2),
            base: Some(Nats),
            ..setup.workload(
                "nats",
                "one socket, one push after the other, idle otherwise",
                &[Nats, Wellhead],
                Job { sockets: 1, work: Work::Paced { per_second: 200.0, pushes: 600 }, ..setup.plain.clone() },
                vec![latency("p50", Some(Goal::BaseAtMostMore(0.2))), latency("p99", None)],
            )
        });
    }
    all
}

/// What Pusher's words may cost, beside gusher's: signatures included.
const LIKE_GUSHER: Goal = Goal::Ratio(1.15);

/// The same work in Pusher's words, beside gusher's.
pub fn pusher(bench: &Bench, setup: &Setup) -> Vec<Workload> {
    if !bench.speaks_pusher() {
        return Vec::new();
    }
    let contenders: Vec<Contender> = [&[Wellhead, Pusher], &*setup.pushers()].concat();
    let deliveries = if setup.quick { 200_000 } else { 600_000 };
    let fan_out = |window: usize| Job {
        sockets: 5_000,
        work: Work::Windowed { pushes: deliveries / 5_000, window, batch: 1 },
        ..setup.plain.clone()
    };
    let mut all = Vec::new();
    let mut add = |name: &str, title: &str, job, measures| {
        all.push(Workload {
            ours: Pusher,
            base: Some(Wellhead),
            ..setup.workload(name, title, &contenders, job, measures)
        });
    };
    for (window, words) in [(1, "one"), (8, "eight")] {
        add(
            &format!("pusher-fanout-{window}"),
            &format!("5k sockets × 100 B, {words} under way, Pusher API beside gusher's"),
            fan_out(window),
            vec![cpu_per_million(Some(LIKE_GUSHER)), delivered_per_second(None), latency("p50", None)],
        );
    }
    add(
        "pusher-channels",
        "10k sockets on 10k channels, 16 pushes in flight, Pusher API beside gusher's",
        Job {
            channels: 10_000,
            work: Work::Windowed { pushes: if setup.quick { 40_000 } else { 100_000 }, window: 16, batch: 1 },
            ..setup.plain.clone()
        },
        vec![cpu_per_push(Some(LIKE_GUSHER)), pushes_per_second(None), latency("p99", None)],
    );
    add(
        "pusher-memory",
        "10k idle sockets, one subscription each, Pusher API beside gusher's",
        Job { work: Work::Idle, ..setup.plain.clone() },
        vec![memory_per_socket(None)],
    );
    all
}
