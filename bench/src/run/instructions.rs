//! User instructions for one delivery, for one push and for one batch. Two runs under callgrind that differ in how much is pushed;
//! what one does more than the other, divided by what it did more. Free of noise, and blind to the kernel.

use std::{
    io::{Write, stderr, stdout},
    path::PathBuf,
    process::Command,
};

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::{bench::Bench, contender::Contender, environment::has, running::RunningContender};
use crate::{
    child::ServerProcess,
    load::{Job, LoadWork},
};

/// Sockets; under callgrind everything takes fifty times as long.
const SOCKETS: usize = 300;

/// What to count.
#[derive(Args)]
pub struct InstructionsOptions {
    /// The program to count; the one beside this one
    #[arg(long)]
    wellhead: Option<PathBuf>,
}

/// Count, and print a table.
pub fn run(options: &InstructionsOptions) -> Result<()> {
    ensure!(has("valgrind"), "callgrind is missing: apt-get install valgrind");
    let bench = Bench::new(options.wellhead.clone())?;
    let fan_out = Job { sockets: SOCKETS, ..bench.job()? };
    let own_channels = Job { channels: SOCKETS, ..fan_out.clone() };
    let mut out = stdout().lock();
    writeln!(out, "| user instructions | a delivery | a delivery, eight under way | a push | a batch of 10 |")?;
    writeln!(out, "| --- | --- | --- | --- | --- |")?;
    let contenders =
        [Contender::Write, Contender::Coalesce, Contender::Wellhead, Contender::Pusher, Contender::Textbook];
    for contender in contenders {
        write!(out, "| {} |", contender.name())?;
        // few and many pushes: what they differ in is fan-out alone
        for (job, window, batch, few, many, each) in [
            (&fan_out, 1, 1, 20, 120, SOCKETS),
            (&fan_out, 8, 1, 40, 240, SOCKETS),
            (&own_channels, 16, 1, 200, 2200, 1),
            (&own_channels, 16, 10, 100, 600, 1),
        ] {
            if contender == Contender::Textbook && batch > 1 {
                write!(out, " – |")?;
                continue;
            }
            let count = |pushes| counted(&bench, contender, job, LoadWork::Windowed { pushes, window, batch });
            let (more, less) = (count(many)?, count(few)?);
            write!(out, " {:.0} |", (more - less) / ((many - few) * each as u64) as f64)?;
            out.flush()?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn counted(bench: &Bench, contender: Contender, job: &Job, work: LoadWork) -> Result<f64> {
    let (program, _) = bench.command(contender, "standalone", &[]);
    let mut command = Command::new("valgrind");
    let profile = bench.folder.join("callgrind.out");
    command.args(["--tool=callgrind", &format!("--callgrind-out-file={}", profile.display())]).arg(program);
    bench.arguments(&mut command, contender, "standalone", &[]);
    let server = ServerProcess::start(command, bench.cores().0)?;
    let job = Job { work, ..job.clone() };
    let running = RunningContender::speaking(contender, server);
    let report = bench.load(contender, &running, &job)?;
    ensure!(report["lost"] == 0 && report["wrong"] == 0, "{} lost something: {report}", contender.name());
    let mut collected = None;
    for server in running.servers {
        for line in server.stop()? {
            if let Some((_, number)) = line.split_once("Collected : ") {
                collected = number.trim().parse::<f64>().ok();
            }
        }
    }
    writeln!(stderr(), "{} · {:?} · {collected:?}", contender.name(), job.work)?;
    collected.context("callgrind did not say what it collected")
}
