//! The table: medians over the rounds, and ratios inside each round.

use std::fmt::Write;

use anyhow::Result;
use serde_json::Value;

use super::{
    WorkloadOutcome,
    bench::Bench,
    contender::Contender,
    workloads::{Goal, Measure},
};

/// One table of everything.
pub fn markdown(bench: &Bench, outcomes: &[WorkloadOutcome]) -> Result<String> {
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

fn row(
    text: &mut String,
    title: &str,
    outcome: &WorkloadOutcome,
    measure: &Measure,
    others: &[Contender],
) -> Result<()> {
    let of = |contender: Contender| {
        let (_, reports) = outcome.reports.iter().find(|(one, _)| *one == contender)?;
        Some(reports.iter().map(|report| (measure.of)(report)).collect::<Vec<_>>())
    };
    let ours = of(outcome.workload.ours).unwrap_or_default();
    let base = outcome.workload.base.and_then(|base| Some((base, of(base)?)));
    let base_values = base.as_ref().map(|(_, values)| values.clone());
    let ratios = base_values.as_ref().map(|base| ratios_of(&ours, base)).unwrap_or_default();
    let base = base.map_or("–".to_owned(), |(base, values)| format!("{} ({})", spread(&values), base.name()));
    let column = |contender| of(contender).map_or("–".to_owned(), |values| spread(&values));
    let textbook = column(Contender::Textbook);
    let others: String = others.iter().map(|&other| format!(" {} |", column(other))).collect();
    let ratio = if ratios.is_empty() { "–".to_owned() } else { format!("**{}**", spread(&ratios)) };
    let (goal, mark) = judged(&measure.goals, &ours, base_values.as_deref(), of);
    let flaws = if title.is_empty() { String::new() } else { flaws(outcome) };
    writeln!(
        text,
        "| {title}{flaws} | {} | {} | {base} | {textbook} |{others} {ratio} | {goal} | {mark} |",
        measure.name,
        spread(&ours)
    )?;
    Ok(())
}

/// What is to reach, in words, and whether it is; `of` has the figures of who took part.
fn judged(
    goals: &[Goal],
    ours: &[f64],
    base: Option<&[f64]>,
    of: impl Fn(Contender) -> Option<Vec<f64>>,
) -> (String, String) {
    let ratio = base.map_or(f64::NAN, |base| median(&ratios_of(ours, base)));
    let (mut words, mut reached) = (Vec::new(), 0);
    for &goal in goals {
        let (word, is_reached) = match goal {
            Goal::Ratio(most) => (format!("≤ {most:.2} ×"), ratio <= most),
            Goal::RatioAtLeast(least) => (format!("≥ {least:.2} ×"), ratio >= least),
            Goal::Beside(other, most) => {
                let Some(others) = of(other) else { continue };
                let ratio = median(&ratios_of(ours, &others));
                (format!("≤ {most:.2} × {} (is {})", other.name(), figure(ratio)), ratio <= most)
            }
            Goal::AtMost(most) => (format!("≤ {}", figure(most)), median(ours) <= most),
            Goal::AtLeast(least) => (format!("≥ {}", figure(least)), median(ours) >= least),
            Goal::BaseAtMostMore(most) => {
                (format!("baseline ≤ + {most}"), base.is_some_and(|base| median(base) - median(ours) <= most))
            }
        };
        words.push(word);
        reached += usize::from(is_reached);
    }
    let mark = match words.len() {
        0 => String::new(),
        all if reached == all => "reached".to_owned(),
        1 => "not reached".to_owned(),
        all => format!("{reached} of {all} reached"),
    };
    (words.join(", "), mark)
}

/// Round by round.
fn ratios_of(ours: &[f64], others: &[f64]) -> Vec<f64> {
    ours.iter().zip(others).map(|(ours, other)| ours / other).filter(|ratio| ratio.is_finite()).collect()
}

/// What did not arrive as it should.
fn flaws(outcome: &WorkloadOutcome) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_are_judged_by_who_took_part_in_the_same_round() {
        let of = |one| (one == Contender::Nchan).then(|| vec![10.0, 100.0, 20.0]);
        let goals = [Goal::Ratio(1.35), Goal::Beside(Contender::Nchan, 1.0), Goal::Beside(Contender::Uws, 1.0)];
        // the second round was slow for everybody; medians of their own would say 1.30 and 0.65
        let (ours, base) = ([13.0, 60.0, 13.0], [10.0, 40.0, 9.0]);
        let (words, mark) = judged(&goals, &ours, Some(&base), of);
        assert_eq!((&*words, &*mark), ("≤ 1.35 ×, ≤ 1.00 × Nchan (is 0.65)", "1 of 2 reached"));
        assert_eq!(judged(&goals[..1], &[13.0], Some(&[10.0]), of).1, "reached");
        assert_eq!(judged(&goals[2..], &[13.0], Some(&[10.0]), of), (String::new(), String::new()));
    }

    #[test]
    fn more_is_better_for_rates() {
        let of = |_| None;
        let goal = [Goal::RatioAtLeast(0.5)];
        assert_eq!(judged(&goal, &[60.0], Some(&[100.0]), of), ("≥ 0.50 ×".to_owned(), "reached".to_owned()));
        assert_eq!(judged(&goal, &[40.0], Some(&[100.0]), of).1, "not reached");
        // and without a baseline nothing is reached
        assert_eq!(judged(&goal, &[40.0], None, of).1, "not reached");
    }
}
