//! `lbctl upgrade`.

use std::path::PathBuf;

use clap::Args;

use super::failure::Failure;
use super::screen::Screen;
use crate::control::api::{AgentVersion, Upgrade, UpgradeMode, UpgradeRequest, UpgradeStep};
use crate::control::client::Client;

const MORE: &str = "\
A new version is started beside the one that runs. It reads the configuration and has the kernel verify
its programs; only then does the old one rest, and the new one takes over maps, programs, VRRP and the
socket. Whatever goes wrong until it serves, it is ended, and the old one goes on: no connection breaks
and the VIP stays. Between versions with other layouts of the maps, those are taken along.

Examples:
  apt-get install ./lb_1.1_amd64.deb && lbctl upgrade    the file that is installed now
  lbctl upgrade --check                                  would it go?
  lbctl upgrade --hand-over                              give the VIPs to another node before
  lbctl upgrade /opt/lb-1.0/lb-agent                     this one instead, back for example

Exit status: 0 the new version serves (or would), 1 the old one goes on, 2 the command line is wrong.";

/// Replace the running agent by another version, without a connection lost
///
/// By default by the file that it was started from, as a package has replaced it. Other files must belong to
/// root, with all directories on the way, and naming one takes root.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(after_help = MORE)]
pub struct Arguments {
    /// The agent's program; by default the file that the running one was started from
    #[arg(value_name = "PATH")]
    path: Option<PathBuf>,

    /// Only ask whether it would go: the configuration is read and the programs are verified
    #[arg(long)]
    check: bool,

    /// Keep the VIPs on this node, whatever `upgrade` in [control] says
    #[arg(long, conflicts_with = "hand_over")]
    in_place: bool,

    /// Give the VIPs to another node before, whatever `upgrade` in [control] says
    #[arg(long)]
    hand_over: bool,
}

impl Arguments {
    fn request(&self) -> UpgradeRequest {
        let mode = match (self.in_place, self.hand_over) {
            (true, _) => Some(UpgradeMode::InPlace),
            (_, true) => Some(UpgradeMode::HandOver),
            _ => None,
        };
        UpgradeRequest { path: self.path.clone(), mode, check: self.check }
    }
}

pub(super) async fn run(
    arguments: &Arguments,
    client: &Client,
    screen: &mut Screen<'_>,
) -> Result<(), Failure> {
    let mut unwritten = Ok(());
    let told = |step: &UpgradeStep| {
        if screen.is_for_people() && unwritten.is_ok() {
            unwritten = screen.line(&line(step));
        }
    };
    let upgrade = client.upgrade(&arguments.request(), told).await?;
    unwritten?;
    if screen.data(&upgrade)? {
        return Ok(());
    }
    screen.line(&outcome(&upgrade))
}

fn line(step: &UpgradeStep) -> String {
    format!("{:>6.2}s  {}", step.after_ms as f64 / 1e3, step.what)
}

fn outcome(upgrade: &Upgrade) -> String {
    let Upgrade { from, to, .. } = upgrade;
    let versions = match from.layout_version == to.layout_version {
        true => format!("{} to {}", from.version, to.version),
        false => format!("{} to {}", named(from), named(to)),
    };
    let warning = match from.table_version == to.table_version {
        true => "",
        false => "; it steers clients differently: upgrade the other nodes soon",
    };
    match (upgrade.done, upgrade.pid) {
        (false, _) => format!("it would go from version {versions}; nothing was changed{warning}"),
        (true, pid) => {
            let pid = pid.map_or_else(String::new, |pid| format!(", process {pid}"));
            format!("upgraded from version {versions}{pid}{warning}")
        }
    }
}

fn named(version: &AgentVersion) -> String {
    format!("{} (layout {})", version.version, version.layout_version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outcome_names_what_is_different() {
        let version = |version: &str, layout_version, table_version| AgentVersion {
            version: version.to_owned(),
            layout_version,
            table_version,
        };
        let mut upgrade = Upgrade {
            done: false,
            mode: UpgradeMode::InPlace,
            path: PathBuf::from("/usr/sbin/lb-agent"),
            from: version("1.0", 2, 2),
            to: version("1.1", 2, 2),
            pid: None,
            took_ms: 900,
            pause_ms: None,
        };
        assert_eq!(outcome(&upgrade), "it would go from version 1.0 to 1.1; nothing was changed");
        (upgrade.done, upgrade.pid, upgrade.to) = (true, Some(7), version("2.0", 3, 3));
        assert_eq!(
            outcome(&upgrade),
            "upgraded from version 1.0 (layout 2) to 2.0 (layout 3), process 7; it steers clients \
             differently: upgrade the other nodes soon"
        );
    }
}
