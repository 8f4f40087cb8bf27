//! A cgroup for each simulated host: cgroup hooks are not per network namespace, so a host's
//! processes are told from the others' by theirs.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// Everything of ours stands below this directory of the cgroup2 mount.
const PARENT: &str = "lb-lab";

/// How long killed processes may take to leave: a loaded machine reaps late.
const EMPTYING: Duration = Duration::from_secs(5);

/// Where cgroup2 is mounted: /sys/fs/cgroup on most systems, /sys/fs/cgroup/unified on hybrids.
///
/// # Errors
/// Where it is not mounted.
pub(super) fn mount_point() -> Result<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("cannot read the mounts")?;
    find_mount(&mounts).context(
        "cgroup2 is not mounted: mount it (`mount -t cgroup2 none /sys/fs/cgroup`), the lab gives \
         each simulated host a cgroup",
    )
}

fn find_mount(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let place = fields.next()?;
        (fields.next()? == "cgroup2").then(|| PathBuf::from(place))
    })
}

/// The directory of a run.
pub(super) fn of_run(run: &str) -> Result<PathBuf> {
    Ok(mount_point()?.join(PARENT).join(run))
}

/// Makes the cgroup of one host of a run.
pub(super) fn create(run: &str, host: &str) -> Result<PathBuf> {
    let path = of_run(run)?.join(host);
    std::fs::create_dir_all(&path).with_context(|| {
        format!("cannot make the cgroup {}: cgroup2 must be writable (root)", path.display())
    })?;
    Ok(path)
}

/// Kills every process of one host's cgroup at once, and waits until they are gone.
pub(super) fn kill(cgroup: &Path) -> Result<()> {
    std::fs::write(cgroup.join("cgroup.kill"), "1")
        .with_context(|| format!("cannot kill what runs in {}", cgroup.display()))?;
    let deadline = Instant::now() + EMPTYING;
    while !members(cgroup)?.is_empty() {
        if Instant::now() > deadline {
            bail!("processes in {} do not die", cgroup.display());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Kills whatever is left in a run's cgroups and removes them. Nothing there is no error.
pub(super) fn remove(run: &str) -> Result<()> {
    let root = of_run(run)?;
    let Ok(entries) = std::fs::read_dir(&root) else { return Ok(()) };
    for entry in entries.flatten().filter(|e| e.path().is_dir()) {
        remove_one(&entry.path())?;
    }
    remove_one(&root)
}

/// A process that is on its way out is no longer listed, yet keeps its cgroup for a moment.
fn remove_one(cgroup: &Path) -> Result<()> {
    let deadline = Instant::now() + EMPTYING;
    loop {
        let members = members(cgroup)?;
        for &pid in &members {
            // Gone already is as good.
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid),
                nix::sys::signal::Signal::SIGKILL,
            );
        }
        match std::fs::remove_dir(cgroup) {
            Err(error) if error.kind() == ErrorKind::ResourceBusy => {}
            result => {
                return result.with_context(|| format!("cannot remove {}", cgroup.display()));
            }
        }
        if Instant::now() > deadline {
            bail!("processes {members:?} in {} do not die", cgroup.display());
        }
        // Only inotify tells of cgroup.events; poll briefly.
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn members(cgroup: &Path) -> Result<Vec<i32>> {
    let path = cgroup.join("cgroup.procs");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup2_is_found_beside_the_old_hierarchies() {
        let hybrid = "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n";
        assert_eq!(find_mount(hybrid), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(find_mount("cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n"), None);
    }
}
