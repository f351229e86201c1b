//! What the kernel knows about processes: time on the processor and resident memory, from /proc.

use std::{fs, iter::Sum, ops::Sub};

use anyhow::{Context, Result};
use rustix::{
    process::Pid,
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};
use serde::{Deserialize, Serialize};

/// Seconds on the processor.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub struct Cpu {
    /// In the program.
    pub user: f64,
    /// In the kernel on its behalf.
    pub system: f64,
}

impl Cpu {
    /// All of it.
    pub fn total(self) -> f64 {
        self.user + self.system
    }
}

impl Sum for Cpu {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self { user: sum.user + one.user, system: sum.system + one.system })
    }
}

impl Sub for Cpu {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self { user: self.user - other.user, system: self.system - other.system }
    }
}

/// What these processes, with all their threads, have used so far.
pub fn cpu(pids: &[u32]) -> Result<Cpu> {
    // the kernel counts in hundredths of a second for every program, whatever its own clock does
    let mut sum = Cpu::default();
    for pid in pids {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("a server is gone")?;
        let behind_name = stat.rsplit_once(')').context("a stat has a name")?.1;
        let mut fields = behind_name.split_ascii_whitespace().skip(11).map(|field| field.parse::<f64>());
        let mut next = || fields.next().context("a stat has times")?.context("times are numbers");
        sum.user += next()? / 100.0;
        sum.system += next()? / 100.0;
    }
    Ok(sum)
}

/// Seconds on the processor of the threads that this process has now, to the nanosecond where the kernel tells.
pub fn running(pid: u32) -> f64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let nanos = tasks.filter_map(|task| {
        let stat = fs::read_to_string(task.path().join("schedstat")).ok()?;
        stat.split_ascii_whitespace().next()?.parse::<f64>().ok()
    });
    match nanos.sum::<f64>() / 1e9 {
        0.0 => cpu(&[pid]).unwrap_or_default().total(),
        seconds => seconds,
    }
}

/// This process and those that it started.
pub fn family(pid: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let child = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            Some((child, stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()?))
        })
        .collect();
    let mut family = vec![pid];
    let mut at = 0;
    while let Some(&parent) = family.get(at) {
        family.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(child, _)| child));
        at += 1;
    }
    family
}

/// Resident memory of these processes in KiB, now or at its highest.
pub fn rss(pids: &[u32], highest: bool) -> Result<f64> {
    let name = if highest { "VmHWM:" } else { "VmRSS:" };
    let mut sum = 0.0;
    for pid in pids {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).context("a server is gone")?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)).context("a status has its memory")?;
        sum += line.trim().trim_end_matches(" kB").parse::<f64>()?;
    }
    Ok(sum)
}

/// What the kernel holds in small objects, for whomever, in KiB: the only trace of what a connection costs there.
pub fn slab() -> f64 {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = info.lines().find_map(|line| line.strip_prefix("Slab:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(f64::NAN)
}

/// The cores that this thread may run on.
pub fn cores() -> Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect())
}

/// Keep this thread, and what it starts from now on, to `cores`.
pub fn pin(cores: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    for &core in cores {
        set.set(core);
    }
    sched_setaffinity(None::<Pid>, &set).context("cannot choose cores")
}
