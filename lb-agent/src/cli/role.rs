//! `lbctl role active|backup`.

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::failure::Failure;
use super::screen::{Screen, Tone};
use crate::control::api::Role;
use crate::control::client::Client;

/// Make this node Active or Backup by hand
///
/// The Active node holds the virtual addresses and attracts their traffic. Any node steers what
/// reaches it, so established connections survive the move. Take the role from one node before you
/// give it to another.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(after_help = "Example, from master1 to master2:\n  \
    ssh master1 lbctl role backup\n  \
    ssh master2 lbctl role active")]
pub struct Arguments {
    #[arg(value_enum, value_name = "ROLE")]
    role: RoleArgument,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RoleArgument {
    /// Hold the virtual addresses
    Active,
    /// Give them up
    Backup,
}

impl From<RoleArgument> for Role {
    fn from(argument: RoleArgument) -> Self {
        match argument {
            RoleArgument::Active => Self::Active,
            RoleArgument::Backup => Self::Backup,
        }
    }
}

/// What the agent says about its role after the change.
#[derive(Serialize)]
struct Changed {
    node: String,
    role: Role,
    role_reason: String,
}

pub(super) async fn run(
    arguments: &Arguments,
    client: &Client,
    screen: &mut Screen<'_>,
) -> Result<(), Failure> {
    client.set_role(arguments.role.into()).await?;
    let status = client.status().await?;
    let changed = Changed { node: status.node, role: status.role, role_reason: status.role_reason };
    if screen.data(&changed)? {
        return Ok(());
    }
    let role = screen.painted(tone(changed.role), name(changed.role));
    screen.line(&format!("{} is {role}: {}", changed.node, changed.role_reason))
}

pub(super) fn name(role: Role) -> &'static str {
    match role {
        Role::Active => "Active",
        Role::Backup => "Backup",
    }
}

pub(super) fn tone(role: Role) -> Tone {
    match role {
        Role::Active => Tone::Good,
        Role::Backup => Tone::Plain,
    }
}
