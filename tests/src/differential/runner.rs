//! Many sequences, one after the other, in a network namespace of their own.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use lb_common::counter::{COUNTERS, Verdict};

use super::generate;
use super::shrink::{self, Found};
use super::trial::Benches;
use crate::packet::kernel;

/// Differences that are shrunk and kept, each of another kind: one fault is found a thousand times.
const KEPT: usize = 8;

/// What many sequences came to.
#[derive(Default, Debug)]
pub struct Report {
    pub sequences: u64,
    /// Runs of a program on a frame.
    pub runs: u64,
    /// How many sequences showed a difference.
    pub differing: u64,
    /// The first of them, each in many lines.
    pub differences: Vec<String>,
    /// How often the model gave each verdict, by its index.
    pub verdicts: Vec<u64>,
    pub took: Duration,
}

impl Report {
    /// Names of the verdicts that the model gave, with how often.
    pub fn given(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Verdict::ALL.iter().filter_map(|verdict| {
            let times = self.verdicts[*verdict as usize];
            (times > 0).then_some((verdict.name(), times))
        })
    }
}

/// Runs the sequences of `count` seeds from `seed` on. `progress` is told how many are done.
///
/// # Errors
/// Where this process may not load programs, or the kernel refuses what ought to work.
pub fn run(seed: u64, count: u64, progress: impl Fn(u64) + Sync) -> Result<Report> {
    let progress = &progress;
    kernel::apart(|| {
        let began = Instant::now();
        let mut benches = Benches::load()?;
        let mut report = Report { verdicts: vec![0; COUNTERS], ..Report::default() };
        let mut kinds = BTreeSet::new();
        for seed in (0..count).map(|number| seed.wrapping_add(number)) {
            let steps = generate::sequence(seed)?;
            let outcome = benches.run(&steps).with_context(|| format!("sequence {seed}"))?;
            report.sequences += 1;
            match outcome {
                Ok(tried) => {
                    report.runs += tried.runs;
                    for (sum, times) in report.verdicts.iter_mut().zip(&tried.verdicts) {
                        *sum += u64::from(*times);
                    }
                }
                Err(failure) => {
                    report.differing += 1;
                    let kind = failure.difference.kind.clone();
                    if report.differences.len() < KEPT && kinds.insert(kind) {
                        let found = shrink::shrink(&mut benches, Found { steps, failure })?;
                        report.differences.push(shown(seed, &found));
                    }
                }
            }
            progress(report.sequences);
        }
        report.took = began.elapsed();
        Ok(report)
    })
}

fn shown(seed: u64, found: &Found) -> String {
    let Found { steps, failure } = found;
    let mut text = format!("seed {seed}: {}: {}", failure.program, failure.difference);
    for (number, step) in steps.iter().enumerate() {
        let _ = write!(text, "\n  {}. {step}", number + 1);
    }
    text
}
