//! What the servers, and the generator itself, cost from one moment to another.

use std::time::Instant;

use anyhow::Result;
use serde_json::{Value, json};

use crate::{
    load::Job,
    proc::{self, Cpu},
};

/// Time and processor time since it was started.
pub struct Meter {
    at: Instant,
    servers: Vec<Cpu>,
    /// The same without user and system apart, but finer than the hundredths that those are counted in.
    exact: Vec<f64>,
    own: Cpu,
}

impl Meter {
    /// From now on.
    pub fn start(job: &Job) -> Result<Self> {
        let own = proc::cpu(&[std::process::id()])?;
        Ok(Self { at: Instant::now(), servers: each(job)?, exact: exact(job), own })
    }

    /// Since then; `with` what else is to be said about it.
    pub fn lap(&self, job: &Job, mut with: Value) -> Result<Value> {
        let seconds = self.at.elapsed().as_secs_f64();
        let spent: Vec<Cpu> = each(job)?.into_iter().zip(&self.servers).map(|(now, before)| now - *before).collect();
        with["seconds"] = json!(seconds);
        // a server that nobody named the process of costs an unknown amount, not nothing
        if !spent.is_empty() {
            with["cpu"] = json!(spent.into_iter().sum::<Cpu>());
            let each: Vec<_> = exact(job).into_iter().zip(&self.exact).map(|(now, before)| now - before).collect();
            with["cpu_each"] = json!(each);
        }
        with["generator_cpu"] = json!((proc::cpu(&[std::process::id()])? - self.own).total());
        Ok(with)
    }
}

fn each(job: &Job) -> Result<Vec<Cpu>> {
    job.pids.iter().map(|&pid| proc::cpu(&[pid])).collect()
}

fn exact(job: &Job) -> Vec<f64> {
    job.pids.iter().map(|&pid| proc::running(pid)).collect()
}
