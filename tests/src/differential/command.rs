//! `lb-lab model`.

use anyhow::Result;

use super::runner;
use crate::scenario::stage::{Setting, Stage};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// How many
    #[arg(long, default_value_t = 100_000)]
    sequences: u64,
    /// Of the first; the others follow
    #[arg(long, default_value_t = super::SEED)]
    seed: u64,
    /// Print the result as one JSON object, the last line of standard output
    #[arg(long)]
    json: bool,
}

/// Runs them, and tells. True where nothing differed.
///
/// # Errors
/// Where the output is closed.
pub fn run(arguments: &Arguments) -> Result<bool> {
    let Arguments { sequences, seed, json } = *arguments;
    let about = "frames and changes, for the programs in the kernel and for the model";
    let mut stage = Stage::open("model", about, &Setting::within(json))?;
    let bar = stage.bar(sequences);
    let outcome = runner::run(seed, sequences, move |done| bar.set_position(done));
    let outcome = outcome.map(|report| tell(&mut stage, &report, seed));
    stage.close(&outcome)
}

fn tell(stage: &mut Stage, report: &runner::Report, seed: u64) {
    for difference in &report.differences {
        difference.lines().for_each(|line| stage.say(line));
    }
    let first = report.differences.first().and_then(|text| text.lines().next()).unwrap_or_default();
    let seen = format!("{} sequences differed {first}", report.differing);
    stage.claim("the programs do what the model says", report.differing == 0, seen);
    stage.figure("sequences", report.sequences);
    stage.figure("seed", seed);
    stage.figure("runs", report.runs);
    stage.figure("verdicts", report.given().count());
    stage.figure("seconds", (report.took.as_secs_f64() * 10.0).round() / 10.0);
}
