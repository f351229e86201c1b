//! What Wellhead costs, next to the least that it could cost: baselines, a load generator, and a runner that puts them
//! side by side. `docs/performance.md` says how to read it.

mod child;
mod histogram;
mod limit;
mod load;
mod metrics;
mod proc;
mod run;
mod scale;
mod soak;
mod textbook;
mod wire;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about, version)]
struct BenchCli {
    #[command(subcommand)]
    command: BenchCommand,
}

#[derive(Subcommand)]
enum BenchCommand {
    /// Measure everything, and write target/bench/table.md and results.json
    Run(run::RunOptions),
    /// How cost grows with sockets, channels, subscriptions and slaves, in tables
    Scale(scale::ScaleOptions),
    /// User instructions for one delivery and for one push, by callgrind
    Instructions(run::instructions::InstructionsOptions),
    /// Connect, subscribe, leave and push for a while, and see whether everything is given back
    Soak(soak::SoakOptions),
    /// The baseline `limit`: bare epoll, one write for each socket and message
    Limit {
        /// One write for each socket and round instead
        #[arg(long)]
        coalesce: bool,
    },
    /// The baseline `textbook`: actix-web-actors as its examples have it
    Textbook,
    /// One job of the load generator, read as JSON from stdin; the result is JSON on stdout
    Load,
}

fn main() -> Result<()> {
    // each socket of a job is a file descriptor here and one at the server
    rlimit::increase_nofile_limit(u64::MAX)?;
    match BenchCli::parse().command {
        BenchCommand::Run(options) => run::run(&options),
        BenchCommand::Scale(options) => scale::run(&options),
        BenchCommand::Instructions(options) => run::instructions::run(&options),
        BenchCommand::Soak(options) => soak::run(&options),
        BenchCommand::Limit { coalesce } => limit::serve(coalesce),
        BenchCommand::Textbook => textbook::serve(),
        BenchCommand::Load => load::command(),
    }
}
