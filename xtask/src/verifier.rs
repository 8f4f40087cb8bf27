//! `cargo xtask verifier`: what the kernel's verifier goes through for each program.

use crate::lab::hand_over;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    hand_over("verifying programs", &["verifier"], arguments.json)
}
