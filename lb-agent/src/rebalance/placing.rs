//! Where a client's new connection goes now, as the programs choose for a SYN.

use std::net::SocketAddr;
use std::sync::Arc;

use lb_common::Address;
use lb_common::bucket::{Bucket, slot};
use lb_common::hash::client_hash;

/// A backend of a service, as far as it matters where connections belong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// It gets new connections, and there is a way to it.
    pub accepts: bool,
    /// And is known to be well, as far as it is checked.
    pub healthy: bool,
    /// On this node, which hands it the packets unchanged.
    pub here: bool,
    /// By a person's word, its weight or its health it gets no new connections, and keeps those that it has.
    pub keeps: bool,
}

/// Who gets the new connections of a service at one of its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    pub seed: u64,
    /// The client's port counts, too.
    pub by_port: bool,
    /// In the table's canonical order.
    pub backends: Vec<Place>,
    /// Too few are healthy: all are used.
    pub everybody: bool,
}

/// The same with the table, by which it can be asked.
#[derive(Clone, Debug)]
pub struct Placing {
    pub places: Arc<Places>,
    pub buckets: Arc<[Bucket]>,
}

/// Why nothing of a service is moved on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    NotHere,
    Keeps,
    Everybody,
    Alone,
}

impl Obstacle {
    /// What it is, as a sentence goes on with it.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::NotHere => {
                "none of its backends is on this node: run it on their nodes (lbctl backends); connections \
                 through NAT are not moved"
            }
            Self::Keeps => {
                "its backend on this node is down, draining or disabled, and keeps what it has: enable it first"
            }
            Self::Everybody => "too few of its backends are healthy, so that all are used",
            Self::Alone => "fewer than two of its backends take new connections",
        }
    }
}

impl Places {
    /// What stands against moving anything.
    pub fn obstacle(&self) -> Option<Obstacle> {
        let mut here = self.backends.iter().filter(|place| place.here).peekable();
        if here.peek().is_none() {
            return Some(Obstacle::NotHere);
        }
        if here.any(|place| place.keeps) {
            return Some(Obstacle::Keeps);
        }
        if self.everybody {
            return Some(Obstacle::Everybody);
        }
        let accepting = self.backends.iter().filter(|place| place.accepts).count();
        (accepting < 2).then_some(Obstacle::Alone)
    }
}

impl Placing {
    /// The backend that a SYN of this client goes to: the first rank that accepts (docs/packet-path.md, Choosing).
    pub fn chosen(&self, client: SocketAddr) -> Option<usize> {
        let slots = u32::try_from(self.buckets.len()).ok().filter(|slots| *slots > 0)?;
        let port_be = if self.places.by_port { client.port().to_be() } else { 0 };
        let hash = client_hash(self.places.seed, &Address::from(client.ip()), port_be);
        let bucket = self.buckets.get(slot(hash, slots) as usize)?;
        let accepts = |rank: &usize| self.places.backends.get(*rank).is_some_and(|p| p.accepts);
        // The mark for no backend is beyond all of them.
        bucket.ranks.iter().map(|&rank| usize::from(rank)).find(accepts)
    }
}
