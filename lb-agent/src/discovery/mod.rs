//! Backends that somebody else tells of while the agent runs: the addresses of a name in DNS, the endpoints of a
//! Kubernetes service.
//!
//! Nothing here is needed to start, and nobody who falls silent or says nonsense takes a backend away: the last known
//! set stays, also over a restart. [`known`] decides what becomes of an answer, [`pace`] when to ask again; both are
//! pure, as are [`dns::message`](dns) and the slices of `kubernetes`. The rest asks, and puts what it hears on the
//! [`Board`], where the agent's loop takes it.

mod board;
mod dns;
mod driver;
pub mod known;
#[cfg(feature = "kubernetes")]
mod kubernetes;
mod pace;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::SocketAddr;

pub use board::{Board, Condition};
pub use driver::Driver;
pub use known::{Known, Verdict};

/// What somebody says a service's backends are now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// For new clients.
    pub wanted: BTreeSet<SocketAddr>,
    /// On their way out: they keep the clients that they have.
    pub leaving: BTreeSet<SocketAddr>,
}

/// Whether this build can ask in this way; else why not.
pub fn unbuilt(source: &crate::config::Source) -> Option<&'static str> {
    match source {
        crate::config::Source::Kubernetes(_) if !cfg!(feature = "kubernetes") => Some(
            "this build asks no Kubernetes (it was built without the feature `kubernetes`): the last known set is used",
        ),
        _ => None,
    }
}
