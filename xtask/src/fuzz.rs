//! `cargo xtask fuzz`: what others send, as libFuzzer makes it up. Stable Rust suffices: LLVM counts
//! what is reached, for flags that any rustc passes on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::command::{cargo, limited, stdout_of};
use crate::{build, workspace};

/// Binaries of the crate `fuzz`.
pub(crate) const TARGETS: [&str; 6] =
    ["frame", "vrrp_packet", "vrrp_machine", "config", "api", "state"];
/// What `frame` is about, in the kernel: no binary of libFuzzer's but `lb-lab fuzz`.
const KERNEL: &str = "kernel";
/// How long each of libFuzzer's runs as a part of `cargo xtask test`. With the kernel's six seconds
/// (tests/tests/made_up.rs) that is one minute.
pub(crate) const SHORT_SECONDS: u32 = 9;

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
    /// What to fuzz; everything, one after the other, if left out. `kernel` needs root
    #[arg(value_parser = [TARGETS.as_slice(), &[KERNEL]].concat())]
    target: Option<String>,

    /// For how long in all, in seconds; several share it
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,

    /// Only this input, once: one that was found before
    #[arg(long, value_name = "FILE", requires = "target")]
    replay: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let chosen = match &arguments.target {
        Some(target) => vec![target.as_str()],
        None => everything(),
    };
    let fuzzers = if chosen == [KERNEL] { PathBuf::new() } else { build()? };
    let each = share(arguments.seconds, chosen.len());
    for target in chosen {
        let mut command = match (&arguments.replay, target) {
            (replay, KERNEL) => in_the_kernel(each, replay.as_deref())?,
            (Some(input), _) => {
                let mut command = Command::new(fuzzers.join(target));
                command.arg(input);
                command
            }
            (None, _) => fuzzer(&fuzzers, target, each)?,
        };
        let status = command.status().with_context(|| format!("cannot run {target}"))?;
        judge(target, status.success())?;
    }
    Ok(())
}

fn everything() -> Vec<&'static str> {
    let mut all = TARGETS.to_vec();
    if workspace::is_root() {
        all.push(KERNEL);
    } else {
        eprintln!("{KERNEL} is left out: it loads programs into the kernel and needs root");
    }
    all
}

/// Of so many seconds, what each of so many targets gets.
fn share(seconds: u32, targets: usize) -> u32 {
    (seconds / u32::try_from(targets.max(1)).unwrap_or(u32::MAX)).max(1)
}

/// The kernel's programs, with what `frame` begins with and what it found so far.
fn in_the_kernel(seconds: u32, replay: Option<&Path>) -> anyhow::Result<Command> {
    workspace::require_root("the kernel's programs")?;
    let mut command = Command::new(build::lab()?);
    command.arg("fuzz");
    if let Some(input) = replay {
        command.arg("--replay").arg(input);
        return Ok(command);
    }
    command.arg(format!("--seconds={seconds}"));
    command.arg(format!("--keep={}", directory().display()));
    command.arg(workspace::root().join("fuzz/corpus/frame"));
    command.arg(directory().join("corpus/frame"));
    Ok(limited(&command, seconds + 60))
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
    let words = workspace::root().join("fuzz/dictionaries").join(target);
    if words.exists() {
        command.arg(format!("-dict={}", words.display()));
    }
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
    fn corpora_stay_small() {
        let corpus = workspace::root().join("fuzz/corpus");
        let folders = TARGETS.map(|target| fs::read_dir(corpus.join(target)).expect("inputs"));
        let sizes = folders.into_iter().flatten().map(|input| {
            let metadata = input.and_then(|input| input.metadata());
            metadata.expect("a file").len()
        });
        let sizes: Vec<u64> = sizes.collect();
        assert!(sizes.len() < 100, "{} inputs", sizes.len());
        assert!(sizes.iter().sum::<u64>() < 200 << 10, "{} bytes", sizes.iter().sum::<u64>());
    }

    #[test]
    fn all_targets_share_the_time() {
        assert_eq!([share(600, 6), share(600, 1), share(3, 6)], [100, 600, 1]);
        // With the six seconds of the kernel's test.
        assert_eq!(SHORT_SECONDS * TARGETS.len() as u32 + 6, 60);
    }

    #[test]
    fn what_was_found_fails_the_run() {
        judge("vrrp_packet", true).expect("nothing was found");
        let error = judge("vrrp_packet", false).expect_err("something was").to_string();
        assert!(error.contains("--replay FILE"), "{error}");
    }
}
