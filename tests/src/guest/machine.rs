//! A virtual machine: started, listened to until it has reported, and gone with its owner.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::FIRST_PROCESS;
use super::kernel::Unpacked;
use super::report::Report;
use crate::lab::{Host, Process};

/// What the guest's kernel is told. What it does not know becomes its first process' environment.
const LINE: &str = "console=ttyS0 quiet panic=-1 PATH=/usr/sbin:/usr/bin:/sbin:/bin";

const QEMU: &str = "qemu-system-x86_64";

/// Emulated, each keeping one of this machine's processors busy. KVM would be ten times as fast, but what
/// has its device does not tell whether it runs any kernel (some hypervisors' do not), and the tests
/// should not depend on it.
const PROCESSOR: [&str; 6] = ["-accel", "tcg", "-cpu", "max", "-smp", "1"];

/// What a guest may take from its start to its report: three times what it does on two processors.
const LIMIT: Duration = Duration::from_secs(300);

/// Running. Owned: ended on drop.
#[derive(Debug)]
pub struct Machine {
    process: Process,
    console: PathBuf,
    deadline: Instant,
}

impl Machine {
    /// Starts it, as a process of `host`, with two network cards that are plugged into one another.
    ///
    /// # Errors
    /// Where QEMU is not installed.
    pub fn start(host: &Host, kernel: &Unpacked, image: &Path) -> Result<Self> {
        let console = host.directory().join("console.log");
        let mut command = Command::new(QEMU);
        command.args(PROCESSOR).args(["-m", "1G"]);
        command.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
        command.args(["-serial", &format!("file:{}", console.display()), "-serial", "stdio"]);
        for card in ["a", "b"] {
            command.args(["-netdev", &format!("hubport,id={card},hubid=0")]);
            command.args(["-device", &format!("virtio-net-pci,netdev={card},romfile=")]);
        }
        command.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(image);
        command.args(["-append", &format!("{LINE} {FIRST_PROCESS} -- guest")]);
        let process = host
            .spawn("qemu", command)
            .with_context(|| format!("{QEMU} does not start: run `cargo xtask setup`"))?;
        Ok(Self { process, console, deadline: Instant::now() + LIMIT })
    }

    /// Waits for its report.
    ///
    /// # Errors
    /// Where it does not report in time; the end of its console is quoted.
    pub fn report(&self) -> Result<Report> {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            let line = self.process.line(left).with_context(|| {
                format!("the guest does not report; its console ends: {}", self.last_words())
            })?;
            if let Ok(report) = serde_json::from_str(&line) {
                return Ok(report);
            }
        }
    }

    fn last_words(&self) -> String {
        let text = fs::read(&self.console).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let mut lines: Vec<&str> = text.lines().rev().take(12).collect();
        lines.reverse();
        lines.join("\n")
    }
}
