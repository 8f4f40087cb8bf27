//! `cargo xtask demo`: nodes and clients in namespaces, and a VIP whose node dies.

use crate::lab::hand_over;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Print the figures as one JSON object, the last line of standard output
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    hand_over("the demo", &["demo"], arguments.json)
}
