//! The command line, as clap sees it, and the help that teaches it.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use super::{
    attach, backends, check, completions, detach, doctor, events, explain, flows, import,
    rebalance, reload, role, upgrade, vrrp,
};

const EXAMPLES: &str = "\
Examples:
  lbctl check lb.toml            is the file right, and what does it mean?
  lbctl import --keepalived master*.conf --nginx nginx.conf
                                 what the files of keepalived and nginx are as lb.toml
  lbctl doctor                   what is wrong with this machine and its network, and what to do?
  lbctl attach ens33             begin to balance what arrives on ens33
  lbctl status                   role, virtual addresses, interfaces, what became of packets
  lbctl backends                 who serves, who does not, and why
  lbctl flows --client 192.0.2.7 where are this client's connections?
  lbctl explain 192.0.2.7 192.168.139.150:8443
                                 which backend does that client get, and why?
  lbctl events --follow          what happens on this node, and why
  lbctl backends -o json | jq '.[] | select(.accepting | not)'
  watch lbctl backends           the same, again and again

Exit status: 0 done, 1 failed, 2 the command line or the configuration is wrong.";

/// Where the agent listens unless its file says otherwise.
pub(super) const DEFAULT_SOCKET: &str = "/run/lb/lb.sock";

/// Watch and steer the load balancer on this node
#[derive(Clone, Debug, PartialEq, Parser)]
#[command(name = "lbctl", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    /// The agent's socket
    #[arg(long, global = true, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    pub socket: PathBuf,

    /// Columns for people, more of them, or the API's answer for programs
    #[arg(short, long, global = true, value_enum, value_name = "FORMAT", default_value_t)]
    pub output: Format,

    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    #[default]
    Table,
    Wide,
    Json,
    Yaml,
}

#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum Verb {
    Attach(attach::Arguments),
    Detach(detach::Arguments),
    /// Show this node: its role, virtual addresses, interfaces, and what became of packets
    ///
    /// With `-o wide`, every verdict with its meaning, those at zero too.
    Status,
    /// List the services and how many of their backends take connections
    Services,
    Backends(backends::Arguments),
    Rebalance(rebalance::Arguments),
    Flows(flows::Arguments),
    Explain(explain::Arguments),
    Events(events::Arguments),
    /// List the nodes of the configuration as this one sees them
    Nodes,
    Reload(reload::Arguments),
    Upgrade(upgrade::Arguments),
    Role(role::Arguments),
    Vrrp(vrrp::Arguments),
    Check(check::Arguments),
    Import(import::Arguments),
    Doctor(doctor::Arguments),
    Completions(completions::Arguments),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_may_stand_before_or_after_the_verb() {
        let before = Cli::try_parse_from(["lbctl", "-o", "json", "--socket", "/s", "status"]);
        let after = Cli::try_parse_from(["lbctl", "status", "--socket", "/s", "-o", "json"]);
        let expected =
            Cli { socket: PathBuf::from("/s"), output: Format::Json, verb: Verb::Status };
        assert_eq!(before.expect("a command line"), expected);
        assert_eq!(after.expect("a command line"), expected);
    }

    #[test]
    fn every_verb_explains_itself() {
        for verb in Cli::command().get_subcommands() {
            assert!(verb.get_about().is_some(), "{}", verb.get_name());
        }
    }
}
