//! `lbctl attach IFACE`.

use clap::Args;

use super::failure::Failure;
use super::screen::{Screen, Tone};
use crate::control::client::Client;

/// Attach the program to an interface
///
/// Native XDP is tried first, then generic XDP, then tc, and on a veth generic XDP first (or what
/// `modes` in [data_path] says). The interface stays attached when the agent is restarted. Doing it
/// twice does no harm.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(after_help = "Example:\n  lbctl attach ens33\n\nThe names: ip -brief link")]
pub struct Arguments {
    /// The interface that clients' packets come in on
    #[arg(value_name = "IFACE")]
    interface: String,
}

pub(super) async fn run(
    arguments: &Arguments,
    client: &Client,
    screen: &mut Screen<'_>,
) -> Result<(), Failure> {
    let interface = client.attach(&arguments.interface).await?;
    if screen.data(&interface)? {
        return Ok(());
    }
    let done = screen.painted(Tone::Good, "attached");
    screen.line(&format!(
        "{} is {done} in mode {}: {}",
        interface.name, interface.mode, interface.reason
    ))
}
