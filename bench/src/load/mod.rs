//! The load generator: one thread that opens sockets, pushes, and checks every byte that arrives. It takes its time from
//! a core of its own, and what the servers cost from /proc.

mod engine;
mod http;
mod job;
mod sockets;
mod speech;
mod track;
mod work;

use std::io::{Write, stdin, stdout};

use anyhow::Result;
use rustix::process::{Signal, set_parent_process_death_signal};

pub use self::{
    job::{Job, LoadWork, TokenSource},
    speech::{BenchApp, ServerProtocol},
};

/// Read a job from stdin, do it, and write what came of it to stdout.
pub fn command() -> Result<()> {
    set_parent_process_death_signal(Some(Signal::TERM))?;
    let job: Job = serde_json::from_reader(stdin().lock())?;
    let report = work::carry_out(job)?;
    writeln!(stdout().lock(), "{report}")?;
    Ok(())
}
