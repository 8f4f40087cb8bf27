//! A real keepalived: started, ended or crashed in a machine, and asked what it refused.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{await_some, directory, write};
use crate::lab::{Host, Process};

const LIMIT: Duration = Duration::from_secs(20);
/// Where it writes its statistics, below TMPDIR.
const STATISTICS: &str = "keepalived.stats";
/// Where it writes the id of the process that speaks VRRP.
const CHILD: &str = "vrrp.pid";

/// Owned: killed on drop.
#[derive(Debug)]
pub struct Keepalived {
    process: Process,
    directory: PathBuf,
}

/// What it counted since its start.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Statistics {
    pub received: u64,
    /// Advertisements that it did not take, by its own words for why.
    pub refused: BTreeMap<String, u64>,
}

impl Statistics {
    pub fn refusals(&self) -> u64 {
        self.refused.values().sum()
    }
}

impl Keepalived {
    /// # Errors
    /// Where it cannot be run.
    pub fn start(host: &Host, configuration: &str) -> Result<Self> {
        let directory = directory(host, "keepalived")?;
        let file = write(&directory, "keepalived.conf", configuration)?;
        let mut command = Command::new("keepalived");
        command.args(["--dont-fork", "--log-console", "--log-detail", "--vrrp"]);
        command.arg("--use-file").arg(&file);
        command.arg("--pid").arg(directory.join("keepalived.pid"));
        command.arg("--vrrp_pid").arg(directory.join(CHILD));
        command.env("TMPDIR", &directory);
        Ok(Self { process: host.spawn("keepalived", command)?, directory })
    }

    /// What it has said.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Waits until it is Master, as it says.
    ///
    /// # Errors
    /// Where it is not in time.
    pub fn await_master(&self) -> Result<()> {
        await_some("keepalived is Master", LIMIT, || {
            Ok(self.log().contains("Entering MASTER STATE").then_some(()))
        })
    }

    /// # Errors
    /// Where it has ended; its log is quoted.
    pub fn require_running(&mut self) -> Result<()> {
        self.process.require_running()
    }

    /// Its clean end: it resigns and removes the addresses.
    ///
    /// # Errors
    /// Where it does not end.
    pub fn end(mut self) -> Result<()> {
        self.process.signal(Signal::SIGTERM)?;
        self.process.wait(LIMIT).map(drop)
    }

    /// SIGKILL to all of it; its addresses stay, as they do. The child first: it would resign when
    /// its parent dies.
    ///
    /// # Errors
    /// Where it had ended before.
    pub fn kill(self) -> Result<()> {
        kill(self.child()?, Signal::SIGKILL).context("cannot kill keepalived's child")?;
        self.process.kill()
    }

    /// # Errors
    /// Where it does not say.
    pub fn statistics(&self) -> Result<Statistics> {
        let path = self.directory.join(STATISTICS);
        // Those of before would be taken for new ones.
        let _ = std::fs::remove_file(&path);
        kill(self.child()?, Signal::SIGUSR2).context("cannot signal keepalived's child")?;
        await_some("keepalived's statistics", LIMIT, || {
            Ok(std::fs::read_to_string(&path).ok().as_deref().and_then(parse))
        })
    }

    /// The process that speaks VRRP.
    ///
    /// # Errors
    /// Where there is none.
    pub fn child(&self) -> Result<Pid> {
        let path = self.directory.join(CHILD);
        await_some("keepalived's process id", LIMIT, || {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            Ok(text.trim().parse().ok().map(Pid::from_raw))
        })
    }
}

/// None where the file is not whole yet.
fn parse(text: &str) -> Option<Statistics> {
    let mut statistics = Statistics::default();
    let mut section = "";
    let mut whole = false;
    for line in text.lines().map(str::trim) {
        let (name, value) = line.split_once(':')?;
        match (section, value.trim()) {
            (_, "") => section = name,
            ("Advertisements", value) if name == "Received" => {
                statistics.received = value.parse().ok()?;
            }
            ("Packet Errors" | "Authentication Errors", value) => {
                let count: u64 = value.parse().ok()?;
                *statistics.refused.entry(format!("{section}: {name}")).or_default() += count;
            }
            ("Priority Zero", _) => whole = name == "Sent",
            _ => {}
        }
    }
    (whole && !statistics.refused.is_empty()).then_some(statistics)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATISTICS: &str = "VRRP Instance: VI_1\n  Advertisements:\n    Received: 7\n    \
        Sent: 2\n  Became master: 1\n  Released master: 0\n  Packet Errors:\n    Length: 0\n    \
        TTL: 1\n    Invalid Type: 0\n    Advertisement Interval: 3\n    Address List: 0\n  \
        Authentication Errors:\n    Invalid Type: 0\n    Type Mismatch: 0\n    Failure: 5\n  \
        Priority Zero:\n    Received: 9\n    Sent: 4\n";

    #[test]
    fn every_kind_of_refusal_is_counted() {
        let statistics = parse(STATISTICS).unwrap();
        assert_eq!((statistics.received, statistics.refusals()), (7, 9));
        assert_eq!(statistics.refused["Authentication Errors: Failure"], 5);
    }

    #[test]
    fn a_file_that_is_still_written_tells_nothing() {
        for end in (0..STATISTICS.len() - 2).filter(|end| STATISTICS.is_char_boundary(*end)) {
            assert_eq!(parse(&STATISTICS[..end]), None, "{end}");
        }
    }
}
