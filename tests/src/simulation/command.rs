//! `lb-lab simulate`.

use anyhow::Result;

use super::runner;
use crate::scenario::stage::{Setting, Stage};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// How many
    #[arg(long, default_value_t = 100_000)]
    scenarios: u64,
    /// Of the first; the others follow
    #[arg(long, default_value_t = super::SEED)]
    seed: u64,
    /// Print the result as one JSON object, the last line of standard output
    #[arg(long)]
    json: bool,
}

/// Runs them, and tells. True where every invariant held.
///
/// # Errors
/// Where the output is closed.
pub fn run(arguments: &Arguments) -> Result<bool> {
    let Arguments { scenarios, seed, json } = *arguments;
    let about = "routers of one virtual router, in virtual time, under faults";
    let mut stage = Stage::open("simulate", about, &Setting::within(json))?;
    let report = runner::run(seed, scenarios, |done| {
        stage.step(&format!("{done} of {scenarios} scenarios"));
    });
    for violation in &report.violations {
        violation.to_string().lines().for_each(|line| stage.say(line));
    }
    for ((cause, asleep), count) in &report.overlaps {
        let asleep = if *asleep { ", one of them asleep or dead" } else { "" };
        stage.say(&format!(
            "leases overlapped {} times for {cause:?}{asleep}, by {:.3} intervals at most",
            count.times, count.longest
        ));
    }
    let violated = format!("{} scenarios broke one", report.violated);
    stage.claim("every invariant holds", report.violated == 0, violated);
    stage.figure("scenarios", report.scenarios);
    stage.figure("seed", seed);
    stage.figure("events", report.events);
    stage.figure("seconds", (report.took.as_secs_f64() * 10.0).round() / 10.0);
    stage.close(&Ok(()))
}
