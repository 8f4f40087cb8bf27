//! The agent's process.

use std::process::ExitCode;

use lb_agent::agent::{self, Edition};

fn main() -> ExitCode {
    agent::process(&Edition::CURRENT)
}
