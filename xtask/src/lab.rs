//! `cargo xtask lab`: hands over to the lab's own program.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::Context;
use clap::Subcommand;

use crate::{build, command, workspace};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run scenarios: nodes, clients and backends as namespaces of this machine (root)
    Run {
        /// Their names, as `lab list` prints them; `all` for every one
        #[arg(required = true)]
        names: Vec<String>,
        /// Between VRRP's advertisements, such as 10ms or 1s (failover-* only)
        #[arg(long)]
        interval: Option<String>,
        /// So many times the flows, changes, reloads, restarts, backends or connections (scale, reload-under-load,
        /// restart-under-load, thousand-backends and nat-failover only)
        #[arg(long)]
        times: Option<u32>,
        /// Print the result as one JSON object, the last line of standard output
        #[arg(long)]
        json: bool,
        /// Print each step
        #[arg(long, short)]
        verbose: bool,
    },
    /// Print the scenarios' names and what each shows
    List,
    /// Run VRRP routers in virtual time under faults, and check what must always hold
    Simulate {
        /// How many
        #[arg(long, default_value_t = 100_000)]
        scenarios: u64,
        /// Of the first; the others follow
        #[arg(long)]
        seed: Option<u64>,
        /// Print the result as one JSON object, the last line of standard output
        #[arg(long)]
        json: bool,
    },
    /// Run sequences of frames and changes through the programs, and hold them against the model (root)
    Model {
        /// How many
        #[arg(long, default_value_t = 100_000)]
        sequences: u64,
        /// Of the first; the others follow
        #[arg(long)]
        seed: Option<u64>,
        /// Print the result as one JSON object, the last line of standard output
        #[arg(long)]
        json: bool,
    },
    /// Make the demo's nodes and keep them until Ctrl-C, to look around in (root)
    Up,
    /// Remove what a crashed run left behind (root)
    Clean,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    match &arguments.verb {
        Verb::Run { names, interval, times, json, verbose } => {
            let times = times.map(|times| format!("--times={times}"));
            let mut words = vec!["run"];
            words.extend(names.iter().map(String::as_str));
            words.extend(interval.iter().flat_map(|interval| ["--interval", interval]));
            words.extend(times.as_deref());
            words.extend(verbose.then_some("--verbose"));
            hand_over("a scenario", &words, *json)
        }
        Verb::List => become_it(Command::new(build::lab()?).arg("list")),
        // It makes no machine, so that anybody may.
        Verb::Simulate { scenarios, seed, json } => {
            let mut lab = Command::new(build::lab()?);
            lab.args(["simulate", "--scenarios"]).arg(scenarios.to_string());
            lab.args(seed.map(|seed| format!("--seed={seed}")));
            become_it(lab.args(json.then_some("--json")))
        }
        Verb::Model { sequences, seed, json } => {
            let sequences = sequences.to_string();
            let seed = seed.map(|seed| format!("--seed={seed}"));
            let mut words = vec!["model", "--sequences", &sequences];
            words.extend(seed.as_deref());
            hand_over("the model", &words, *json)
        }
        Verb::Up => hand_over("the lab", &["up"], false),
        Verb::Clean => hand_over("cleaning up", &["clean"], false),
    }
}

/// Builds the lab's program and becomes it, with `--json` where asked for.
pub(crate) fn hand_over(what: &str, arguments: &[&str], json: bool) -> anyhow::Result<()> {
    workspace::require_root(what)?;
    let mut lab = Command::new(build::lab()?);
    become_it(lab.args(arguments).args(json.then_some("--json")))
}

/// Replaces this process: signals and the terminal go to the lab, which cleans up after itself.
fn become_it(command: &mut Command) -> anyhow::Result<()> {
    let error = command.exec();
    Err(error).with_context(|| format!("cannot run `{}`", command::shown(command)))
}
