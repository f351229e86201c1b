//! One server that grows.

use anyhow::Result;
use serde_json::Value;

use super::{ScaleTable, sound};
use crate::{
    load::{Job, LoadWork},
    run::{bench::Bench, contender::Contender, measure::number},
};

fn once(bench: &Bench, job: &Job, settings: &[(&str, String)]) -> Result<Value> {
    let running = bench.start(Contender::Wellhead, settings)?;
    let report = sound(bench.load(Contender::Wellhead, &running, job)?)?;
    running.stop()?;
    Ok(report)
}

fn windowed(pushes: u64, window: usize) -> LoadWork {
    LoadWork::Windowed { pushes, window, batch: 1 }
}

fn grown_kib(report: &Value) -> f64 {
    number(&report["memory"]["open_kib"]) - number(&report["memory"]["before_kib"])
}

/// To the nanosecond: what leaves and comes here is over before a hundredth of a second is.
fn micros(part: &Value) -> f64 {
    part["cpu_each"].as_array().into_iter().flatten().map(number).sum::<f64>() * 1e6
}

/// Sockets on one channel.
pub fn sockets(bench: &Bench, quick: bool) -> Result<ScaleTable> {
    let mut table = ScaleTable::new(
        "sockets",
        "Sockets on one channel, 100 B",
        &[
            "sockets",
            "RSS KiB per socket",
            "in the kernel, KiB per end of a connection",
            "CPU µs per connect",
            "CPU µs per delivery, one under way",
            "CPU µs per delivery, eight under way",
            "CPU µs per ping and pong",
            "CPU µs per disconnect",
        ],
    );
    let sizes: &[usize] = if quick { &[1_000, 5_000] } else { &[1_000, 2_000, 5_000, 10_000, 19_000] };
    let deliveries = if quick { 100_000 } else { 300_000 };
    for &sockets in sizes {
        let plain = Job { sockets, leave: true, ..bench.job()? };
        let pushes = deliveries / sockets as u64;
        let idle = once(bench, &Job { work: LoadWork::Idle, ..plain.clone() }, &[])?;
        let one = once(bench, &Job { work: windowed(pushes, 1), ..plain.clone() }, &[])?;
        let eight = once(bench, &Job { work: windowed(pushes * 4, 8), ..plain.clone() }, &[])?;
        // as often as that only here, so that there is something to see
        let often = [("slave.ping_interval", "2s".to_owned())];
        let pinged = once(bench, &Job { work: LoadWork::Rest { seconds: 5.0 }, ..plain }, &often)?;
        let each = |report: &Value| micros(&report["work"]) / number(&report["work"]["deliveries"]);
        let mean = |part: &str| {
            [&idle, &one, &eight].iter().map(|report| micros(&report[part])).sum::<f64>() / 3.0 / sockets as f64
        };
        table.add(vec![
            sockets as f64,
            grown_kib(&idle) / sockets as f64,
            // the generator has the other end
            number(&idle["memory"]["kernel_kib"]) / sockets as f64 / 2.0,
            mean("connect"),
            each(&one),
            each(&eight),
            micros(&pinged["work"]) / number(&pinged["work"]["pings"]),
            mean("leave"),
        ])?;
    }
    Ok(table)
}

/// Channels with one subscriber each, pushed to in turn at a fixed rate; a socket is on at most 500.
pub fn channels(bench: &Bench, quick: bool) -> Result<ScaleTable> {
    let mut table = ScaleTable::new(
        "channels",
        "Channels with one subscriber each (500 of a socket), 2,000 pushes a second in turns",
        &["channels", "sockets", "RSS bytes per channel", "CPU µs per push", "p99 ms"],
    );
    let sizes: &[usize] = if quick { &[1, 1_000] } else { &[1, 100, 1_000, 10_000, 100_000] };
    for &channels in sizes {
        let sockets = channels.div_ceil(500);
        let work = LoadWork::Paced { per_second: 2_000.0, pushes: if quick { 4_000 } else { 12_000 } };
        let job = Job { sockets, channels, subscriptions: channels / sockets, work, ..bench.job()? };
        let report = once(bench, &job, &[])?;
        table.add(vec![
            channels as f64,
            sockets as f64,
            grown_kib(&report) * 1024.0 / channels as f64,
            micros(&report["work"]) / number(&report["work"]["pushes"]),
            number(&report["work"]["latency"]["p99"]) / 1e3,
        ])?;
    }
    Ok(table)
}

/// Channels of their own for each socket.
pub fn subscriptions(bench: &Bench, quick: bool) -> Result<ScaleTable> {
    let mut table = ScaleTable::new(
        "subscriptions",
        "500 sockets with channels of their own",
        &[
            "subscriptions of a socket",
            "RSS KiB per socket",
            "RSS bytes per subscription",
            "CPU µs per socket, connect and subscribe",
            "CPU µs per further subscription",
            "CPU µs per socket, disconnect",
            "CPU µs per further subscription given up",
        ],
    );
    let sizes: &[usize] = if quick { &[1, 100] } else { &[1, 10, 100, 1_000] };
    let sockets = 500;
    let mut first: Option<(f64, f64, f64)> = None;
    for &subscriptions in sizes {
        let job = Job {
            sockets,
            subscriptions,
            channels: sockets * subscriptions,
            leave: true,
            work: LoadWork::Idle,
            ..bench.job()?
        };
        let report = once(bench, &job, &[])?;
        let each = |whole: f64| whole / sockets as f64;
        let (kib, join, leave) =
            (each(grown_kib(&report)), each(micros(&report["connect"])), each(micros(&report["leave"])));
        let (kib_of_one, join_of_one, leave_of_one) = *first.get_or_insert((kib, join, leave));
        // what the others cost more than the first; none is there in the first row
        let more = |all: f64, one: f64| (all - one) / (subscriptions as f64 - 1.0);
        table.add(vec![
            subscriptions as f64,
            kib,
            more(kib, kib_of_one) * 1024.0,
            join,
            more(join, join_of_one),
            leave,
            more(leave, leave_of_one),
        ])?;
    }
    Ok(table)
}
