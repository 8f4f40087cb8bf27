//! `lb-lab fuzz`: stories in the kernel, as long as wanted.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::run::{self, Report, SEED};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Folders with inputs to begin with
    #[arg(required_unless_present = "replay")]
    corpus: Vec<PathBuf>,
    /// For how long
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Of what is made up
    #[arg(long, default_value_t = SEED)]
    seed: u64,
    /// Only this input, once
    #[arg(long, value_name = "FILE", conflicts_with = "corpus")]
    replay: Option<PathBuf>,
    /// Where inputs are left that the programs fail on
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    keep: PathBuf,
}

/// Tells them. True where nothing is wrong.
///
/// # Errors
/// Where the programs cannot be loaded, or a file cannot be read or written.
#[expect(clippy::print_stdout, reason = "the program's own face")]
pub fn run(arguments: &Arguments) -> Result<bool> {
    let Arguments { corpus, seconds, seed, replay, keep } = arguments;
    let report = match replay {
        Some(path) => {
            let known = [(path.display().to_string(), run::read(path)?)];
            run::run(&known, *seed, Duration::ZERO)?
        }
        None => run::run(&run::inputs(corpus)?, *seed, Duration::from_secs(*seconds))?,
    };
    let Report { known, new, frames, failures } = &report;
    for (number, found) in failures.iter().enumerate() {
        println!("{}: {}", found.name, found.why);
        if replay.is_none() {
            let path = keep.join(format!("kernel-{seed}-{number}"));
            let written = std::fs::write(&path, &found.story);
            written.with_context(|| format!("cannot write {}", path.display()))?;
            println!("the input is in {}", path.display());
        }
    }
    println!(
        "{known} known and {new} new stories of seed {seed}, {frames} frames by XDP and by tc: \
         {} failed",
        failures.len()
    );
    Ok(failures.is_empty())
}
