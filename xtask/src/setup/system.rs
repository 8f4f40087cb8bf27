//! What is on this system. Looks and asks; changes nothing.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use bpf_build::{Compiler, Search};

use crate::workspace;

/// A program that the lab or the demo runs.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Program {
    /// Looked for in PATH; a whole path where it lies in none.
    pub(crate) name: &'static str,
    /// Debian's name, which most others share.
    pub(crate) package: &'static str,
    pub(crate) purpose: &'static str,
    /// What the package starts by itself: the lab's own processes are all that is wanted.
    pub(crate) service: Option<&'static str>,
}

impl Program {
    const fn new(name: &'static str, package: &'static str, purpose: &'static str) -> Self {
        Self { name, package, purpose, service: None }
    }

    const fn with_service(self, service: &'static str) -> Self {
        Self { service: Some(service), ..self }
    }
}

pub(crate) const PROGRAMS: [Program; 13] = [
    Program::new("ip", "iproute2", "for the lab's namespaces"),
    Program::new("ethtool", "ethtool", "for the lab's offloads"),
    Program::new("nft", "nftables", "for the lab's faults and peers"),
    Program::new("ping", "iputils-ping", "for who answers in the lab"),
    Program::new("tcpdump", "tcpdump", "to look into the lab"),
    Program::new("curl", "curl", "to speak to the agent's socket"),
    Program::new("c++", "g++", "to build libFuzzer"),
    Program::new("qemu-system-x86_64", "qemu-system-x86", "for the lab's other kernels"),
    Program::new("keepalived", "keepalived", "the lab's peer in VRRP").with_service("keepalived"),
    Program::new("/usr/lib/frr/vrrpd", "frr", "another peer in VRRP").with_service("frr"),
    Program::new("haproxy", "haproxy", "a proxy that the lab measures beside")
        .with_service("haproxy"),
    Program::new("dnsmasq", "dnsmasq-base", "who tells the lab's names"),
    // The package brings nginx too.
    Program::new(NGINX_STREAM, "libnginx-mod-stream", "what clusters balance with today")
        .with_service("nginx"),
];

const NGINX_STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// The oldest rustc that compiles the workspace.
const RUST_VERSION: &str = env!("CARGO_PKG_RUST_VERSION");

/// What a linker looks for in Debian's development package of LLVM.
const LLVM_LIBRARY: &str = "/usr/lib/llvm-22/lib/libLLVM.so";

/// What was seen.
#[derive(Clone, Debug)]
pub(crate) struct System {
    /// As the system calls itself.
    pub(crate) name: String,
    pub(crate) compiler: Option<Compiler>,
    /// Only one that runs: it is linked with one LLVM, which may have been removed since.
    pub(crate) linker: Option<PathBuf>,
    pub(crate) programs: Vec<(&'static Program, bool)>,
    pub(crate) apt: bool,
    /// The archive has a compiler with core for BPF, and a recent one.
    pub(crate) debian_core: bool,
    /// The LLVM that Debian's compiler was built with is there, with its development files.
    pub(crate) llvm: bool,
    pub(crate) rustup: bool,
}

impl System {
    pub(crate) fn look() -> Self {
        let search = Search::new(&workspace::root());
        let compiler = search.compiler().filter(|compiler| is_recent(&compiler.rustc));
        let linker = search.linker().filter(|linker| runs(linker));
        let apt = is_program("apt-get");
        Self {
            name: system_name(),
            debian_core: compiler.is_none() && apt && archive_has_core(),
            llvm: Path::new(LLVM_LIBRARY).exists() && is_program("llvm-config-22"),
            compiler,
            linker,
            programs: PROGRAMS.iter().map(|program| (program, is_program(program.name))).collect(),
            apt,
            rustup: is_program("rustup"),
        }
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.compiler.is_some() && self.linker.is_some() && self.missing_programs().next().is_none()
    }

    pub(crate) fn missing_programs(&self) -> impl Iterator<Item = &'static Program> {
        self.programs.iter().filter(|(_, present)| !present).map(|(program, _)| *program)
    }
}

/// Whether PATH, or a place where only root's PATH may lead, has the program. A whole path is itself.
fn is_program(name: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let beyond = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(beyond).any(|dir| dir.join(name).is_file())
}

fn runs(program: &Path) -> bool {
    output_of(Command::new(program).arg("--version")).is_some()
}

fn is_recent(rustc: &Path) -> bool {
    let text = output_of(Command::new(rustc).arg("--version"));
    text.is_some_and(|text| text.split(' ').nth(1).is_some_and(not_older))
}

/// Whether the archive offers all of what the Debian road takes, in a version that can compile us.
fn archive_has_core() -> bool {
    let packages = ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf", "llvm-22-dev"];
    let policy = output_of(Command::new("apt-cache").arg("policy").args(packages));
    let candidates = policy.as_deref().map(candidates).unwrap_or_default();
    candidates.len() == packages.len()
        && candidates.first().is_some_and(|version| not_older(version))
}

/// The versions that `apt-cache policy` would install; packages without one are left out.
fn candidates(policy: &str) -> Vec<&str> {
    let lines = policy.lines().filter_map(|line| line.trim().strip_prefix("Candidate: "));
    lines.filter(|version| *version != "(none)").collect()
}

/// Compares major and minor: `1.96.0+dfsg1-1` and `1.95` are enough for `1.95`.
fn not_older(version: &str) -> bool {
    let parts = |text: &str| -> Vec<u32> {
        let numbers = text.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse().ok());
        numbers.take(2).collect()
    };
    let found = parts(version);
    found.len() == 2 && found >= parts(RUST_VERSION)
}

fn output_of(command: &mut Command) -> Option<String> {
    // The words are read, so they have to be English.
    let output = command.env("LC_ALL", "C").stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn system_name() -> String {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| env::consts::OS.to_owned(), |name| name.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        for version in ["1.95.0", "1.96.0+dfsg1-1~deb12u2", "1.101.0-nightly", "2.0"] {
            assert!(not_older(version), "{version}");
        }
        for version in ["1.85.0+dfsg3-1~deb12u3", "1.9.0", "", "unknown"] {
            assert!(!not_older(version), "{version}");
        }
    }

    #[test]
    fn packages_that_the_archive_lacks_have_no_candidate() {
        let policy = "rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0+dfsg1-1\n  Version \
            table:\n     1.96.0+dfsg1-1 500\ncargo-web:\n  Installed: (none)\n  Candidate: (none)\n";
        assert_eq!(candidates(policy), ["1.96.0+dfsg1-1"]);
    }
}
