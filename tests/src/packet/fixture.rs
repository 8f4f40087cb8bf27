//! A fixture: a scene, the frames that arrive one after another, and what becomes of each. Read
//! from TOML; the fields that leave changed are named, all others must leave as they came.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use lb_common::counter::Verdict;
use serde::Deserialize;

use super::checksum;
use super::frame::Frame;
use super::kernel::{self, Kernel};
use super::scene::Scene;

/// A file of fixtures about one thing.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// What they are about.
    pub about: String,
    /// The scene's fields, unless a fixture has its own.
    #[serde(default)]
    pub scene: toml::Table,
    /// Where they run, for those that don't say: both, since it is one body.
    #[serde(default = "both")]
    pub programs: Vec<Place>,
    pub fixture: Vec<Fixture>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fixture {
    /// A claim.
    pub name: String,
    #[serde(default)]
    pub scene: toml::Table,
    pub programs: Option<Vec<Place>>,
    pub step: Vec<Step>,
}

/// One frame and what becomes of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    #[serde(default, rename = "in")]
    pub arrives: toml::Table,
    /// The counter that moves, by one; "none" where none does.
    pub verdict: String,
    pub action: Action,
    /// New connections that are noted as refused.
    #[serde(default)]
    pub refused: u64,
    /// Fields in which the frame that leaves differs from the one that came.
    #[serde(default, rename = "out")]
    pub changed: toml::Table,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Pass,
    Drop,
    /// Out of the interface that it came in on.
    Transmit,
    /// Out of another one.
    Redirect,
}

/// A program of the object.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    Xdp,
    Tc,
    Deliver,
    Egress,
}

fn both() -> Vec<Place> {
    vec![Place::Xdp, Place::Tc]
}

impl Place {
    pub const fn program(self) -> &'static str {
        match self {
            Self::Xdp => "lb_xdp",
            Self::Tc => "lb_tc_steer",
            Self::Deliver => "lb_tc_deliver",
            Self::Egress => "lb_tc_egress",
        }
    }

    /// What the program returns for an action (include/uapi/linux/bpf.h, pkt_cls.h).
    const fn code(self, action: Action) -> u32 {
        match (self, action) {
            (Self::Xdp, Action::Drop) => 1,
            (Self::Xdp, Action::Pass) => 2,
            (Self::Xdp, Action::Transmit) => 3,
            (Self::Xdp, Action::Redirect) => 4,
            (_, Action::Drop) => 2,
            (_, Action::Pass) => u32::MAX,
            (_, Action::Transmit | Action::Redirect) => 7,
        }
    }
}

/// Runs every file of a directory in a network namespace of its own, and returns how many runs there
/// were and what failed.
///
/// # Errors
/// Where one cannot be read, or the programs cannot be loaded.
pub fn run_all(directory: &Path) -> Result<(usize, Vec<String>)> {
    let entries = std::fs::read_dir(directory)
        .with_context(|| format!("cannot read {}", directory.display()))?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    let mut files = Vec::new();
    for path in paths {
        files.push(File::read(&path)?);
    }
    ensure!(!files.is_empty(), "no fixtures in {}", directory.display());
    files.sort_by(|one, other| one.about.cmp(&other.about));
    kernel::apart(|| {
        let mut kernel = Kernel::load()?;
        let (mut runs, mut failures) = (0, Vec::new());
        for file in &files {
            let (of_file, wrong) = file.run(&mut kernel);
            runs += of_file;
            failures.extend(wrong);
        }
        Ok((runs, failures))
    })
}

impl File {
    /// # Errors
    /// Where the file cannot be read, or says something that fixtures don't know.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("{} is no file of fixtures", path.display()))
    }

    /// Runs every fixture in every place and returns how many runs there were and what failed.
    pub fn run(&self, kernel: &mut Kernel) -> (usize, Vec<String>) {
        let (mut runs, mut failures) = (0, Vec::new());
        for fixture in &self.fixture {
            for &place in fixture.programs.as_ref().unwrap_or(&self.programs) {
                runs += 1;
                if let Err(error) = fixture.run(kernel, &self.scene, place) {
                    failures.push(format!("{} in {}: {error:#}", fixture.name, place.program()));
                }
            }
        }
        (runs, failures)
    }
}

impl Fixture {
    fn run(&self, kernel: &mut Kernel, shared: &toml::Table, place: Place) -> Result<()> {
        let mut scene = shared.clone();
        scene.extend(self.scene.clone());
        let scene: Scene = scene.try_into().context("scene")?;
        kernel.set(&scene).context("cannot set the scene")?;
        ensure!(!self.step.is_empty(), "it has no step");
        for (number, step) in self.step.iter().enumerate() {
            step.run(kernel, place).with_context(|| format!("step {}", number + 1))?;
        }
        Ok(())
    }
}

impl Step {
    fn run(&self, kernel: &Kernel, place: Place) -> Result<()> {
        let arrives: Frame = self.arrives.clone().try_into().context("in")?;
        let mut fields = self.arrives.clone();
        fields.extend(self.changed.clone());
        let leaves: Frame = fields.try_into().context("out")?;
        let (input, expected) = (arrives.bytes()?, leaves.bytes()?);
        let (before, refused) = (kernel.counters()?, kernel.refused()?);
        let run = kernel.run(place.program(), &input)?;
        let moved = moved(&before, &kernel.counters()?);
        let mut wrong = String::new();
        let wanted = match self.verdict.as_str() {
            "none" => String::new(),
            name => kernel::verdict(name)?.name().to_owned(),
        };
        if moved != wanted {
            write!(wrong, "\n  verdict {moved:?}, expected {wanted:?}")?;
        }
        let refused = kernel.refused()? - refused;
        if refused != self.refused {
            write!(wrong, "\n  refused {refused}, expected {}", self.refused)?;
        }
        if run.action != place.code(self.action) {
            let code = place.code(self.action).cast_signed();
            let action = run.action.cast_signed();
            write!(wrong, "\n  action {action}, expected {code} ({:?})", self.action)?;
        }
        if run.frame != expected {
            wrong.push_str("\n  the frame differs:");
            wrong.push_str(&difference(&input, &run.frame, &expected));
        }
        // A frame that came in wrong may leave wrong; one that came in right may not.
        if checksum::verify(&input).is_ok()
            && let Err(error) = checksum::verify(&run.frame)
        {
            write!(wrong, "\n  {error:#}")?;
        }
        if !wrong.is_empty() {
            bail!("{wrong}");
        }
        Ok(())
    }
}

/// The counters that moved, by name; more than one step is shown.
fn moved(before: &[u64], after: &[u64]) -> String {
    let mut names = Vec::new();
    for verdict in Verdict::ALL {
        let index = *verdict as usize;
        match after[index] - before[index] {
            0 => {}
            1 => names.push(verdict.name().to_owned()),
            steps => names.push(format!("{} by {steps}", verdict.name())),
        }
    }
    names.join(" ")
}

/// The bytes that differ from what is expected.
fn difference(input: &[u8], output: &[u8], expected: &[u8]) -> String {
    let mut text = String::new();
    if output.len() != expected.len() {
        let _ = write!(text, "\n    {} bytes, expected {}", output.len(), expected.len());
    }
    for (at, (is, wants)) in output.iter().zip(expected).enumerate() {
        if is != wants {
            let came = input.get(at).copied().unwrap_or(0);
            let _ = write!(
                text,
                "\n    byte {at}: came {came:02x}, left {is:02x}, expected {wants:02x}"
            );
        }
    }
    text
}
