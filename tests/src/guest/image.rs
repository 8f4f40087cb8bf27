//! The guest's file system: our binaries, the tools that the lab runs, the libraries of all of them,
//! the fixtures, and the modules.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::archive::Archive;
use super::kernel::Unpacked;
use super::{BINARIES, FIXTURES, MODULES};
use crate::lab::agent::binary;

/// What the lab's own tools are.
const OURS: [&str; 3] = ["lb-lab", "lb-agent", "lbctl"];
const TOOLS: [&str; 3] = ["ip", "tc", "ethtool"];

/// Those that the lab needs, and those that they need. Any order does.
const NEEDED: [&str; 18] = [
    "virtio",
    "virtio_ring",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "failover",
    "net_failover",
    "virtio_net",
    "llc",
    "stp",
    "bridge",
    "garp",
    "mrp",
    "8021q",
    "macvlan",
    "veth",
    "sch_ingress",
    "cls_bpf",
];

/// Directories that the guest mounts something on, or that programs expect.
const EMPTY: [&str; 6] = ["/dev", "/proc", "/sys", "/run", "/tmp", "/etc"];

/// Writes it to `path`, in one step: a machine may have the one before in use. `run` is a name that no
/// other run has.
///
/// # Errors
/// Where a program is not installed, or something cannot be read or written.
pub fn write(path: &Path, run: &str, kernel: &Unpacked) -> Result<()> {
    let part = path.with_extension(run);
    pack(&part, kernel).with_context(|| format!("packing {}", part.display()))?;
    fs::rename(&part, path).with_context(|| format!("cannot make {}", path.display()))
}

fn pack(path: &Path, kernel: &Unpacked) -> Result<()> {
    let file = File::create(path).context("cannot make the file")?;
    let mut archive = Archive::new(BufWriter::new(file));
    for directory in EMPTY {
        archive.directory(Path::new(directory))?;
    }
    archive.link(Path::new("/var/run"), "/run")?;
    for name in OURS {
        let program = binary(name)?;
        let stripped = stripped(&program, path)?;
        archive.file(&Path::new(BINARIES).join(name), &stripped)?;
        libraries(&mut archive, &program)?;
    }
    for name in TOOLS {
        let program = installed(name)?;
        copy(&mut archive, &program, &program)?;
        libraries(&mut archive, &program)?;
    }
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/packets");
    for entry in fs::read_dir(&fixtures).context("no fixtures")?.flatten() {
        copy(&mut archive, &entry.path(), &Path::new(FIXTURES).join(entry.file_name()))?;
    }
    for name in NEEDED {
        if let Some(module) = kernel.module(name)? {
            let place = Path::new(MODULES).join(module.file_name().context("no name")?);
            copy(&mut archive, &module, &place)?;
        }
    }
    archive.finish().context("cannot write")
}

fn copy(archive: &mut Archive<impl std::io::Write>, from: &Path, to: &Path) -> Result<()> {
    let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    archive.file(to, &content).with_context(|| format!("cannot pack {}", to.display()))
}

/// Without its debug information, which is most of it, where binutils are installed.
fn stripped(program: &Path, beside: &Path) -> Result<Vec<u8>> {
    let mut copy = beside.as_os_str().to_owned();
    copy.push(".stripped");
    let copy = PathBuf::from(copy);
    let done = Command::new("strip").arg("-o").arg(&copy).arg(program).status();
    let source = if done.is_ok_and(|status| status.success()) { copy.as_path() } else { program };
    let content = fs::read(source).with_context(|| format!("cannot read {}", source.display()));
    // It may not be there.
    let _ = fs::remove_file(&copy);
    content
}

/// Every library that ldd(1) names, at the same place.
fn libraries(archive: &mut Archive<impl std::io::Write>, program: &Path) -> Result<()> {
    let output = Command::new("ldd").arg(program).stdin(Stdio::null()).output();
    let output = output.context("cannot run ldd")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if text.contains("not found") {
        bail!("a library of {} is missing: {text}", program.display());
    }
    for library in text.split_ascii_whitespace().filter(|word| word.starts_with('/')) {
        copy(archive, Path::new(library), Path::new(library))?;
    }
    Ok(())
}

/// A tool by its name, in PATH or where only root's may lead.
fn installed(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let beyond = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let mut directories = std::env::split_paths(&path).chain(beyond);
    directories
        .find_map(|directory| {
            let file = directory.join(name);
            file.is_file().then_some(file)
        })
        .with_context(|| format!("{name} is not installed: run `cargo xtask setup`"))
}
