//! NAT flows told from node to node, so that those of a node that is gone go on through the one that has the VIPs
//! then. Why, and what it costs: docs/decisions/0021-nat-synchronisation.md.
//!
//! Each node connects to each other one and tells it of the flows whose packets it sees: of all at first, then of
//! what has changed. The map is the queue: each look at it ([`journal`]) finds what the other side does not know
//! yet, in batches of a bounded size, the next one only when the last one was taken. `words`, `record`, `journal`,
//! `adoption` and `board` decide; `key`, `channel`, `teller` and `hearer` carry.

mod adoption;
mod board;
mod channel;
mod hearer;
mod journal;
mod key;
mod record;
mod teller;
#[cfg(test)]
mod tests;
mod words;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::task::JoinSet;

pub use adoption::{LinkEnd, Ways};
pub use board::{Board, Condition, PeerStatus, Refusal};
pub use key::{Key, KeyError};

use crate::dataplane::Translations;

/// Another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub name: String,
    /// At least one.
    pub addresses: Vec<IpAddr>,
}

/// With whom flows are synchronised, and how.
#[derive(Debug)]
pub struct Settings {
    /// This node's name, and where it listens.
    pub node: String,
    pub listen: Vec<SocketAddr>,
    pub peers: Vec<Peer>,
    pub port: u16,
    pub key: Key,
}

/// What goes on while this node synchronises. Ends with it.
#[derive(Debug)]
pub struct Sync {
    tasks: JoinSet<()>,
}

/// What all of it shares.
#[derive(Debug)]
pub(crate) struct Shared {
    settings: Settings,
    flows: Translations,
    ways: Arc<Published>,
    board: Arc<Board>,
}

/// The ways that a flow can take from this node, as they are now.
#[derive(Debug, Default)]
pub struct Published(RwLock<Arc<Ways>>);

impl Published {
    pub fn set(&self, ways: Ways) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ways);
    }

    fn now(&self) -> Arc<Ways> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Sync {
    /// Begins to tell the peers and to listen to them, beside everything else. Within a runtime.
    pub fn start(
        settings: Settings,
        flows: Translations,
        ways: &Arc<Published>,
        board: &Arc<Board>,
    ) -> Self {
        let (ways, board) = (Arc::clone(ways), Arc::clone(board));
        let shared = Arc::new(Shared { settings, flows, ways, board });
        let mut tasks = JoinSet::new();
        for place in 0..shared.settings.peers.len() {
            tasks.spawn(teller::run(Arc::clone(&shared), place));
        }
        for &listen in &shared.settings.listen {
            tasks.spawn(hearer::run(Arc::clone(&shared), listen));
        }
        Self { tasks }
    }

    /// Ends it, and waits until nothing of it writes to the map any more.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}
