//! The guest's first process: makes the machine usable, runs the checks one after the other, reports
//! on the second serial port, and switches the machine off.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};

use super::report::Report;
use super::{BINARIES, FIXTURES, MODULES, REPORT_PORT, check};
use crate::verifier;

/// `MODULE_INIT_COMPRESSED_FILE` (include/uapi/linux/module.h), since Linux 5.17.
const COMPRESSED: ModuleInitFlags = ModuleInitFlags::from_bits_retain(4);

/// Where, and which kind.
const MOUNTS: [(&str, &str); 7] = [
    ("/proc", "proc"),
    ("/sys", "sysfs"),
    ("/dev", "devtmpfs"),
    ("/run", "tmpfs"),
    ("/tmp", "tmpfs"),
    ("/sys/fs/cgroup", "cgroup2"),
    ("/sys/fs/bpf", "bpf"),
];

/// Does not return: the machine goes off. What fails is on the console, which the host keeps.
#[expect(clippy::print_stderr, reason = "the machine's console is all that it has")]
pub fn run() -> ! {
    if let Err(error) = work() {
        eprintln!("guest: {error:#}");
    }
    loop {
        let Err(error) = reboot(RebootMode::RB_POWER_OFF);
        eprintln!("guest: cannot switch off: {error}");
        std::thread::park();
    }
}

fn work() -> Result<()> {
    for (place, kind) in MOUNTS {
        mount(Some(kind), place, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("cannot mount {kind} at {place}"))?;
    }
    let booted_s = seconds_since_start().unwrap_or_default();
    load_modules()?;
    let checks = check::in_guest(Path::new(BINARIES), Path::new(FIXTURES));
    let report = Report { release: verifier::release()?, booted_s, checks };
    let mut port = File::options().write(true).open(REPORT_PORT).context(REPORT_PORT)?;
    writeln!(port, "{}", serde_json::to_string(&report)?).context("cannot report")
}

/// In any order: one that lacks another's symbols is tried again after the others.
fn load_modules() -> Result<()> {
    let mut waiting: Vec<_> = match fs::read_dir(MODULES) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        // Everything is built in.
        Err(_) => return Ok(()),
    };
    while !waiting.is_empty() {
        let before = waiting.len();
        let mut last = Ok(());
        waiting.retain(|path| {
            let loaded = load_module(path);
            let again = loaded.is_err();
            if again {
                last = loaded;
            }
            again
        });
        if waiting.len() == before {
            return last;
        }
    }
    Ok(())
}

fn load_module(path: &Path) -> Result<()> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let plain = path.extension().is_some_and(|extension| extension == "ko");
    let flags = if plain { ModuleInitFlags::empty() } else { COMPRESSED };
    match finit_module(&file, c"", flags) {
        Err(error) if error != nix::errno::Errno::EEXIST => {
            Err(error).with_context(|| format!("cannot load {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn seconds_since_start() -> Option<f64> {
    fs::read_to_string("/proc/uptime").ok()?.split(' ').next()?.parse().ok()
}
