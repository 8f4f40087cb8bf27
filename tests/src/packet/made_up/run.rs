//! Stories in the kernel: those that are known, then as many new ones as time allows.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::loaded::{Loaded, Steering, scene};
use super::mutation;
use super::story::{self, Failure};
use crate::packet::kernel::{self, Kernel};
use crate::simulation::random::Random;

/// The seed where none is given.
pub const SEED: u64 = 1;
/// Inputs that are taken from one folder, and the largest: what libFuzzer finds in an hour.
const INPUTS_MAX: usize = 5000;
const INPUT_MAX: u64 = 32 << 10;
/// Failures that are told of; what they have in common shows in fewer.
const FAILURES_MAX: usize = 5;

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    pub known: u64,
    pub new: u64,
    /// Frames, each steered by XDP and by tc.
    pub frames: u64,
    pub failures: Vec<Found>,
}

/// A story that is not as it ought to be.
#[derive(Debug)]
pub struct Found {
    /// A file, or a seed and a number.
    pub name: String,
    pub story: Vec<u8>,
    pub why: String,
}

/// The inputs of folders by name; a folder that does not exist has none.
///
/// # Errors
/// Where a file cannot be read.
pub fn inputs(folders: &[PathBuf]) -> Result<Vec<(String, Vec<u8>)>> {
    let mut inputs = Vec::new();
    for folder in folders.iter().filter(|folder| folder.exists()) {
        let entries = std::fs::read_dir(folder);
        let entries = entries.with_context(|| format!("cannot read {}", folder.display()))?;
        let mut paths = Vec::new();
        for entry in entries {
            let entry = entry?;
            if entry.metadata()?.len() <= INPUT_MAX {
                paths.push(entry.path());
            }
        }
        paths.sort();
        paths.truncate(INPUTS_MAX);
        for path in paths {
            inputs.push((path.display().to_string(), read(&path)?));
        }
    }
    Ok(inputs)
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Tells the stories, or as many as half of the time allows, and new ones made of them until it is up.
///
/// # Errors
/// Where the programs cannot be loaded, or there is nothing to begin with.
pub fn run(known: &[(String, Vec<u8>)], seed: u64, time: Duration) -> Result<Report> {
    ensure!(!known.is_empty(), "there is no story to begin with");
    let stories: Vec<Vec<u8>> = known.iter().map(|(_, story)| story.clone()).collect();
    kernel::apart(|| {
        let mut kernel = Kernel::load()?;
        let mut report = Report::default();
        let begun = Instant::now();
        let (half, end) = (begun + time / 2, begun + time);
        // However many there are, half of the time is for new ones.
        for (name, story) in known.iter().take_while(|_| time.is_zero() || Instant::now() < half) {
            report.known += 1;
            report.tell(&mut kernel, name, story)?;
        }
        while Instant::now() < end && report.failures.len() < FAILURES_MAX {
            report.new += 1;
            let number = report.new;
            let story = mutation::story(&mut Random::new(seed.wrapping_add(number)), &stories);
            report.tell(&mut kernel, &format!("seed {seed}, story {number}"), &story)?;
        }
        Ok(report)
    })
}

impl Report {
    fn tell(&mut self, kernel: &mut Kernel, name: &str, story: &[u8]) -> Result<()> {
        match one(kernel, story)? {
            Ok(frames) => self.frames += frames as u64,
            Err(_) if self.failures.len() >= FAILURES_MAX => {}
            Err(why) => {
                self.failures.push(Found { name: name.to_owned(), story: story.to_vec(), why });
            }
        }
        Ok(())
    }
}

/// How many frames a story had, or what is wrong with it.
fn one(kernel: &mut Kernel, input: &[u8]) -> Result<Result<usize, String>> {
    let Some((setting, steps)) = story::read(input) else { return Ok(Ok(0)) };
    let scene = scene(&setting);
    let mut ends = Vec::new();
    let mut ran_all = true;
    kernel.set(&scene).context("cannot set the scene")?;
    for steering in [Steering::Xdp, Steering::Tc] {
        kernel.forget_flows()?;
        let mut loaded = Loaded { kernel, steering, ran_all };
        match story::tell(&mut loaded, &setting, &steps) {
            Ok(told) => ends.push(told),
            Err(Failure::Run(error)) => return Ok(Err(format!("{steering:?}: {error:#}"))),
            Err(Failure::Wrong(wrong)) => {
                return Ok(Err(format!("{steering:?}: {wrong}\n{setting:?}")));
            }
        }
        ran_all = loaded.ran_all;
    }
    if ran_all && !story::alike(&ends[0], &ends[1]) {
        return Ok(Err(format!("XDP and tc differ:\n{:?}\n{:?}", ends[0], ends[1])));
    }
    Ok(Ok(ends[0].len()))
}
