//! Which of a node's connections are not where their clients' new ones would go, which of these may be moved now,
//! and how fast. Pure: who the sockets are, what the time is and what becomes of a connection is for others to say.
//!
//! To move a connection is to end it by a reset: its client comes again, and lands where the table says.

mod pace;
mod placing;
mod sight;
mod survey;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::time::Duration;

pub use pace::Pace;
pub use placing::{Obstacle, Place, Places, Placing};
pub use sight::{Sight, Sights};
pub use survey::{Look, Movable, Survey, Target};

use crate::config::Rebalance;

/// For how long a request may be worked on before it is answered: whose client has spoken last is no idle one until
/// then. The API servers of Kubernetes give up after so long, and clients that do ask anew.
pub const ANSWER: Duration = Duration::from_secs(60);

/// A connection of a service whose socket this node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    pub client: SocketAddr,
    /// It is at least so old.
    pub age: Duration,
    /// Since its server has last said something.
    pub sent: Duration,
    /// Since its client has.
    pub received: Duration,
    /// Something is unsent, on its way, or unread.
    pub pending: bool,
    /// It came here although who gets new connections was the same for long, so that it would come here again.
    pub returns: bool,
}

impl Connection {
    /// For how long neither side has said anything.
    pub fn silence(&self) -> Duration {
        self.sent.min(self.received)
    }

    /// Whether nobody misses it: nothing is under way, and no answer is awaited.
    pub fn is_idle(&self, idle: Duration) -> bool {
        let asked = self.received < self.sent;
        let enough = if asked { idle.max(ANSWER) } else { idle };
        !self.pending && self.silence() >= enough
    }
}

/// Why a connection that belongs elsewhere is not moved now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hindrance {
    /// The backend that it belongs to is not known to be healthy.
    Unsure,
    /// It would come back: other nodes or the way here think otherwise than this table.
    Returns,
    /// Less old than `minimum_age`.
    Young,
    /// It talks, or did less than `idle` ago.
    Busy,
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It is where it belongs, or belongs nowhere.
    Placed,
    /// It belongs to the backend of this place; moved unless something hinders it.
    Misplaced { to: usize, hindrance: Option<Hindrance> },
}

/// Judges one connection.
pub fn judge(connection: &Connection, placing: &Placing, terms: &Rebalance) -> Judgement {
    let Some(to) = placing.chosen(connection.client) else { return Judgement::Placed };
    let place = &placing.places.backends[to];
    if place.here {
        return Judgement::Placed;
    }
    let hindrance = if !place.healthy {
        Some(Hindrance::Unsure)
    } else if connection.returns {
        Some(Hindrance::Returns)
    } else if connection.age < terms.minimum_age {
        Some(Hindrance::Young)
    } else if !connection.is_idle(terms.idle) {
        Some(Hindrance::Busy)
    } else {
        None
    };
    Judgement::Misplaced { to, hindrance }
}

/// Whether to begin without being asked: enough belongs elsewhere, some of it can be moved, and who gets new
/// connections has been the same for long enough.
pub fn begins(look: &Look, unchanged: Duration, terms: &Rebalance) -> bool {
    // What would come back is no reason to begin.
    let misplaced = look.misplaced.saturating_sub(look.returns);
    let share = u128::from(misplaced) * 100;
    terms.automatic
        && unchanged >= terms.stable
        && look.movable > 0
        && share > u128::from(look.connections) * u128::from(terms.threshold_percent)
}
