//! Several processes with a bus between them, and a second API on the same channels.

use super::{
    Contender::{self, Conveyor, Nats, Pusher, Slaves, SlavesNats, Wellhead, Write},
    Workload, WorkloadSetup,
    measure::*,
};
use crate::{
    load::{Job, LoadWork},
    run::{bench::Bench, environment::has},
};

/// A master and its slaves.
pub fn cluster(setup: &WorkloadSetup) -> Vec<Workload> {
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
            Job { sockets, work: LoadWork::Windowed { pushes, window: 1, batch: 1 }, ..setup.plain.clone() },
            vec![cpu_per_million(&[]), delivered_per_second(&[]), latency("p50", &[])],
        );
        add(
            "channels",
            "5k sockets on 5k channels, 16 pushes in flight",
            Job {
                sockets,
                channels: sockets,
                work: LoadWork::Windowed { pushes: pushes * 500, window: 16, batch: 1 },
                ..setup.plain.clone()
            },
            vec![cpu_per_push(&[]), pushes_per_second(&[]), latency("p99", &[])],
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
                Job { sockets: 1, work: LoadWork::Paced { per_second: 200.0, pushes: 600 }, ..setup.plain.clone() },
                vec![latency("p50", &[Goal::BaseAtMostMore(0.2)]), latency("p99", &[])],
            )
        });
    }
    all
}

/// What Pusher's words may cost, beside gusher's: signatures included.
const LIKE_GUSHER: Goal = Goal::Beside(Wellhead, 1.15);

/// The same work in Pusher's words, beside gusher's.
pub fn pusher(bench: &Bench, setup: &WorkloadSetup) -> Vec<Workload> {
    if !bench.speaks(Pusher) {
        return Vec::new();
    }
    let pushers = setup.pushers();
    let deliveries = if setup.quick { 200_000 } else { 600_000 };
    let fan_out = |window: usize| Job {
        sockets: 5_000,
        work: LoadWork::Windowed { pushes: deliveries / 5_000, window, batch: 1 },
        ..setup.plain.clone()
    };
    let mut all = Vec::new();
    let mut add = |name: &str, title: &str, base: Contender, job, measures| {
        let bare: &[Contender] = if base == Wellhead { &[] } else { &[base] };
        let contenders = [bare, &[Wellhead, Pusher], &pushers].concat();
        all.push(Workload {
            ours: Pusher,
            base: Some(base),
            ..setup.workload(name, title, &contenders, job, measures)
        });
    };
    for (window, words) in [(1, "one"), (8, "eight")] {
        add(
            &format!("pusher-fanout-{window}"),
            &format!("5k sockets × 100 B, {words} under way, Pusher API beside gusher's"),
            Wellhead,
            fan_out(window),
            vec![cpu_per_million(&[LIKE_GUSHER]), delivered_per_second(&[]), latency("p50", &[])],
        );
    }
    add(
        "pusher-channels",
        "10k sockets on 10k channels, 16 pushes in flight, Pusher API beside gusher's",
        Write,
        Job {
            channels: 10_000,
            work: LoadWork::Windowed { pushes: if setup.quick { 40_000 } else { 100_000 }, window: 16, batch: 1 },
            ..setup.plain.clone()
        },
        vec![cpu_per_push(&[Goal::Ratio(1.6), LIKE_GUSHER]), pushes_per_second(&[]), latency("p99", &[])],
    );
    add(
        "pusher-batches",
        "batches of 10 over 10k channels, 16 in flight, Pusher API beside gusher's",
        Write,
        Job {
            channels: 10_000,
            work: LoadWork::Windowed { pushes: if setup.quick { 15_000 } else { 50_000 }, window: 16, batch: 10 },
            ..setup.plain.clone()
        },
        vec![delivered_per_second(&[]), cpu_per_million(&[LIKE_GUSHER]), latency("p99", &[])],
    );
    add(
        "pusher-memory",
        "10k idle sockets, one subscription each, Pusher API beside gusher's",
        Wellhead,
        Job { work: LoadWork::Idle, ..setup.plain.clone() },
        vec![memory_per_socket(&[])],
    );
    all
}

/// What Phoenix' words may cost, beside gusher's.
const NEAR_GUSHER: Goal = Goal::Beside(Wellhead, 1.10);

/// The same fan-out and memory in Phoenix' words, in either serializer, beside gusher's.
pub fn phoenix(bench: &Bench, setup: &WorkloadSetup) -> Vec<Workload> {
    let deliveries = if setup.quick { 200_000 } else { 600_000 };
    let mut all = Vec::new();
    for serializer in [1, 2] {
        let ours = Contender::PushEx(serializer);
        if !bench.speaks(ours) {
            continue;
        }
        let mut add = |name: &str, title: &str, job, measures| {
            let (name, title) =
                (format!("phoenix-v{serializer}-{name}"), format!("{title}, Phoenix V{serializer} beside gusher"));
            all.push(Workload {
                ours,
                base: Some(Wellhead),
                ..setup.workload(&name, &title, &[Wellhead, ours], job, measures)
            });
        };
        for (window, words) in [(1, "one"), (8, "eight")] {
            let pushes = deliveries / 5_000 * if window == 8 { 4 } else { 1 };
            let work = LoadWork::Windowed { pushes, window, batch: 1 };
            add(
                &format!("fanout-{window}"),
                &format!("5k sockets × 100 B, {words} under way"),
                Job { sockets: 5_000, work, ..setup.plain.clone() },
                vec![cpu_per_million(&[NEAR_GUSHER]), delivered_per_second(&[]), latency("p50", &[])],
            );
        }
        add(
            "memory",
            "10k idle sockets, one subscription each",
            Job { work: LoadWork::Idle, ..setup.plain.clone() },
            vec![memory_per_socket(&[Goal::AtMost(1.5)])],
        );
    }
    all
}

/// The same fan-out in Conveyor's words, beside gusher's.
pub fn conveyor(bench: &Bench, setup: &WorkloadSetup) -> Vec<Workload> {
    if !bench.speaks(Conveyor) {
        return Vec::new();
    }
    let deliveries = if setup.quick { 200_000 } else { 600_000 };
    let mut all = Vec::new();
    let mut add = |name: &str, title: &str, job, measures| {
        let workload = setup.workload(name, title, &[Wellhead, Conveyor], job, measures);
        all.push(Workload { ours: Conveyor, base: Some(Wellhead), ..workload });
    };
    for (window, words) in [(1, "one"), (8, "eight")] {
        add(
            &format!("conveyor-fanout-{window}"),
            &format!("5k sockets × 100 B, {words} under way, Conveyor API beside gusher's"),
            Job {
                sockets: 5_000,
                work: LoadWork::Windowed { pushes: deliveries / 5_000, window, batch: 1 },
                ..setup.plain.clone()
            },
            vec![cpu_per_million(&[Goal::Beside(Wellhead, 1.10)]), delivered_per_second(&[]), latency("p50", &[])],
        );
    }
    add(
        "conveyor-memory",
        "10k idle sockets, one subscription each, Conveyor API beside gusher's",
        Job { work: LoadWork::Idle, ..setup.plain.clone() },
        vec![memory_per_socket(&[Goal::AtMost(1.5)])],
    );
    all
}
