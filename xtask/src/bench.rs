//! `cargo xtask bench`: the lab's measurements.

use crate::lab::hand_over;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// What to measure: `packet` is the cost of one packet in each delivery, `failover` the time that
    /// the VIP is away, beside keepalived, `idle` the agent's own cost
    name: String,
    /// Only with this between VRRP's advertisements: 1s, 100ms or 10ms (failover only)
    #[arg(long)]
    interval: Option<String>,
    /// Print the figures as one JSON object, the last line of standard output
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut words = vec!["bench", &arguments.name];
    words.extend(arguments.interval.iter().flat_map(|interval| ["--interval", interval]));
    hand_over("a benchmark", &words, arguments.json)
}
