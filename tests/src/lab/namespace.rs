//! A named network namespace, and running code inside it. Named, so that `ip -n NAME` works for a
//! person who looks into a running lab.

use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, setns};

use super::tool;

/// Where iproute2 keeps named namespaces.
pub(super) const DIRECTORY: &str = "/run/netns";

/// Owned: deleted on drop. What still runs inside keeps the kernel's object alive until it ends.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    file: File,
}

impl Namespace {
    /// Makes it, with its loopback up.
    pub(super) fn create(name: String) -> Result<Self> {
        tool::run("ip", &["netns", "add", &name]).context(
            "cannot make a network namespace (this needs root, CAP_SYS_ADMIN and a kernel with \
             CONFIG_NET_NS)",
        )?;
        let path = PathBuf::from(DIRECTORY).join(&name);
        let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let namespace = Self { name, file };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Runs lines of `ip` inside.
    ///
    /// # Errors
    /// At the first line that fails.
    pub fn ip(&self, batch: &str) -> Result<()> {
        tool::ip_batch(&self.name, batch)
    }

    /// Runs a program inside to its end and returns its standard output.
    ///
    /// # Errors
    /// As [`tool::run`].
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        tool::run("ip", &[&["netns", "exec", &self.name, program], arguments].concat())
    }

    /// Runs `work` on a thread of its own inside the namespace. Sockets that it opens belong there.
    ///
    /// # Errors
    /// Where the thread cannot enter the namespace, or `work` fails.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(self.descriptor(), CloneFlags::CLONE_NEWNET)
                    .with_context(|| format!("cannot enter the network namespace {}", self.name))?;
                work()
            });
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Sets a sysctl inside (`net.ipv4.ip_forward` style).
    ///
    /// # Errors
    /// Where the kernel has no such setting or refuses the value.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = sysctl_path(key);
        self.within(|| {
            std::fs::write(&path, value)
                .with_context(|| format!("cannot set {key} to {value} ({})", path.display()))
        })
    }

    /// Whether the kernel has this sysctl here.
    pub(super) fn has_sysctl(&self, key: &str) -> bool {
        let path = sysctl_path(key);
        self.within(|| Ok(path.exists())).unwrap_or(false)
    }
}

/// Dots separate; an interface's own dots would have to be written as slashes, as sysctl(8) does.
fn sysctl_path(key: &str) -> PathBuf {
    let path: String = key.chars().map(|c| if c == '.' { '/' } else { c }).collect();
    PathBuf::from("/proc/sys").join(path)
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // What is left, the next run's sweep finds.
        let _ = tool::run("ip", &["netns", "del", &self.name]);
    }
}
