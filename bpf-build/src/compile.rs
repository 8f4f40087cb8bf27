//! Runs cargo for the kernel side: the flags, and an environment in which they mean what they say.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use crate::search::{Road, TARGET, Toolchain};

/// The package and its binary, hence the object's file name.
const PACKAGE: &str = "lb-ebpf";

/// What to build, and where.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub workspace_root: &'a Path,
    /// Never the target directory of a cargo that waits for this build: its lock is held.
    pub target_dir: &'a Path,
    /// The architecture that the programs will run on, as `CARGO_CFG_TARGET_ARCH` names it.
    pub arch: &'a str,
}

/// Why there is no object.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The kernel's byte order is not what we compile for.
    #[error("the kernel side is built for x86_64, aarch64 and riscv64 kernels, not for {0}")]
    Arch(String),
    /// A fault of the installation.
    #[error("cannot run {}", program.display())]
    Run { program: PathBuf, source: io::Error },
    /// Mostly a fault in the code; cargo's words say which.
    #[error("lb-ebpf does not compile ({status}):\n{output}")]
    Compile { status: ExitStatus, output: String },
    /// Cargo was content, and yet there is no object.
    #[error("cargo built no {}", .0.display())]
    NoObject(PathBuf),
}

/// The object, and what the compiler had to say about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Built {
    pub object: PathBuf,
    /// One text for each warning, as rustc renders it.
    pub warnings: Vec<String>,
}

impl Toolchain {
    /// Builds lb-ebpf, optimised, with BTF.
    pub fn build(&self, request: &Request<'_>) -> Result<Built, BuildError> {
        let mut command = self.command(request)?;
        let output = command
            .output()
            .map_err(|source| BuildError::Run { program: self.compiler.cargo.clone(), source })?;
        let text = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            return Err(BuildError::Compile { status: output.status, output: text.into_owned() });
        }
        let object = request.target_dir.join(TARGET).join("release").join(PACKAGE);
        if !object.is_file() {
            return Err(BuildError::NoObject(object));
        }
        Ok(Built { object, warnings: warnings(&text) })
    }

    fn command(&self, request: &Request<'_>) -> Result<Command, BuildError> {
        let arch = match request.arch {
            arch @ ("x86_64" | "aarch64" | "riscv64") => arch,
            other => return Err(BuildError::Arch(other.to_owned())),
        };
        let mut command = Command::new(&self.compiler.cargo);
        command.current_dir(request.workspace_root);
        for (name, _) in env::vars_os().filter(|(name, _)| misleads(name)) {
            command.env_remove(name);
        }
        command.args(["build", "--release", "--locked", "--color=never", "--package", PACKAGE]);
        command.args(["--target", TARGET]).arg("--target-dir").arg(request.target_dir);
        if self.compiler.road == Road::Rustup {
            command.arg("-Zbuild-std=core");
        }
        command.env("RUSTC", &self.compiler.rustc);
        // aya-ebpf uses one unstable feature, asm_experimental_arch.
        command.env("RUSTC_BOOTSTRAP", "1");
        command.env("CARGO_ENCODED_RUSTFLAGS", self.flags(arch).join("\x1f"));
        // The workspace's profile is the agent's; these are the kernel side's.
        command.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3");
        command.env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1");
        // Overrules a user's `build.incremental`, with which the object would be another one than tested.
        command.env("CARGO_INCREMENTAL", "0");
        command.env("CARGO_PROFILE_RELEASE_PANIC", "abort");
        command.env("CARGO_PROFILE_RELEASE_DEBUG", "2");
        Ok(command)
    }

    fn flags(&self, arch: &str) -> Vec<String> {
        vec![
            format!("-Clinker={}", self.linker.display()),
            // BTF is made from the debug information of every crate, core included.
            "-Cdebuginfo=2".into(),
            "-Clink-arg=--btf".into(),
            // In order, LLVM makes a call of every fill of a few bytes. A call costs a frame of 32
            // bytes of the 512 on kernels before 6.8, and time on all.
            "-Clink-arg=--disable-expand-memcpy-in-order".into(),
            format!("--cfg=bpf_target_arch=\"{arch}\""),
        ]
    }
}

/// Whether a variable of the surrounding build would change this one.
///
/// A build script inherits its cargo's flags, wrappers (clippy's among them), target directory and
/// jobserver. What says where packages come from is kept: a mirror is one for this build too.
fn misleads(name: &OsStr) -> bool {
    const KEPT: [&str; 7] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTRIES_",
        "CARGO_REGISTRY_",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
    ];
    const DROPPED: [&str; 9] = [
        "CARGO",
        "RUSTC",
        "RUSTDOC",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
        "MAKEFLAGS",
        "MFLAGS",
        "CLIPPY_",
        // Cargo prepends its own toolchain's libraries, which are not this rustc's.
        "LD_LIBRARY_PATH",
    ];
    let name = name.to_string_lossy();
    let starts = |prefix: &&str| name.starts_with(*prefix);
    DROPPED.iter().any(starts) && !KEPT.iter().any(starts)
}

/// The warnings in cargo's output: blocks that begin with `warning` and end at an empty line.
/// Cargo's own closing count is none of them.
fn warnings(output: &str) -> Vec<String> {
    output
        .split("\n\n")
        .map(|block| match block.find("\nwarning") {
            Some(at) if !block.starts_with("warning") => &block[at + 1..],
            _ => block,
        })
        .filter(|block| block.starts_with("warning") && block.contains(" --> "))
        .map(|block| block.trim_end().to_owned())
        .collect()
}

#[cfg(test)]
#[path = "compile_tests.rs"]
mod tests;
