//! Builds the kernel side and tells the agent where its object lies: `LB_EBPF_OBJECT`.

use std::path::{Path, PathBuf};
use std::{env, fs, process};

use bpf_build::{BuildError, Request, Search};

fn main() {
    if let Err(sentence) = run() {
        println!("cargo::error={sentence}");
    }
}

/// An error is one line: cargo prints it as it stands, without a backtrace.
fn run() -> Result<(), String> {
    let workspace_root = workspace_root()?;
    // A directory is watched with everything below it. PATH is not watched: rustup's cargo changes
    // it for each level of nesting, and a script that found no toolchain runs again anyway.
    for input in ["lb-ebpf", "lb-common", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", workspace_root.join(input).display());
    }

    let toolchain = Search::new(&workspace_root).find().map_err(|missing| missing.to_string())?;
    let out = PathBuf::from(variable("OUT_DIR")?);
    let target_dir = shared_by_profiles(&out).join("bpf");
    let arch = variable("CARGO_CFG_TARGET_ARCH")?;
    let request = Request { workspace_root: &workspace_root, target_dir: &target_dir, arch: &arch };
    let built = toolchain.build(&request).map_err(report)?;
    for warning in built.warnings.iter().flat_map(|warning| warning.lines()) {
        println!("cargo::warning={warning}");
    }
    // A copy of this build's own: another one may be at work on the shared one.
    let object = out.join("lb-ebpf.o");
    fs::copy(&built.object, &object)
        .map_err(|error| format!("cannot copy {}: {error}", built.object.display()))?;
    println!("cargo::rustc-env=LB_EBPF_OBJECT={}", object.display());
    Ok(())
}

/// The target directory, which cargo has tagged as a cache: the object is the same for every profile and is built
/// once for all. Where no directory above this one is tagged, this one.
fn shared_by_profiles(out: &Path) -> &Path {
    out.ancestors().find(|above| above.join("CACHEDIR.TAG").is_file()).unwrap_or(out)
}

/// Compiler errors span lines and belong to standard error, which cargo shows when a script fails.
#[expect(clippy::print_stderr, reason = "cargo shows a failed build script's standard error")]
fn report(error: BuildError) -> String {
    if let BuildError::Compile { .. } = &error {
        eprintln!("{error}");
        process::exit(1);
    }
    match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn workspace_root() -> Result<PathBuf, String> {
    let package = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    package.parent().map(Path::to_owned).ok_or_else(|| "lb-agent lies in no workspace".to_owned())
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("{name}: {error}; build with cargo"))
}
