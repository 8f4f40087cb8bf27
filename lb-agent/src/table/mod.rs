//! The ranked table of a service: which backend a bucket's connections go to, and who is asked
//! next. docs/tables.md is the contract, docs/decisions/0002-tables.md the reasons.
//!
//! A table follows from the configured set alone: seed, identities, weights, number of slots.
//! Health and draining are flags beside it, so a backend that dies moves its own share to the
//! next ranks and nothing is rebuilt. Pure: no clock, no map, no history but in [`Table::carry`].

mod build;
mod carry;
#[cfg(test)]
mod golden;
mod orphans;
mod slots;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};

use lb_common::Address;
use lb_common::bucket::{Bucket, NONE};

pub use carry::Former;
pub use slots::{Slots, SlotsError};

/// How many ranks the contract fills for a set larger than [`RANKS`](lb_common::bucket::RANKS).
/// The places behind them are for [`Table::carry`] and [`Table::orphans`].
pub const RANKS_OF_LARGE_SETS: usize = 4;

/// A configured backend as the table sees it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Member {
    pub address: Address,
    pub port_be: u16,
    /// Its part of the new connections is proportional to this. 0: ranked after all others.
    pub weight: u16,
}

impl Member {
    pub fn new(address: SocketAddr, weight: u16) -> Self {
        Self { address: address.ip().into(), port_be: address.port().to_be(), weight }
    }

    /// Where it listens.
    pub fn socket_address(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::from(self.address), u16::from_be(self.port_be))
    }

    fn identity(&self, seed: u64) -> u64 {
        lb_common::hash::backend_hash(seed, &self.address, self.port_be)
    }

    fn is_same_backend(&self, other: &Self) -> bool {
        (self.address, self.port_be) == (other.address, other.port_be)
    }
}

/// Why a table cannot be built. All of them are the configuration's.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BuildError {
    #[error(
        "backend {0} is listed twice in one service; keep one entry and give it the weight of both"
    )]
    Duplicate(SocketAddr),
    #[error(
        "{members} backends do not fit a table of {slots} slots; raise table_size to at least {}",
        Slots::for_weights(&vec![1; *.members])
    )]
    TooFewSlots { members: usize, slots: Slots },
    #[error("{members} backends are more than a service can have; the most are {}", NONE - 1)]
    TooManyMembers { members: usize },
}

/// A service's table, and the order of backends that its ranks refer to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Table {
    seed: u64,
    slots: Slots,
    members: Vec<Member>,
    buckets: Vec<Bucket>,
}

impl Table {
    /// Builds the table of a service with this seed
    /// ([`service_seed`](lb_common::hash::service_seed)). The order of `members` is of no account.
    ///
    /// Without members every bucket is empty.
    pub fn build(seed: u64, members: &[Member], slots: Slots) -> Result<Self, BuildError> {
        let mut members = members.to_vec();
        members.sort_by_key(|m| (m.identity(seed), m.address.octets(), u16::from_be(m.port_be)));
        if let Some(pair) = members.windows(2).find(|pair| pair[0].is_same_backend(&pair[1])) {
            return Err(BuildError::Duplicate(pair[0].socket_address()));
        }
        // An index must fit a rank beside NONE.
        if members.len() >= usize::from(NONE) {
            return Err(BuildError::TooManyMembers { members: members.len() });
        }
        if members.len() > slots.number() as usize {
            return Err(BuildError::TooFewSlots { members: members.len(), slots });
        }
        let buckets = build::populate(seed, &members, slots);
        Ok(Self { seed, slots, members, buckets })
    }

    /// The backends in the order that the ranks refer to: by identity hash, so the same on every
    /// node. The backends of a service must stand in the map in this order.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// One bucket for each slot.
    pub fn buckets(&self) -> &[Bucket] {
        &self.buckets
    }

    pub fn slots(&self) -> Slots {
        self.slots
    }

    /// The fraction of the buckets in which each member comes first, in the order of
    /// [`members`](Self::members).
    pub fn shares(&self) -> Vec<f64> {
        let mut owned = vec![0_u32; self.members.len()];
        for bucket in &self.buckets {
            if let Some(count) = owned.get_mut(usize::from(bucket.ranks[0])) {
                *count += 1;
            }
        }
        let slots = f64::from(self.slots.number());
        owned.into_iter().map(|count| f64::from(count) / slots).collect()
    }
}

/// The ranks of a bucket that are in use.
fn ranked(bucket: &Bucket) -> &[u16] {
    let used = bucket.ranks.iter().position(|&rank| rank == NONE);
    &bucket.ranks[..used.unwrap_or(bucket.ranks.len())]
}
