//! The table: medians over the rounds, and ratios inside each round.

use std::fmt::Write;

use anyhow::Result;
use serde_json::Value;

use super::{
    Outcome,
    bench::Bench,
    contender::Contender,
    workloads::{Goal, Measure},
};

/// One table of everything.
pub fn markdown(bench: &Bench, outcomes: &[Outcome]) -> Result<String> {
    let mut text = String::new();
    let (servers, generator) = bench.cores();
    writeln!(text, "Server on core {servers:?}, load generator on core {generator:?}; {}.\n", machine())?;
    // others have columns where they took part in something
    let mut others = Vec::new();
    for (contender, _) in outcomes.iter().flat_map(|outcome| &outcome.reports) {
        if contender.is_foreign() && !others.contains(contender) {
            others.push(*contender);
        }
    }
    let names: String = others.iter().map(|other| format!(" {} |", other.name())).collect();
    writeln!(text, "| what | measure | Wellhead | baseline | textbook |{names} Wellhead / baseline | to reach | |")?;
    writeln!(text, "| --- | --- | --- | --- | --- |{} --- | --- | --- |", " --- |".repeat(others.len()))?;
    for outcome in outcomes {
        for (at, measure) in outcome.workload.measures.iter().enumerate() {
            let title = if at == 0 { outcome.workload.title.as_str() } else { "" };
            row(&mut text, title, outcome, measure, &others)?;
        }
    }
    Ok(text)
}

fn row(text: &mut String, title: &str, outcome: &Outcome, measure: &Measure, others: &[Contender]) -> Result<()> {
    let of = |contender: Contender| {
        let (_, reports) = outcome.reports.iter().find(|(one, _)| *one == contender)?;
        Some(reports.iter().map(|report| (measure.of)(report)).collect::<Vec<_>>())
    };
    let ours = of(outcome.workload.ours).unwrap_or_default();
    let base = outcome.workload.base.and_then(|base| Some((base, of(base)?)));
    let more = base.as_ref().map_or(f64::NAN, |(_, base)| median(base) - median(&ours));
    let ratios: Vec<_> = base
        .iter()
        .flat_map(|(_, base)| ours.iter().zip(base).map(|(ours, base)| ours / base))
        .filter(|ratio| ratio.is_finite())
        .collect();
    let base = base.map_or("–".to_owned(), |(base, values)| format!("{} ({})", spread(&values), base.name()));
    let column = |contender| of(contender).map_or("–".to_owned(), |values| spread(&values));
    let textbook = column(Contender::Textbook);
    let others: String = others.iter().map(|&other| format!(" {} |", column(other))).collect();
    let ratio = if ratios.is_empty() { "–".to_owned() } else { format!("**{}**", spread(&ratios)) };
    let (goal, reached) = match measure.goal {
        None => ("", true),
        Some(Goal::Ratio(most)) => (&*format!("≤ {most:.2} ×"), median(&ratios) <= most),
        Some(Goal::AtMost(most)) => (&*format!("≤ {}", figure(most)), median(&ours) <= most),
        Some(Goal::BaseAtMostMore(most)) => (&*format!("baseline ≤ + {most}"), more <= most),
        Some(Goal::AtLeast(least)) => (&*format!("≥ {}", figure(least)), median(&ours) >= least),
    };
    let mark = match (measure.goal, reached) {
        (None, _) => "",
        (_, true) => "reached",
        (_, false) => "not reached",
    };
    let flaws = if title.is_empty() { String::new() } else { flaws(outcome) };
    writeln!(
        text,
        "| {title}{flaws} | {} | {} | {base} | {textbook} |{others} {ratio} | {goal} | {mark} |",
        measure.name,
        spread(&ours)
    )?;
    Ok(())
}

/// What did not arrive as it should.
fn flaws(outcome: &Outcome) -> String {
    let mut text = String::new();
    for (contender, reports) in &outcome.reports {
        for flaw in ["lost", "wrong", "refused", "closed"] {
            let sum: u64 = reports.iter().filter_map(|report: &Value| report[flaw].as_u64()).sum();
            if sum > 0 {
                // writing to a string does not fail
                let _ = write!(text, "; {}: {sum} {flaw}", contender.name());
            }
        }
    }
    text
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => (sorted[even / 2 - 1] + sorted[even / 2]) / 2.0,
    }
}

/// The median, and from where to where it went.
fn spread(values: &[f64]) -> String {
    let (low, high) =
        values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &value| (low.min(value), high.max(value)));
    match values {
        [] => "–".to_owned(),
        [only] => figure(*only),
        _ => format!("{} ({}–{})", figure(median(values)), figure(low), figure(high)),
    }
}

/// A number with as many digits as it is worth.
pub fn figure(value: f64) -> String {
    match value.abs() {
        _ if value.is_nan() => "–".to_owned(),
        0.0 => "0".to_owned(),
        big if big >= 10_000.0 => format!("{:.0}k", value / 1e3),
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn machine() -> String {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model =
        info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("?", |(_, name)| name);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{model}, Linux {}", kernel.trim().split('-').next().unwrap_or_default())
}
