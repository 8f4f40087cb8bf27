//! Where a toolchain for BPF may lie. Only looks; runs nothing.

use std::cmp::Reverse;
use std::path::{Path, PathBuf};
use std::{env, fmt, fs};

/// The target that a little-endian kernel's programs are compiled for.
pub(crate) const TARGET: &str = "bpfel-unknown-none";
const LINKER: &str = "bpf-linker";

/// The nightly that setup installs, and that is preferred where several are there: tried with the
/// pinned aya-ebpf, and what bpf-linker in `.tools` was linked with.
pub const NIGHTLY: &str = "nightly-2026-10-30";

/// A complete toolchain. `Search::find` makes it; every path in it existed then.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Toolchain {
    pub compiler: Compiler,
    pub linker: PathBuf,
}

/// A rustc that compiles for BPF, and the cargo that belongs to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Compiler {
    pub road: Road,
    pub cargo: PathBuf,
    pub rustc: PathBuf,
}

/// Where `core` for BPF comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Road {
    /// Prebuilt, from the distribution's packages.
    Debian,
    /// Compiled from a nightly's rust-src (`-Zbuild-std=core`).
    Rustup,
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let core = match self.road {
            Road::Debian => "with its prebuilt core",
            Road::Rustup => "with core from its rust-src",
        };
        write!(f, "{} {core}", self.rustc.display())
    }
}

/// What is missing for either road.
///
/// Its text is one sentence that names the remedy: it is what `cargo build` prints.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "the kernel side needs {}: run `cargo xtask setup` to install what is missing",
    .missing.join(" and ")
)]
pub struct NotFound {
    /// Each as it is read out: a name, and where it was looked for.
    pub missing: Vec<&'static str>,
}

pub(crate) const NO_COMPILER: &str = "a rustc that compiles for BPF (Debian's packages rustc-web, \
    cargo-web and libstd-rust-web-dev-bpf, or rustup's nightly with rust-src)";
pub(crate) const NO_LINKER: &str = "bpf-linker (neither in .tools/bin, nor in PATH, nor in \
    ~/.cargo/bin)";

/// The places to look in. Injected in tests; [`Search::new`] gives the machine's own.
#[derive(Clone, Debug)]
pub struct Search {
    /// The prefix of the distribution's Rust: `/usr`.
    pub prefix: PathBuf,
    /// `~/.rustup` or `$RUSTUP_HOME`.
    pub rustup_home: Option<PathBuf>,
    /// Directories that may hold bpf-linker, the first wins.
    pub linker_dirs: Vec<PathBuf>,
}

impl Search {
    /// The machine's own places, and `.tools/bin` in the workspace, where setup puts bpf-linker.
    pub fn new(workspace_root: &Path) -> Self {
        let home = env::var_os("HOME").map(PathBuf::from);
        let in_home = |name: &str| home.as_ref().map(|home| home.join(name));
        let set = |name: &str| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);

        let mut linker_dirs = vec![workspace_root.join(".tools/bin")];
        linker_dirs.extend(env::var_os("PATH").iter().flat_map(env::split_paths));
        let cargo_home = set("CARGO_HOME").or_else(|| in_home(".cargo"));
        linker_dirs.extend(cargo_home.map(|dir| dir.join("bin")));

        Self {
            prefix: "/usr".into(),
            rustup_home: set("RUSTUP_HOME").or_else(|| in_home(".rustup")),
            linker_dirs,
        }
    }

    /// The first complete toolchain.
    pub fn find(&self) -> Result<Toolchain, NotFound> {
        match (self.compiler(), self.linker()) {
            (Some(compiler), Some(linker)) => Ok(Toolchain { compiler, linker }),
            (Some(_), None) => Err(NotFound { missing: vec![NO_LINKER] }),
            (None, Some(_)) => Err(NotFound { missing: vec![NO_COMPILER] }),
            (None, None) => Err(NotFound { missing: vec![NO_COMPILER, NO_LINKER] }),
        }
    }

    /// The first compiler, whether there is a linker for it or not.
    pub fn compiler(&self) -> Option<Compiler> {
        let (road, bin) = self.debian().or_else(|| self.rustup())?;
        Some(Compiler { road, cargo: bin.join("cargo"), rustc: bin.join("rustc") })
    }

    /// The first bpf-linker.
    pub fn linker(&self) -> Option<PathBuf> {
        self.linker_dirs.iter().map(|dir| dir.join(LINKER)).find(|path| path.is_file())
    }

    /// The distribution's rustc, if `core` for BPF lies beside it. Its name alone says nothing:
    /// on some systems `/usr/bin/rustc` is rustup's.
    fn debian(&self) -> Option<(Road, PathBuf)> {
        let core = self.prefix.join("lib/rustlib").join(TARGET).join("lib");
        let has_core = entries(&core).any(|name| name.starts_with("libcore-"));
        has_core
            .then(|| self.prefix.join("bin"))
            .filter(|bin| has_tools(bin))
            .map(|bin| (Road::Debian, bin))
    }

    /// A nightly with rust-src: the tried one, else the undated one, else the latest.
    fn rustup(&self) -> Option<(Road, PathBuf)> {
        let toolchains = self.rustup_home.as_ref()?.join("toolchains");
        let mut nightlies: Vec<_> =
            entries(&toolchains).filter(|name| name.starts_with("nightly")).collect();
        nightlies.sort_by_key(|name| {
            let dated = name.starts_with("nightly-20");
            (!name.starts_with(NIGHTLY), dated, Reverse(name.clone()))
        });
        nightlies
            .iter()
            .map(|name| toolchains.join(name))
            .filter(|dir| dir.join("lib/rustlib/src/rust/library/core/src/lib.rs").is_file())
            .map(|dir| dir.join("bin"))
            .find(|bin| has_tools(bin))
            .map(|bin| (Road::Rustup, bin))
    }
}

fn has_tools(bin: &Path) -> bool {
    ["cargo", "rustc"].iter().all(|tool| bin.join(tool).is_file())
}

/// The names in a directory; none where it cannot be read, for then nothing can be used from it.
fn entries(dir: &Path) -> impl Iterator<Item = String> {
    let names = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.filter_map(|name| name.as_os_str().to_str().map(str::to_owned))
}

#[cfg(test)]
#[path = "search_tests.rs"]
mod tests;
