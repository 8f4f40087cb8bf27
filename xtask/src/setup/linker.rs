//! Builds bpf-linker into `.tools`, with the LLVM of the compiler that it will serve: bitcode of a
//! newer LLVM is unreadable for it.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use anyhow::{Context, bail};
use bpf_build::{Compiler, Road, Search};

use crate::command::{cargo, run_quietly};
use crate::workspace;

const VERSION: &str = "0.13.0";
/// The LLVMs that this version can be built with, one feature each.
const SUPPORTED: std::ops::RangeInclusive<u32> = 21..=23;

/// An LLVM to link with.
struct Llvm {
    /// Holds `lib/libLLVM.so`.
    prefix: PathBuf,
    major: u32,
}

pub(super) fn install() -> anyhow::Result<()> {
    let tools = workspace::root().join(".tools");
    let search = Search::new(&workspace::root());
    let compiler = search.compiler().context("there is no compiler for BPF to build it for")?;
    let llvm = match compiler.road {
        Road::Debian => packaged()?,
        Road::Rustup => bundled(&compiler, &tools.join("llvm"))?,
    };
    if !SUPPORTED.contains(&llvm.major) {
        bail!(
            "bpf-linker {VERSION} can be built with LLVM {} to {}, and {} has {}",
            SUPPORTED.start(),
            SUPPORTED.end(),
            compiler.rustc.display(),
            llvm.major
        );
    }
    let mut command = cargo();
    let target = tools.join("build");
    command.args(["install", "bpf-linker", "--version", VERSION, "--locked", "--force"]);
    command.args(["--no-default-features", "--features", &format!("llvm-{}", llvm.major)]);
    command.arg("--root").arg(&tools).arg("--target-dir").arg(&target);
    command.env("LLVM_PREFIX", &llvm.prefix);
    // Its own profile keeps debug information, which doubles the time.
    command.env("CARGO_PROFILE_RELEASE_DEBUG", "false");
    run_quietly("building bpf-linker (one to four minutes)", &mut command)?;
    fs::remove_dir_all(&target).with_context(|| format!("cannot remove {}", target.display()))
}

/// Debian's: its development package names the place.
fn packaged() -> anyhow::Result<Llvm> {
    let mut command = Command::new("llvm-config-22");
    let output = command.arg("--prefix").output().context("cannot run llvm-config-22")?;
    let prefix = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Ok(Llvm { prefix: prefix.into(), major: 22 })
}

/// The one in rustup's toolchain. It is complete but for its name, so a directory of links stands
/// for the prefix; bpf-linker looks for it there at run time too, by the name that it has inside.
fn bundled(compiler: &Compiler, prefix: &Path) -> anyhow::Result<Llvm> {
    let toolchain = compiler.rustc.ancestors().nth(2).context("a rustc lies in a toolchain")?;
    let lib = toolchain.join("lib");
    let (name, major) = shared_llvm(&lib)
        .with_context(|| format!("cannot read {}", lib.display()))?
        .with_context(|| format!("no libLLVM.so in {}", lib.display()))?;
    let links = prefix.join("lib");
    let making = || -> io::Result<()> {
        if links.exists() {
            fs::remove_dir_all(&links)?;
        }
        fs::create_dir_all(&links)?;
        symlink(lib.join(&name), links.join("libLLVM.so"))?;
        symlink(lib.join(&name), links.join(&name))
    };
    making().with_context(|| format!("cannot make links in {}", links.display()))?;
    Ok(Llvm { prefix: prefix.to_owned(), major })
}

/// The file name of a toolchain's LLVM, as in `libLLVM.so.23.1-rust-1.101.0-nightly`, and its
/// major version.
fn shared_llvm(lib: &Path) -> io::Result<Option<(String, u32)>> {
    for entry in fs::read_dir(lib)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let version = name.strip_prefix("libLLVM.so.").and_then(|rest| rest.split('.').next());
        if let Some(major) = version.and_then(|text| text.parse().ok()) {
            return Ok(Some((name, major)));
        }
    }
    Ok(None)
}
