//! The machine as a whole.

#![expect(unsafe_code, reason = "adjtimex(2)")]

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::sys::statfs::statfs;

use crate::doctor::judge::machine::{Clock, Modules, Pins, Process, is_denial};

/// `BPF_FS_MAGIC` and `CGROUP2_SUPER_MAGIC` (linux/magic.h).
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
const CGROUP2_MAGIC: i64 = 0x6367_7270;
/// So much of the end of an audit log is read.
const AUDIT_BYTES: u64 = 1 << 20;
/// Lines of the kernel's log: more than its buffer usually holds.
const KERNEL_LINES_MAX: usize = 100_000;

pub(in crate::doctor) fn read(path: impl AsRef<Path>) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim_end_matches(['\n', '\0']).to_owned())
}

/// The agent's process, or this one.
pub(in crate::doctor) fn process(agent: Option<i32>) -> Process {
    let folder = agent.map_or_else(|| "/proc/self".to_owned(), |pid| format!("/proc/{pid}"));
    let status = read(format!("{folder}/status")).unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    Process {
        agent,
        capabilities: effective.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()),
        root: nix::unistd::geteuid().is_root(),
        confinement: read(format!("{folder}/attr/current")).filter(|text| !text.is_empty()),
    }
}

pub(in crate::doctor) fn modules() -> Modules {
    let enforce = read("/sys/fs/selinux/enforce");
    let apparmor = read("/sys/module/apparmor/parameters/enabled");
    Modules {
        selinux_enforces: enforce.map(|text| text.trim() == "1"),
        apparmor: apparmor.is_some_and(|text| text.trim() == "Y"),
        log: denials(),
        lockdown: read("/sys/kernel/security/lockdown"),
    }
}

/// Of the audit log and of the kernel's; none where neither can be read.
fn denials() -> Option<Vec<String>> {
    let logs = [audit_log(), kernel_log()];
    if logs.iter().all(Option::is_none) {
        return None;
    }
    let lines = logs.iter().flatten().flat_map(|text| text.lines());
    Some(lines.filter(|line| is_denial(line)).map(str::to_owned).collect())
}

fn audit_log() -> Option<String> {
    let mut file = fs::File::open("/var/log/audit/audit.log").ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(AUDIT_BYTES))).ok()?;
    let mut bytes = Vec::new();
    file.take(AUDIT_BYTES).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Each read brings one line, and an error at the end.
fn kernel_log() -> Option<String> {
    let mut file =
        fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg").ok()?;
    let (mut all, mut line) = (String::new(), [0; 8192]);
    for _ in 0..KERNEL_LINES_MAX {
        match file.read(&mut line) {
            Ok(length) if length > 0 => all.push_str(&String::from_utf8_lossy(&line[..length])),
            // A line was overwritten before it was read.
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
            _ => break,
        }
    }
    Some(all)
}

pub(in crate::doctor) fn clock() -> Clock {
    // SAFETY: all bytes zero are a value of this structure of integers.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: with `modes` 0 the kernel only fills in the structure, which outlives the call.
    let kept = unsafe { libc::adjtimex(&raw mut state) };
    let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
    Clock { now, synchronised: kept >= 0 && state.status & libc::STA_UNSYNC == 0 }
}

pub(in crate::doctor) fn pins(path: &Path) -> Pins {
    let there = path.ancestors().find(|path| path.exists());
    let on_bpf = there.is_some_and(|path| is_on(path, BPF_FS_MAGIC));
    Pins { path: PathBuf::from(path), on_bpf, mountable: path.starts_with("/sys/fs/bpf") }
}

pub(in crate::doctor) fn is_cgroup2(path: &Path) -> bool {
    is_on(path, CGROUP2_MAGIC)
}

fn is_on(path: &Path, magic: i64) -> bool {
    statfs(path).is_ok_and(|info| info.filesystem_type().0 == magic)
}
