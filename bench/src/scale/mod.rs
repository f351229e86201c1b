//! How cost grows: with sockets, with channels, with subscriptions of a socket, with slaves. Tables whose rows differ in
//! one thing only; a column that grows with it is a cost that somebody will meet at a larger size.

mod rows;
mod slaves;

use std::{
    fs,
    io::{Write, stderr, stdout},
    path::PathBuf,
    time::Instant,
};

use anyhow::{Result, ensure};
use clap::Args;
use serde_json::Value;

use crate::run::{bench::Bench, environment::has, figure};

const TABLES: [&str; 6] = ["sockets", "channels", "subscriptions", "slaves-local", "slaves-nats", "wildcard"];

/// What to measure.
#[derive(Args)]
pub struct ScaleOptions {
    /// Only these tables: sockets, channels, subscriptions, slaves-local, slaves-nats, wildcard; with commas between
    #[arg(long)]
    only: Option<String>,
    /// Smaller sizes
    #[arg(long)]
    quick: bool,
    /// The program to measure; the one beside this one
    #[arg(long)]
    wellhead: Option<PathBuf>,
}

/// A table as it grows, row after row.
pub struct ScaleTable {
    name: &'static str,
    title: String,
    columns: Vec<&'static str>,
    rows: Vec<Vec<f64>>,
}

impl ScaleTable {
    fn new(name: &'static str, title: &str, columns: &[&'static str]) -> Self {
        Self { name, title: title.to_owned(), columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Add a row, and say it at once: a table takes minutes.
    fn add(&mut self, row: Vec<f64>) -> Result<()> {
        let cells: Vec<_> =
            self.columns.iter().zip(&row).map(|(column, &cell)| format!("{column} {}", shown(cell))).collect();
        writeln!(stderr(), "{} · {}", self.name, cells.join(" · "))?;
        self.rows.push(row);
        Ok(())
    }

    fn markdown(&self) -> String {
        let mut text = format!("**{}**\n\n| {} |\n|", self.title, self.columns.join(" | "));
        text += &" --- |".repeat(self.columns.len());
        for row in &self.rows {
            let cells: Vec<_> = row.iter().map(|&cell| shown(cell)).collect();
            text += &format!("\n| {} |", cells.join(" | "));
        }
        text + "\n"
    }
}

/// Measure, and print the tables; they stand in target/bench/scale.md, too.
pub fn run(options: &ScaleOptions) -> Result<()> {
    let began = Instant::now();
    let bench = Bench::new(options.wellhead.clone())?;
    let quick = options.quick;
    let wanted =
        |name: &str| options.only.as_ref().is_none_or(|only| only.split(',').any(|word| name.starts_with(word)));
    let mut text = String::new();
    for name in TABLES.into_iter().filter(|name| wanted(name)) {
        let table = match name {
            "sockets" => rows::sockets(&bench, quick)?,
            "channels" => rows::channels(&bench, quick)?,
            "subscriptions" => rows::subscriptions(&bench, quick)?,
            "slaves-local" => slaves::slaves(&bench, quick, false)?,
            // the others need it
            _ if !has("nats-server") => continue,
            "slaves-nats" => slaves::slaves(&bench, quick, true)?,
            _ => slaves::wildcard(&bench, quick)?,
        };
        text += &table.markdown();
        text.push('\n');
        fs::write(bench.folder.join("scale.md"), &text)?;
    }
    stdout().write_all(text.as_bytes())?;
    writeln!(stderr(), "took {:.0} minutes", began.elapsed().as_secs_f64() / 60.0)?;
    Ok(())
}

/// What must hold for a row to be worth anything.
fn sound(report: Value) -> Result<Value> {
    for flaw in ["lost", "wrong", "refused", "closed"] {
        ensure!(report[flaw] == 0, "{flaw}: {} {}", report[flaw], report["example"]);
    }
    Ok(report)
}

/// Whole numbers whole, others as far as they are worth it.
fn shown(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { figure(value) }
}
