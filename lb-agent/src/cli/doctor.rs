//! `lbctl doctor`: what is wrong with this machine, and what to do. Needs no agent, and asks it where one runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::Outcome;
use super::check;
use super::failure::Failure;
use super::screen::{Screen, Tone};
use super::table::{Cell, Table};
use crate::config::Config;
use crate::doctor::{self, File, Request};
use crate::finding::Severity;

const DEFAULT_FILE: &str = "/etc/lb/lb.toml";

/// Look what is wrong with this machine, its network and its file, with what to do
///
/// Before and after installation: kernel, interface, firewall, VRRP on the link, who has the virtual
/// addresses, certificates, scripts, and what a running agent says. Changes nothing; as an ordinary
/// user it says what it could not look at. Exit status is 1 where something does not work.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(after_help = "Examples:\n  \
    lbctl doctor\n  \
    lbctl doctor --interface ens33 --seconds 10     before there is a file\n  \
    lbctl doctor -o json | jq '.findings[] | select(.severity != \"good\")'")]
pub struct Arguments {
    /// The file to be held against the machine; without one the machine is looked at alone
    /// [default: /etc/lb/lb.toml, where it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// The interface to look at, instead of those of the file
    #[arg(long, value_name = "IFACE")]
    interface: Option<String>,

    /// How long to listen to VRRP; 0 is not at all [default: three advertisement intervals]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..=600))]
    seconds: Option<u64>,

    /// Also try native XDP on an interface with no program: the link goes down for a moment with some drivers
    #[arg(long)]
    try_attach: bool,
}

pub(super) async fn run(
    arguments: &Arguments,
    socket: &Path,
    screen: &mut Screen<'_>,
) -> Result<Outcome, Failure> {
    let file = file(arguments.config.as_deref())?;
    let socket = match &file {
        // Unless another one was named.
        File::Read(config) if socket == Path::new(super::arguments::DEFAULT_SOCKET) => {
            config.control.socket.clone()
        }
        _ => socket.to_owned(),
    };
    let diagnosis = doctor::examine(Request {
        file,
        interface: arguments.interface.clone(),
        listen: arguments.seconds.map(Duration::from_secs),
        try_attach: arguments.try_attach,
        socket,
    })
    .await;
    if !screen.data(&diagnosis)? {
        show(&diagnosis, screen)?;
    }
    Ok(if diagnosis.is_bad() { Outcome::Failed } else { Outcome::Done })
}

fn file(named: Option<&Path>) -> Result<File, Failure> {
    let path = named.unwrap_or(Path::new(DEFAULT_FILE));
    if named.is_none() && !path.exists() {
        return Ok(File::Absent);
    }
    let text = match check::read(path) {
        Ok(text) => text,
        Err(failure) if named.is_none() => return Ok(File::Unread(failure.to_string())),
        Err(failure) => return Err(failure),
    };
    Ok(match Config::parse(&text) {
        Ok(config) => File::Read(Box::new(config)),
        Err(error) => File::Refused { problems: error.faults.len(), path: path.to_owned() },
    })
}

fn show(diagnosis: &doctor::Diagnosis, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let mut table = Table::new(["LOOKED AT", "", "FOUND"]);
    for finding in &diagnosis.findings {
        let (tone, word) = word(finding.severity);
        table.row([
            Cell::from(finding.subject.as_str()),
            Cell::toned(tone, word),
            Cell::from(finding.found.as_str()),
        ]);
    }
    screen.table(&table)?;
    for finding in &diagnosis.findings {
        if let Some(remedy) = &finding.remedy {
            screen.line(&format!("\n{}: {remedy}", finding.subject))?;
        }
    }
    screen.line(&format!("\n{}", diagnosis.summary))
}

const fn word(severity: Severity) -> (Tone, &'static str) {
    match severity {
        Severity::Good => (Tone::Good, "ok"),
        Severity::NotLookedAt => (Tone::Plain, "not seen"),
        Severity::Doubtful => (Tone::Doubtful, "doubtful"),
        Severity::Bad => (Tone::Bad, "bad"),
    }
}
