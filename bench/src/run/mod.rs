//! Puts the contenders side by side: one after the other, round after round, on cores of their own.

pub mod bench;
pub mod contender;
pub mod environment;
pub mod instructions;
mod nats;
mod nchan;
mod peer;
pub mod running;
mod table;
mod uws;
mod workloads;

use std::{
    fs,
    io::{Write, stderr, stdout},
    path::PathBuf,
    time::Instant,
};

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use self::{bench::Bench, contender::Contender, peer::PeerServer, workloads::Workload};
pub use self::{table::figure, workloads::measure};

/// What to measure.
#[derive(Args)]
pub struct RunOptions {
    /// Once, and smaller
    #[arg(long)]
    quick: bool,
    /// Only this workload, or those whose names begin with this; several with commas between
    #[arg(long)]
    only: Option<String>,
    /// Name the workloads, and measure nothing
    #[arg(long)]
    list: bool,
    /// A server that runs already, as name=…,protocol=gusher|raw|nchan|pusher,ws=HOST:PORT,http=HOST:PORT[,pid=…], with
    /// pusher id=…,key=…,secret=…, with gusher token=…; may be given several times
    #[arg(long)]
    peer: Vec<PeerServer>,
    /// How often each, instead of 3 times
    #[arg(long)]
    rounds: Option<usize>,
    /// The program to measure; the one beside this one
    #[arg(long)]
    wellhead: Option<PathBuf>,
}

/// The reports of one workload: of each contender, round after round.
pub struct WorkloadOutcome {
    workload: Workload,
    reports: Vec<(Contender, Vec<Value>)>,
}

/// Measure, print the table, write it and the reports.
pub fn run(options: &RunOptions) -> Result<()> {
    let began = Instant::now();
    let bench = Bench::new(options.wellhead.clone())?;
    let mut outcomes = Vec::new();
    let workloads = workloads::chosen(&bench, options.quick, &options.peer, options.only.as_deref())?;
    if options.list {
        for workload in workloads {
            writeln!(stdout(), "{:<24}{}", workload.name, workload.title)?;
        }
        return Ok(());
    }
    for workload in workloads {
        outcomes.push(measure(&bench, workload, options.rounds)?);
        // after each, so that what was measured is there if it is interrupted
        write(&bench, &outcomes)?;
    }
    stdout().write_all(table::markdown(&bench, &outcomes)?.as_bytes())?;
    // `make help` says how long it takes: this is where that comes from
    writeln!(stderr(), "took {:.0} minutes", began.elapsed().as_secs_f64() / 60.0)?;
    Ok(())
}

fn measure(bench: &Bench, workload: Workload, rounds: Option<usize>) -> Result<WorkloadOutcome> {
    let mut reports: Vec<_> = workload.contenders.iter().map(|&contender| (contender, Vec::new())).collect();
    let rounds = rounds.unwrap_or(workload.rounds);
    for round in 1..=rounds {
        for (contender, reports) in &mut reports {
            let report = once(bench, *contender, &workload)?;
            let mut note = stderr().lock();
            write!(note, "{} · {} · {round}/{rounds}", workload.title, contender.name())?;
            for measure in &workload.measures {
                write!(note, " · {} {}", measure.name, figure((measure.of)(&report)))?;
            }
            writeln!(note, " · generator CPU {:.2} s", report["work"]["generator_cpu"].as_f64().unwrap_or(0.0))?;
            for flaw in ["lost", "wrong", "refused", "closed"] {
                if report[flaw] != 0 {
                    writeln!(note, "  {flaw}: {} {}", report[flaw], report["example"])?;
                }
            }
            reports.push(report);
        }
    }
    Ok(WorkloadOutcome { workload, reports })
}

fn once(bench: &Bench, contender: Contender, workload: &Workload) -> Result<Value> {
    let running = bench.start(contender, &workload.settings)?;
    let report = bench.load(contender, &running, &workload.job)?;
    running.stop()?;
    Ok(report)
}

fn write(bench: &Bench, outcomes: &[WorkloadOutcome]) -> Result<()> {
    fs::write(bench.folder.join("table.md"), table::markdown(bench, outcomes)?)?;
    let results: Vec<_> = outcomes
        .iter()
        .map(|outcome| {
            let reports: Vec<_> = outcome
                .reports
                .iter()
                .map(|(contender, rounds)| json!({ "contender": contender.name(), "rounds": rounds }))
                .collect();
            json!({ "workload": outcome.workload.name, "title": outcome.workload.title, "reports": reports })
        })
        .collect();
    fs::write(bench.folder.join("results.json"), serde_json::to_string_pretty(&results)?)?;
    Ok(())
}
