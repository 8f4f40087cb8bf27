//! `cargo xtask test`: everything that is to hold, what is quick first. It goes on after a failure,
//! so that one run tells all, and ends with one line: `N passed, N failed`.

use std::path::Path;
use std::process::Command;

use anyhow::bail;

use crate::checks::Tally;
use crate::command::{cargo, each_line, limited, stdout_of};
use crate::{build, fuzz, setup, tidy, workspace};

/// How long one scenario may take, in seconds; they are made to take less than one minute.
const SCENARIO_LIMIT: u32 = 360;
/// Fuzzers at the same time, each of which fills a CPU.
const FUZZERS_AT_ONCE: usize = 2;
/// Scenarios at the same time that mostly wait.
const PATIENT_AT_ONCE: usize = 3;
/// How long the tests that need root may take, in seconds, with their build.
const LAB_TESTS_LIMIT: u32 = 1500;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only what needs no root: formatting, house rules, clippy and unit tests
    #[arg(long)]
    fast: bool,
}

/// Whether every test passed.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    if !arguments.fast && !workspace::is_root() {
        bail!(
            "the lab's tests need root, for they make network namespaces and load programs into \
             the kernel: run it again as root, or with --fast for the rest"
        );
    }
    setup::ensure()?;
    let mut tally = Tally::default();
    tally.check("formatting", formatting);
    tally.check("house rules", tidy::check);
    tally.check("clippy", clippy);
    let unit = ["test", "--workspace", "--exclude", "lb-tests", "--no-fail-fast"];
    tally.tests("unit tests", cargo().args(unit));
    fuzzers(&mut tally);
    if !arguments.fast {
        lab(&mut tally);
    }
    Ok(tally.finish())
}

fn formatting() -> anyhow::Result<()> {
    quiet_unless_bad(cargo().args(["fmt", "--all", "--check"]))
}

/// Clippy over everything, and no warning from the build of the kernel side, which cargo passes on
/// from lb-agent's build script without failing for it.
fn clippy() -> anyhow::Result<()> {
    let mut command = cargo();
    command.args(["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]);
    let mut output = String::new();
    let status = each_line(&mut command, |line| {
        output.push_str(line);
        output.push('\n');
    })?;
    if !status.success() {
        bail!("{output}");
    }
    let warnings: Vec<_> = output.lines().filter(|l| l.starts_with("warning: lb-agent@")).collect();
    if !warnings.is_empty() {
        bail!("the kernel side builds with warnings:\n{}", warnings.join("\n"));
    }
    Ok(())
}

/// For a moment each: longer runs are for who changes what they are about.
fn fuzzers(tally: &mut Tally) {
    let mut built = None;
    tally.check("fuzzers", || {
        built = Some(fuzz::build()?);
        Ok(())
    });
    let Some(built) = built else { return };
    let title = |target: &&str| format!("fuzzing {target}");
    tally.beside(FUZZERS_AT_ONCE, &fuzz::TARGETS, title, |target| {
        quiet_unless_bad(&mut fuzz::fuzzer(&built, target, fuzz::SHORT_SECONDS)?)
    });
}

/// What runs in namespaces: the tests of lb-tests, then every scenario and the demo. In the release profile:
/// it is what a user runs, and the tests start the same binaries.
fn lab(tally: &mut Tally) {
    let mut program = None;
    tally.check("binaries for the lab", || {
        program = Some(build::lab()?);
        Ok(())
    });
    let tests = ["test", "--release", "--package", "lb-tests", "--no-fail-fast"];
    let mut tests = limited(cargo().args(tests), LAB_TESTS_LIMIT);
    tally.tests("tests that need root", &mut tests);
    let Some(program) = program else { return };
    tally.check("verifier", || scenario(&program, &["verifier"]));

    let (mut names, mut patient) = (Vec::new(), Vec::new());
    tally.check("list of the scenarios", || {
        names = scenarios(&program, &[])?;
        patient = scenarios(&program, &["--patient"])?;
        Ok(())
    });
    names.retain(|name| !patient.contains(name));
    for name in names {
        tally.check(&format!("scenario {name}"), || scenario(&program, &["run", &name]));
    }
    let title = |name: &String| format!("scenario {name}");
    tally.beside(PATIENT_AT_ONCE, &patient, title, |name| scenario(&program, &["run", name]));
    tally.check("demo", || scenario(&program, &["demo"]));
}

/// The names that the lab lists: the first word of each line.
fn scenarios(lab: &Path, only: &[&str]) -> anyhow::Result<Vec<String>> {
    let (status, list) = stdout_of(Command::new(lab).arg("list").args(only))?;
    let first_word = |line: &str| line.split_whitespace().next().map(str::to_owned);
    let names: Vec<_> = list.lines().filter_map(first_word).collect();
    if !status.success() || names.is_empty() {
        bail!("the lab lists no scenarios ({status})");
    }
    Ok(names)
}

/// Runs the lab's program with a limit; its output is shown when it fails.
fn scenario(lab: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    quiet_unless_bad(&mut limited(Command::new(lab).args(arguments).arg("--json"), SCENARIO_LIMIT))
}

fn quiet_unless_bad(command: &mut Command) -> anyhow::Result<()> {
    let mut output = String::new();
    let status = each_line(command, |line| {
        output.push_str(line);
        output.push('\n');
    })?;
    anyhow::ensure!(status.success(), "{status}\n{output}");
    Ok(())
}
