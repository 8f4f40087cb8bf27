//! A real dnsmasq, which has a zone of its own in a file and asks nobody.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use super::{await_some, directory, write};
use crate::lab::{Host, Process};

const LIMIT: Duration = Duration::from_secs(10);
const RECORDS: &str = "records";

/// Owned: killed on drop.
#[derive(Debug)]
pub struct Dnsmasq {
    process: Process,
    directory: PathBuf,
}

impl Dnsmasq {
    /// Starts it and waits until it listens. It says of every name below `zone` what [`say`](Self::say) has it say, or
    /// that there is none; each answer is good for a second.
    ///
    /// # Errors
    /// Where it is not installed, or does not come up.
    pub fn start(host: &Host, listen: SocketAddr, zone: &str) -> Result<Self> {
        let directory = directory(host, "dnsmasq")?;
        let records = write(&directory, RECORDS, "")?;
        let pid = directory.join("dnsmasq.pid");
        let mut command = Command::new("dnsmasq");
        command.args(["--keep-in-foreground", "--no-resolv", "--no-hosts", "--bind-interfaces"]);
        command.args(["--conf-file=/dev/null", "--user=root", "--local-ttl=1", "--log-facility=-"]);
        command.arg(format!("--port={}", listen.port()));
        command.arg(format!("--listen-address={}", listen.ip()));
        command.arg(format!("--local=/{zone}/"));
        command.arg(format!("--addn-hosts={}", records.display()));
        command.arg(format!("--pid-file={}", pid.display()));
        let mut dnsmasq = Self { process: host.spawn("dnsmasq", command)?, directory };
        // Written once it listens.
        await_some("dnsmasq serves", LIMIT, || {
            dnsmasq.process.require_running()?;
            Ok(pid.exists().then_some(()))
        })
        .context("is the package dnsmasq-base installed?")?;
        Ok(dnsmasq)
    }

    /// From now on a name has these addresses; without any there is no such name.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn say(&self, name: &str, addresses: &[IpAddr]) -> Result<()> {
        let lines: Vec<String> = addresses.iter().map(|at| format!("{at} {name}\n")).collect();
        write(&self.directory, RECORDS, &lines.concat())?;
        self.process.signal(Signal::SIGHUP)
    }
}
