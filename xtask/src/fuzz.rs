//! `cargo xtask fuzz`: what others send, as libFuzzer makes it up. Stable Rust suffices: LLVM counts
//! what is reached, for flags that any rustc passes on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::command::{cargo, limited, stdout_of};
use crate::workspace;

/// Binaries of the crate `fuzz`.
pub(crate) const TARGETS: [&str; 2] = ["vrrp_packet", "vrrp_machine"];
/// How long each runs as a part of `cargo xtask test`.
pub(crate) const SHORT_SECONDS: u32 = 10;

/// Coverage as libFuzzer wants it: a counter of 8 bits for each edge, with a table of their places,
/// and what is compared with what.
const FLAGS: [&str; 6] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// What to fuzz; everything, one after the other, if left out
    #[arg(value_parser = TARGETS)]
    target: Option<String>,

    /// For how long each, in seconds
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,

    /// Only this input, once: one that was found before
    #[arg(long, value_name = "FILE", requires = "target")]
    replay: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let fuzzers = build()?;
    if let (Some(input), Some(target)) = (&arguments.replay, &arguments.target) {
        let status = Command::new(fuzzers.join(target)).arg(input).status();
        let status = status.with_context(|| format!("cannot run {target}"))?;
        anyhow::ensure!(status.success(), "{target} fails on {}", input.display());
        return Ok(());
    }
    for target in TARGETS {
        if arguments.target.as_deref().is_none_or(|chosen| chosen == target) {
            let command = &mut fuzzer(&fuzzers, target, arguments.seconds)?;
            let status = command.status().with_context(|| format!("cannot run {target}"))?;
            judge(target, status.success())?;
        }
    }
    Ok(())
}

/// Says what to do with what was found.
pub(crate) fn judge(target: &str, success: bool) -> anyhow::Result<()> {
    if success {
        return Ok(());
    }
    bail!(
        "{target} found something: the input is named above; `cargo xtask fuzz {target} --replay \
         FILE` shows it again, and once it is mended it becomes a unit test"
    )
}

/// Builds them and returns where they lie. Apart from everything else: flags and lock file differ.
pub(crate) fn build() -> anyhow::Result<PathBuf> {
    let (root, host) = (workspace::root(), host()?);
    let mut command = cargo();
    command.args(["build", "--release", "--locked", "--quiet"]);
    command.arg("--manifest-path").arg(root.join("fuzz/Cargo.toml"));
    command.arg("--target-dir").arg(directory());
    // Named although it is this machine's own: build scripts and macros then go without the flags.
    command.args(["--target", &host]);
    command.env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"));
    let status = command.status().context("cannot run cargo")?;
    anyhow::ensure!(
        status.success(),
        "the fuzzers do not build: see above; libFuzzer needs a C++ compiler, such as Debian's g++"
    );
    Ok(directory().join(host).join("release"))
}

/// One that runs for so long, with the committed inputs and those that earlier runs found.
pub(crate) fn fuzzer(fuzzers: &Path, target: &str, seconds: u32) -> anyhow::Result<Command> {
    let found = directory().join("corpus").join(target);
    fs::create_dir_all(&found).with_context(|| format!("cannot make {}", found.display()))?;
    let mut command = Command::new(fuzzers.join(target));
    command.arg(format!("-max_total_time={seconds}"));
    command.arg(format!("-artifact_prefix={}/{target}-", directory().display()));
    // What one input may take: the slowest known takes a millisecond.
    command.args(["-timeout=5", "-rss_limit_mb=1024", "-print_final_stats=1", "-verbosity=1"]);
    command.arg(found).arg(workspace::root().join("fuzz/corpus").join(target));
    command.stdin(Stdio::null());
    Ok(limited(&command, seconds + 60))
}

fn directory() -> PathBuf {
    workspace::root().join("target/fuzz")
}

/// The machine that rustc compiles for by itself.
fn host() -> anyhow::Result<String> {
    let (_, version) = stdout_of(Command::new("rustc").arg("-vV"))?;
    let line = version.lines().find_map(|line| line.strip_prefix("host: "));
    line.map(str::to_owned).context("rustc does not say what it compiles for")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_built_and_has_inputs_to_begin_with() {
        let fuzz = workspace::root().join("fuzz");
        let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).expect("the fuzzers' manifest");
        for target in TARGETS {
            assert!(manifest.contains(&format!("name = \"{target}\"")), "{target}");
            let inputs = fs::read_dir(fuzz.join("corpus").join(target)).expect("inputs");
            assert!(inputs.count() > 5, "{target}");
        }
    }

    #[test]
    fn what_was_found_fails_the_run() {
        judge("vrrp_packet", true).expect("nothing was found");
        let error = judge("vrrp_packet", false).expect_err("something was").to_string();
        assert!(error.contains("--replay FILE"), "{error}");
    }
}
