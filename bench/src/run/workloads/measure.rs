//! Numbers that are read from reports, and what they should be.

use serde_json::Value;

/// A number in a report.
pub struct Measure {
    /// What tables call it.
    pub name: String,
    /// Where it comes from.
    pub of: Box<dyn Fn(&Value) -> f64>,
    /// What it should be.
    pub goal: Option<Goal>,
}

/// What a number should be.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    /// At most so many times the baseline's.
    Ratio(f64),
    /// At most.
    AtMost(f64),
    /// At least.
    AtLeast(f64),
    /// What it is compared with has at most so much more.
    BaseAtMostMore(f64),
}

/// A measure.
pub fn measure(name: &str, goal: Option<Goal>, of: impl Fn(&Value) -> f64 + 'static) -> Measure {
    Measure { name: name.to_owned(), of: Box::new(of), goal }
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
pub fn cpu_per_million(goal: Option<Goal>) -> Measure {
    measure("CPU s per 1M deliveries", goal, |report| {
        total(&report["work"]["cpu"]) / number(&report["work"]["deliveries"]) * 1e6
    })
}

/// The part of it that the program itself uses.
pub fn user_per_million() -> Measure {
    measure("of it in the program, s", None, |report| {
        number(&report["work"]["cpu"]["user"]) / number(&report["work"]["deliveries"]) * 1e6
    })
}

/// Microseconds on the processor for a push.
pub fn cpu_per_push(goal: Option<Goal>) -> Measure {
    measure("CPU µs per push", goal, |report| total(&report["work"]["cpu"]) / number(&report["work"]["pushes"]) * 1e6)
}

/// Pushes in a second.
pub fn pushes_per_second(goal: Option<Goal>) -> Measure {
    measure("pushes/s", goal, |report| number(&report["work"]["pushes"]) / number(&report["work"]["seconds"]))
}

/// Deliveries in a second.
pub fn delivered_per_second(goal: Option<Goal>) -> Measure {
    measure("deliveries/s", goal, |report| number(&report["work"]["deliveries"]) / number(&report["work"]["seconds"]))
}

/// The time that this share of the pushes stays below.
pub fn latency(share: &'static str, goal: Option<Goal>) -> Measure {
    measure(&format!("{share} ms"), goal, move |report| number(&report["work"]["latency"][share]) / 1e3)
}

/// Resident memory that sockets cost.
pub fn memory_per_socket(goal: Option<Goal>) -> Measure {
    measure("RSS KiB per socket", goal, |report| {
        let memory = &report["memory"];
        // without processes to look at there are zeros
        let before = number(&memory["before_kib"]);
        let grown = number(&memory["open_kib"]) - before;
        if before == 0.0 { f64::NAN } else { grown / number(&report["sockets"]) }
    })
}
