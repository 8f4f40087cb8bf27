//! `lbctl detach IFACE`.

use clap::Args;
use serde::Serialize;

use super::failure::Failure;
use super::screen::Screen;
use crate::control::client::Client;

/// Detach the program from an interface
///
/// From then on packets take the kernel's ordinary way there. It stays so when the agent is
/// restarted, also where the configuration names the interface, until `lbctl attach`.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(after_help = "Example:\n  lbctl detach ens33\n\nWhat is attached: lbctl status")]
pub struct Arguments {
    /// An interface that is attached
    #[arg(value_name = "IFACE")]
    interface: String,
}

#[derive(Serialize)]
struct Detached<'a> {
    detached: &'a str,
}

pub(super) async fn run(
    arguments: &Arguments,
    client: &Client,
    screen: &mut Screen<'_>,
) -> Result<(), Failure> {
    client.detach(&arguments.interface).await?;
    if screen.data(&Detached { detached: &arguments.interface })? {
        return Ok(());
    }
    screen.line(&format!("{} is detached", arguments.interface))
}
