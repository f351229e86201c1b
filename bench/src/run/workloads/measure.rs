//! Numbers that are read from reports, and what they should be.

use serde_json::Value;

use crate::run::contender::Contender;

/// A number in a report.
pub struct Measure {
    /// What tables call it.
    pub name: String,
    /// Where it comes from.
    pub of: Box<dyn Fn(&Value) -> f64>,
    /// What it should be.
    pub goals: Vec<Goal>,
}

/// What a number should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// At most so many times the baseline's.
    Ratio(f64),
    /// At least so many times the baseline's.
    RatioAtLeast(f64),
    /// At most so many times another's; where that one did not take part, nothing.
    Beside(Contender, f64),
    /// At most.
    AtMost(f64),
    /// At least.
    AtLeast(f64),
    /// What it is compared with has at most so much more.
    BaseAtMostMore(f64),
}

/// Ahead of the others in C and C++, where they are installed.
pub const AHEAD: [Goal; 2] = [Goal::Beside(Contender::Nchan, 1.0), Goal::Beside(Contender::Uws, 1.0)];

/// A measure.
pub fn measure(name: &str, goals: &[Goal], of: impl Fn(&Value) -> f64 + 'static) -> Measure {
    Measure { name: name.to_owned(), of: Box::new(of), goals: goals.to_vec() }
}

/// A number that may not be there.
pub fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

/// Seconds on the processor.
pub fn total(cpu: &Value) -> f64 {
    number(&cpu["user"]) + number(&cpu["system"])
}

/// Seconds on the processor for a million deliveries.
pub fn cpu_per_million(goals: &[Goal]) -> Measure {
    measure("CPU s per 1M deliveries", goals, |report| {
        total(&report["work"]["cpu"]) / number(&report["work"]["deliveries"]) * 1e6
    })
}

/// The part of it that the program itself uses.
pub fn user_per_million() -> Measure {
    measure("of it in the program, s", &[], |report| {
        number(&report["work"]["cpu"]["user"]) / number(&report["work"]["deliveries"]) * 1e6
    })
}

/// Microseconds on the processor for a push.
pub fn cpu_per_push(goals: &[Goal]) -> Measure {
    measure("CPU µs per push", goals, |report| total(&report["work"]["cpu"]) / number(&report["work"]["pushes"]) * 1e6)
}

/// Pushes in a second.
pub fn pushes_per_second(goals: &[Goal]) -> Measure {
    measure("pushes/s", goals, |report| number(&report["work"]["pushes"]) / number(&report["work"]["seconds"]))
}

/// Deliveries in a second.
pub fn delivered_per_second(goals: &[Goal]) -> Measure {
    measure("deliveries/s", goals, |report| number(&report["work"]["deliveries"]) / number(&report["work"]["seconds"]))
}

/// The time that this share of the pushes stays below.
pub fn latency(share: &'static str, goals: &[Goal]) -> Measure {
    measure(&format!("{share} ms"), goals, move |report| number(&report["work"]["latency"][share]) / 1e3)
}

/// Resident memory that sockets cost.
pub fn memory_per_socket(goals: &[Goal]) -> Measure {
    measure("RSS KiB per socket", goals, |report| {
        let memory = &report["memory"];
        // without processes to look at there are zeros
        let before = number(&memory["before_kib"]);
        let grown = number(&memory["open_kib"]) - before;
        if before == 0.0 { f64::NAN } else { grown / number(&report["sockets"]) }
    })
}
