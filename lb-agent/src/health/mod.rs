//! Which backends answer. A check opens a TCP connection to the backend's port, and may ask for a page over
//! it, or runs a script; `rise` and `fall` turn the results into a [`State`], and a [`Checker`] reports each change of it.
//!
//! What follows from a state (which backend takes new clients, which flows end) is not decided
//! here. [`judge`] and [`pace`] are pure; [`probe`], [`http`], [`script`] and [`driver`] do the
//! work.

mod driver;
mod http;
mod judge;
mod look;
mod pace;
pub mod passive;
pub mod path;
mod probe;
mod script;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{Check, Health};
pub use crate::hysteresis::State;
pub use driver::Checker;
pub use look::{Found, Looks};

/// An address to check, and how. Two services that check a backend in the same way share a target.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    pub address: SocketAddr,
    pub check: Arc<Check>,
    pub schedule: Schedule,
}

/// How often to check, and how many results change a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Schedule {
    /// From the start of one check to the start of the next, give or take a tenth. A pause that
    /// comes out below a millisecond is one of a millisecond.
    pub interval: Duration,
    /// How long a check may take.
    pub timeout: Duration,
    /// Successes in a row that make a target healthy that was down. 0 is taken as 1.
    pub rise: u32,
    /// Failures in a row that make a target down. 0 is taken as 1.
    pub fall: u32,
}

impl Schedule {
    /// What a service's configuration says.
    pub fn of(health: &Health) -> Self {
        let Health { interval, timeout, rise, fall, .. } = *health;
        Self { interval, timeout, rise, fall }
    }

    /// How long a target that dies counts as healthy at most: it dies just after a check has begun well, every
    /// further one comes as late as it may, and the last runs to its end. Longer only where so many checks take
    /// long at the same time that others wait for their turn.
    pub fn noticed_within(&self) -> Duration {
        pace::longest_pause(self.interval).saturating_mul(self.fall.max(1)) + self.timeout
    }
}

/// A target's state changed, or whether it can be checked at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub target: Target,
    pub state: State,
    /// For people: `connected in 0.4 ms`, `connection refused, 3 times in a row`.
    pub reason: String,
    /// Why its last check could not be made; the state is from before.
    pub unchecked: Option<String>,
    /// How little came of it in the last `fall` checks.
    pub silence: Silence,
}

/// How little a target says for itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Silence {
    /// Nothing came back, not even from its machine.
    Unreachable,
    /// Connections open at most.
    Silent,
    /// It answers, well or not.
    #[default]
    None,
}
