//! A run of the lab: its unique name, its directory, and the removal of everything that carries
//! the name, by its owner or, after a crash, by whoever comes next.
//!
//! A run's owner holds a lock on a file in the run's directory. The kernel drops the lock with the
//! process, whatever the end, so a run whose lock can be had is an orphan. Process ids are in the
//! names for people only: they are used again.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::{cgroup, namespace, tool};

/// Short, because the path of a Unix socket below it has 108 bytes.
const ROOT: &str = "/run/lb-lab";

/// More runs than this at once is a leak, not a use.
const RUNS_MAX: u32 = 256;

/// How long an ending process waits for a machine that is half made.
const PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(5);

/// Owned: dismantled on drop.
#[derive(Debug)]
pub(super) struct Run {
    name: String,
    directory: PathBuf,
    _lock: File,
}

impl Run {
    /// Sweeps orphans, then claims a name and makes its directory and its bpf file system.
    pub(super) fn begin() -> Result<Self> {
        require_root()?;
        let _making = making();
        let _global = lock_root()?;
        sweep_locked()?;
        let name = (0..RUNS_MAX)
            .map(|n| format!("lab{}-{n}", std::process::id()))
            .find(|name| !Path::new(ROOT).join(name).exists())
            .with_context(|| format!("{RUNS_MAX} labs in one process: some are leaked"))?;
        let directory = Path::new(ROOT).join(&name);
        create(&directory)?;
        let lock = File::create(directory.join("lock")).context("cannot make the run's lock")?;
        lock.lock().context("cannot lock the run")?;
        let run = Self { name, directory, _lock: lock };
        let bpf = run.bpf();
        create(&bpf)?;
        mount(Some("bpf"), &bpf, Some("bpf"), MsFlags::empty(), None::<&str>).with_context(
            || format!("cannot mount a bpf file system at {} (CONFIG_BPF_SYSCALL)", bpf.display()),
        )?;
        Ok(run)
    }

    /// The prefix of everything that the run makes.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Logs, sockets, certificates: gone with the run.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The run's own bpf file system, for pins.
    pub(super) fn bpf(&self) -> PathBuf {
        self.directory.join("bpf")
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // What is left, the next run's sweep finds: the lock is gone with this value.
        let _ = dismantle(&self.name);
    }
}

/// Read while something is made that carries a run's name; written once the process ends.
static MAKING: RwLock<()> = RwLock::new(());

/// To be held while something is made that carries a run's name. Once the process ends nobody gets it any
/// more: what is made after the cleaning would stay.
pub(super) fn making() -> RwLockReadGuard<'static, ()> {
    MAKING.read().unwrap_or_else(PoisonError::into_inner)
}

/// One at a time in this process.
static DISMANTLING: Mutex<()> = Mutex::new(());

/// Removes what dead owners left behind and returns the runs' names.
///
/// # Errors
/// Where not root, or where something cannot be removed; it is named.
pub fn sweep() -> Result<Vec<String>> {
    require_root()?;
    let _global = lock_root()?;
    sweep_locked()
}

/// Removes every run that this process owns, for an end that runs no destructors (a signal).
/// Destructors may run at the same time, since a scenario fails when its processes are killed; whoever wants
/// to make something more waits for the end.
///
/// # Errors
/// Where something is left, for the next run's sweep.
pub fn abandon() -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    // What is being made is waited for, but not for ever.
    while Instant::now() < deadline {
        if let Ok(guard) = MAKING.try_write() {
            std::mem::forget(guard);
            break;
        }
        std::thread::sleep(POLL);
    }
    let mine = format!("lab{}-", std::process::id());
    names()?.iter().filter(|name| name.starts_with(&mine)).try_for_each(|name| dismantle(name))
}

fn require_root() -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    bail!("the lab makes network namespaces and loads programs: run it as root (sudo)")
}

fn lock_root() -> Result<File> {
    create(Path::new(ROOT))?;
    let lock = File::create(Path::new(ROOT).join("lock")).context("cannot make the lab's lock")?;
    lock.lock().context("cannot lock the lab")?;
    Ok(lock)
}

fn names() -> Result<Vec<String>> {
    let entries = fs::read_dir(ROOT).with_context(|| format!("cannot read {ROOT}"))?;
    let directories = entries.flatten().filter(|entry| entry.path().is_dir());
    Ok(directories.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}

fn sweep_locked() -> Result<Vec<String>> {
    let mut swept = Vec::new();
    for name in names()? {
        if is_orphan(&Path::new(ROOT).join(&name))? {
            dismantle(&name).with_context(|| format!("cannot clean up after the run {name}"))?;
            swept.push(name);
        }
    }
    Ok(swept)
}

/// A directory without its lock file is one whose owner died between the two: an orphan too, for
/// the caller holds the global lock under which they are made.
fn is_orphan(directory: &Path) -> Result<bool> {
    let Ok(lock) = File::open(directory.join("lock")) else { return Ok(true) };
    match lock.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error).context("cannot try a run's lock"),
    }
}

/// Processes first, since they keep namespaces and maps alive; the directory last, since it is
/// what a later sweep goes by.
fn dismantle(name: &str) -> Result<()> {
    let _alone = DISMANTLING.lock().unwrap_or_else(PoisonError::into_inner);
    cgroup::remove(name)?;
    let prefix = format!("{name}-");
    for entry in fs::read_dir(namespace::DIRECTORY).into_iter().flatten().flatten() {
        let namespace = entry.file_name().to_string_lossy().into_owned();
        if namespace.starts_with(&prefix) {
            let deleted = tool::run("ip", &["netns", "del", &namespace]);
            // Its owner may have been quicker.
            if entry.path().exists() {
                deleted?;
            }
        }
    }
    let directory = Path::new(ROOT).join(name);
    // Not mounted is as good.
    let _ = umount2(&directory.join("bpf"), MntFlags::MNT_DETACH);
    match fs::remove_dir_all(&directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}

fn create(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make the directory {}", directory.display()))
}
