//! The agent's command line.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;

use crate::config::Config;

/// The load balancer's agent: attaches the kernel programs, checks backends, holds the VIP.
///
/// Runs in the foreground and logs to standard error. SIGHUP has it read its configuration anew. SIGTERM and
/// SIGINT end it: the virtual addresses are handed over, and the data path goes on by itself until the
/// next agent takes it over, or until --purge; with `on_stop = "remove"` in [data_path] nothing stays.
#[derive(Clone, Debug, Parser)]
#[command(name = "lb-agent", version, max_term_width = 100)]
pub struct Options {
    /// The configuration, the same file on every node
    #[arg(long, short, default_value = "/etc/lb/lb.toml", value_name = "FILE")]
    pub config: PathBuf,

    /// This node's name in the configuration; found by its addresses if left out
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,

    /// Check the configuration and exit: 0 if it is valid, 2 if not
    #[arg(long)]
    pub check: bool,

    /// Remove every program, link and map that an agent pinned, then exit
    #[arg(long)]
    pub purge: bool,

    /// Follow the agent at the other end of standard input: lbctl upgrade has it started so
    #[arg(long, hide = true)]
    pub take_over: bool,

    /// Instead of paths.bpf
    #[arg(long, value_name = "DIR")]
    pub bpf_dir: Option<PathBuf>,

    /// Instead of paths.state
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,

    /// Instead of control.socket
    #[arg(long, value_name = "FILE")]
    pub socket: Option<PathBuf>,

    /// Instead of host.cgroup: whose processes are sent to a backend
    #[arg(long, value_name = "DIR")]
    pub cgroup: Option<PathBuf>,

    /// Instead of metrics.listen
    #[arg(long, value_name = "ADDRESS")]
    pub metrics: Option<SocketAddr>,
}

impl Options {
    /// The command line that says the same, for an agent that is to follow.
    pub(super) fn arguments(&self) -> Vec<OsString> {
        let mut arguments = vec!["--config".into(), self.config.clone().into_os_string()];
        let node = self.node.as_ref().map(OsString::from);
        let metrics = self.metrics.map(|address| OsString::from(address.to_string()));
        let path = |path: &Option<PathBuf>| path.clone().map(PathBuf::into_os_string);
        for (name, value) in [
            ("--node", node),
            ("--bpf-dir", path(&self.bpf_dir)),
            ("--state-dir", path(&self.state_dir)),
            ("--socket", path(&self.socket)),
            ("--cgroup", path(&self.cgroup)),
            ("--metrics", metrics),
        ] {
            if let Some(value) = value {
                arguments.extend([name.into(), value]);
            }
        }
        arguments
    }

    /// The configuration with what the command line says instead.
    pub fn override_in(&self, mut config: Config) -> Config {
        if let Some(path) = &self.bpf_dir {
            config.paths.bpf.clone_from(path);
        }
        if let Some(path) = &self.state_dir {
            config.paths.state.clone_from(path);
        }
        if let Some(path) = &self.socket {
            config.control.socket.clone_from(path);
        }
        if self.cgroup.is_some() {
            config.host.cgroup.clone_from(&self.cgroup);
        }
        if self.metrics.is_some() {
            config.metrics.listen = self.metrics;
        }
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_follows_is_told_the_same() {
        let all = [
            "lb-agent",
            "--config",
            "/a",
            "--node",
            "b",
            "--bpf-dir",
            "/c",
            "--state-dir",
            "/d",
            "--socket",
            "/e",
            "--cgroup",
            "/f",
            "--metrics",
            "[::1]:9",
        ];
        for line in [&all[..], &all[..1]] {
            let options = Options::parse_from(line);
            let again =
                Options::parse_from([vec!["lb-agent".into()], options.arguments()].concat());
            assert_eq!(format!("{options:?}"), format!("{again:?}"));
        }
    }
}
