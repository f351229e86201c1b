//! A master and more and more slaves, real processes on one bus.

use anyhow::Result;
use serde_json::Value;

use super::{ScaleTable, sound};
use crate::{
    load::{Job, LoadWork},
    run::{bench::Bench, contender::Contender, measure::number, running::RunningContender},
};

/// What one process spent in a report's work, in microseconds.
fn spent(report: &Value, process: usize) -> f64 {
    number(&report["work"]["cpu_each"][process]) * 1e6
}

/// The mean of what these spent.
fn mean(report: &Value, processes: std::ops::Range<usize>) -> f64 {
    let count = processes.len() as f64;
    processes.map(|process| spent(report, process)).sum::<f64>() / count
}

fn call(method: &str, target: &str, body: &str, times: u64) -> LoadWork {
    LoadWork::Calls { method: method.to_owned(), target: target.to_owned(), body: body.to_owned(), times }
}

fn load(bench: &Bench, running: &RunningContender, job: &Job) -> Result<Value> {
    sound(bench.load(Contender::Slaves, running, job)?)
}

/// What each role pays as slaves are added.
pub fn slaves(bench: &Bench, quick: bool, on_nats: bool) -> Result<ScaleTable> {
    let (name, bus) = if on_nats { ("slaves-nats", "NATS") } else { ("slaves-local", "the bus of one machine") };
    let mut columns = vec![
        "slaves",
        "idle: master, CPU ms/s",
        "idle: a slave, CPU ms/s",
        "push to one slave: master, CPU µs",
        "that slave, CPU µs",
        "another slave, CPU µs",
        "push to all: master, CPU µs",
        "a slave, CPU µs",
        "push to a user: master, CPU µs",
        "a slave, CPU µs",
        "query: master, CPU µs",
        "a slave, CPU µs",
        "query p50 ms",
        "a slave, RSS MiB",
    ];
    if on_nats {
        columns.extend([
            "idle: nats-server, CPU ms/s",
            "push to one: nats-server, CPU µs",
            "query: nats-server, CPU µs",
        ]);
    }
    let mut table = ScaleTable::new(name, &format!("Slaves on {bus}, 16 pushes under way"), &columns);
    let sizes: &[usize] = if quick { &[1, 5] } else { &[1, 2, 5, 10, 25, 50] };
    let times: u64 = if quick { 1_000 } else { 4_000 };
    for &count in sizes {
        let running = bench.cluster(count, on_nats, &[])?;
        // in the order of their processes: the master, its slaves, NATS
        let (all, last) = (1..count + 1, count + 1);
        let plain = bench.job()?;
        let pushed = |pushes| LoadWork::Windowed { pushes, window: 16, batch: 1 };
        let seconds = if quick { 2.0 } else { 5.0 };
        let idle = load(bench, &running, &Job { sockets: 0, work: LoadWork::Rest { seconds }, ..plain.clone() })?;
        let one = load(bench, &running, &Job { sockets: 1, work: pushed(times), ..plain.clone() })?;
        let everybody = (times / count as u64).max(500);
        let to_all = load(bench, &running, &Job { sockets: count, work: pushed(everybody), ..plain.clone() })?;
        // a user whom nobody knows: all must look, nobody delivers
        let body = r#"{"event":"m","data":"0123456789"}"#;
        let user = call("POST", "/v1/apps/bench/users/nobody/messages", body, times / 4);
        let user = load(bench, &running, &Job { sockets: count, work: user, ..plain.clone() })?;
        let query = call("GET", "/v1/apps/bench/channels/c0000000/users/count", "", times / 8);
        let query = load(bench, &running, &Job { sockets: count, work: query, ..plain })?;
        let per = |report: &Value, spent: f64| spent / number(&report["work"]["pushes"]);
        let others = if count > 1 { per(&one, mean(&one, 2..count + 1)) } else { f64::NAN };
        let mut row = vec![
            count as f64,
            spent(&idle, 0) / 1e3 / seconds,
            mean(&idle, all.clone()) / 1e3 / seconds,
            per(&one, spent(&one, 0)),
            per(&one, spent(&one, 1)),
            others,
            per(&to_all, spent(&to_all, 0)),
            per(&to_all, mean(&to_all, all.clone())),
            per(&user, spent(&user, 0)),
            per(&user, mean(&user, all.clone())),
            per(&query, spent(&query, 0)),
            per(&query, mean(&query, all.clone())),
            number(&query["extra"]["latency"]["p50"]) / 1e3,
            number(&query["memory"]["open_each_kib"][1]) / 1024.0,
        ];
        if on_nats {
            row.extend([
                spent(&idle, last) / 1e3 / seconds,
                per(&one, spent(&one, last)),
                per(&query, spent(&query, last)),
            ]);
        }
        table.add(row)?;
        running.stop()?;
    }
    Ok(table)
}

/// What a slave with many channels pays for pushes to others: above a limit it listens to everything.
pub fn wildcard(bench: &Bench, quick: bool) -> Result<ScaleTable> {
    let mut table = ScaleTable::new(
        "wildcard",
        "Two slaves on NATS; one holds so many channels, the pushes are for the other",
        &[
            "channels of the bystander",
            "bystander, CPU µs per push",
            "receiver, CPU µs per push",
            "master, CPU µs per push",
            "nats-server, CPU µs per push",
            "bystander, RSS MiB",
        ],
    );
    let sizes: &[usize] = if quick { &[0, 1_000] } else { &[0, 1_000, 10_000, 15_000, 20_000, 30_000] };
    for &channels in sizes {
        let running = bench.cluster(2, true, &[])?;
        let job = Job {
            sockets: 1,
            // 500 channels each, all at the second slave; the one socket is at the first
            bystanders: channels / 500,
            work: LoadWork::Windowed { pushes: if quick { 2_000 } else { 10_000 }, window: 16, batch: 1 },
            ..bench.job()?
        };
        let report = load(bench, &running, &job)?;
        let per = |process| spent(&report, process) / number(&report["work"]["pushes"]);
        let resident = number(&report["memory"]["open_each_kib"][2]) / 1024.0;
        table.add(vec![channels as f64, per(2), per(1), per(0), per(3), resident])?;
        running.stop()?;
    }
    Ok(table)
}
