//! What each backend of a service is used for: from its health, from what a person has said of it, and from
//! how the service's others are. Pure.

mod ramp;
mod said;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use ramp::Ramp;
pub use said::{Said, Sayings};

use crate::hysteresis::State;

/// What a person wants a backend to be used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Admin {
    /// What its health allows.
    #[default]
    Enabled,
    /// No new clients; those that it has stay.
    Draining,
    /// Nothing, as if it were down.
    Disabled,
}

/// A backend, as far as its use depends on it alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    pub health: State,
    pub admin: Admin,
    /// To be used while no other can be.
    pub backup: bool,
    /// Has a weight above 0.
    pub weighted: bool,
    /// It is down, and nothing of it is left that its clients could wait for.
    pub gone: bool,
}

impl Member {
    /// Whether new clients may be meant for it at all.
    const fn is_wanted(&self) -> bool {
        self.weighted && matches!(self.admin, Admin::Enabled)
    }

    const fn is_healthy(&self) -> bool {
        self.is_wanted() && !matches!(self.health, State::Down)
    }
}

/// What a backend is, in a word. They are told by the first that fits, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Disabled,
    Down,
    /// Keeps the clients that it has.
    Draining,
    /// Waits for the others to fail.
    Backup,
    /// Healthy, and takes more and more of its clients.
    SlowStarting,
    Healthy,
    /// Not checked, or not yet; used as if it were healthy.
    Unknown,
}

/// What the data path may use a backend for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usable {
    /// Connections that it has are sought there first.
    pub alive: bool,
    /// It gets new ones.
    pub accepts: bool,
    /// It gets nothing any more, so that connections that it had end in resets.
    pub gone: bool,
    /// Above 0 while it [starts slowly](Ramp).
    pub reluctance: u32,
}

impl Usable {
    /// For nothing, but that a connection may be sought there last of all.
    pub const NOT: Self = Self { alive: false, accepts: false, gone: false, reluctance: 0 };
}

/// Whom a service gives new clients to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Uses {
    /// Healthy ones that are no backups.
    #[default]
    Primaries,
    /// Healthy backups, since no other is left.
    Backups,
    /// All that are enabled, healthy or not: so few are healthy that the others could not carry the load, or that
    /// the checks are not to be believed.
    Everybody,
}

/// How a service uses its backends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Manner {
    pub uses: Uses,
    /// Backends that are enabled and not down, backups among them.
    pub healthy: u32,
}

impl Manner {
    /// With fewer than `minimum_healthy` healthy ones everybody is used; 0 is never.
    pub fn of(members: impl IntoIterator<Item = Member>, minimum_healthy: u32) -> Self {
        let (mut healthy, mut primaries, mut down) = (0, false, false);
        for member in members {
            healthy += u32::from(member.is_healthy());
            primaries |= member.is_healthy() && !member.backup;
            down |= member.is_wanted() && !member.is_healthy();
        }
        let uses = if healthy < minimum_healthy && down {
            Uses::Everybody
        } else if primaries || healthy == 0 {
            Uses::Primaries
        } else {
            Uses::Backups
        };
        Self { uses, healthy }
    }

    pub const fn standing(&self, member: Member) -> Standing {
        match (member.admin, member.health) {
            (Admin::Disabled, _) => Standing::Disabled,
            (_, State::Down) => Standing::Down,
            (Admin::Draining, _) => Standing::Draining,
            _ if !member.weighted => Standing::Draining,
            _ if member.backup && matches!(self.uses, Uses::Primaries) => Standing::Backup,
            (_, State::Healthy) => Standing::Healthy,
            (_, State::Unknown) => Standing::Unknown,
        }
    }

    pub const fn usable(&self, member: Member) -> Usable {
        // One that is used though it is down is not sought first: if it is down indeed, the connections of
        // others would end there.
        let alive =
            !matches!(member.health, State::Down) && !matches!(member.admin, Admin::Disabled);
        let accepts = match self.uses {
            Uses::Primaries => member.is_healthy() && !member.backup,
            Uses::Backups => member.is_healthy() && member.backup,
            Uses::Everybody => member.is_wanted(),
        };
        // Where the checks are not to be believed, neither is this.
        let gone = member.gone && !matches!(self.uses, Uses::Everybody);
        Usable { alive, accepts, gone, reluctance: 0 }
    }
}
