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

/// How the guest's processor comes about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Processor {
    /// This machine's own.
    Hardware,
    /// Emulated, which takes ten times as long; why.
    Emulated(String),
}

impl Processor {
    /// The best that this machine has.
    pub fn choose() -> Self {
        let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let device = fs::File::options().read(true).write(true).open("/dev/kvm");
        Self::judge(&flags, device.map(drop).map_err(|error| error.to_string()))
    }

    /// /dev/kvm alone tells too little: with some hypervisors (pvm) a machine has it and runs guests
    /// with kernels made for that only.
    fn judge(flags: &str, device: Result<(), String>) -> Self {
        let has = |flag: &str| flags.split_ascii_whitespace().any(|word| word == flag);
        match device {
            Err(error) => Self::Emulated(format!("/dev/kvm: {error}")),
            Ok(()) if !has("vmx") && !has("svm") => Self::Emulated(
                "this machine's processor has no virtualization (vmx, svm)".to_owned(),
            ),
            Ok(()) => Self::Hardware,
        }
    }

    /// An emulated processor keeps one of ours busy, and guests run side by side.
    const fn arguments(&self) -> [&'static str; 6] {
        match self {
            Self::Hardware => ["-accel", "kvm", "-cpu", "host", "-smp", "2"],
            Self::Emulated(_) => ["-accel", "tcg", "-cpu", "max", "-smp", "1"],
        }
    }

    /// What a guest may take from its start to its report.
    pub const fn limit(&self) -> Duration {
        match self {
            Self::Hardware => Duration::from_secs(90),
            Self::Emulated(_) => Duration::from_secs(170),
        }
    }
}

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
    pub fn start(
        host: &Host,
        kernel: &Unpacked,
        image: &Path,
        processor: &Processor,
    ) -> Result<Self> {
        let console = host.directory().join("console.log");
        let mut command = Command::new(QEMU);
        command.args(processor.arguments()).args(["-m", "1G"]);
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
        Ok(Self { process, console, deadline: Instant::now() + processor.limit() })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_is_taken_where_device_and_processor_offer_it() {
        let emulated = |flags, device: Result<(), String>| match Processor::judge(flags, device) {
            Processor::Hardware => String::new(),
            Processor::Emulated(why) => why,
        };
        assert_eq!(emulated("flags : fpu svm sse", Ok(())), "");
        assert_eq!(emulated("flags : fpu vmx sse", Ok(())), "");
        assert!(emulated("flags : fpu sse vmxnet", Ok(())).contains("virtualization"));
        assert_eq!(emulated("flags : vmx", Err("no such file".into())), "/dev/kvm: no such file");
    }
}
