//! The ranked table of a service: which backend a bucket's connections go to, and who is asked
//! next. docs/tables.md is the contract, docs/decisions/0002-tables.md the reasons.
//!
//! A table follows from the configured set alone: identities, weights, number of slots. Not from
//! the service, so that services over the same backends have one table together.
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

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use lb_common::Address;
use lb_common::bucket::{Bucket, NONE};
use lb_common::hash::backend_hash;

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

/// Where the chain of a backend's identity begins ("lb-ident" read as a number).
const IDENTITY: u64 = 0x6c62_2d69_6465_6e74;

/// A set of backends in canonical order and the size of its table: all that the table follows from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outline {
    slots: Slots,
    members: Vec<Member>,
    /// Of the members, in their order.
    identities: Vec<u64>,
    /// The port where it is a part of the identity, else 0.
    ports_be: Vec<u16>,
}

/// What two sets with the same table have in common. Equal ones have equal buckets.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Likeness {
    slots: Slots,
    /// Address, port as far as it counts, weight; in canonical order.
    backends: Vec<(Address, u16, u16)>,
}

impl Outline {
    /// The order of `members` is of no account.
    ///
    /// # Errors
    /// Where no table can be built of them.
    pub fn new(members: &[Member], slots: Slots) -> Result<Self, BuildError> {
        let ports_be = ports_that_count(members);
        let mut all: Vec<(u64, u16, Member)> = members
            .iter()
            .zip(ports_be)
            .map(|(m, port_be)| (backend_hash(IDENTITY, &m.address, port_be), port_be, *m))
            .collect();
        all.sort_by_key(|(id, _, m)| (*id, m.address.octets(), u16::from_be(m.port_be)));
        let members: Vec<Member> = all.iter().map(|(_, _, member)| *member).collect();
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
        let identities = all.iter().map(|(identity, _, _)| *identity).collect();
        let ports_be = all.iter().map(|(_, port_be, _)| *port_be).collect();
        Ok(Self { slots, members, identities, ports_be })
    }

    /// The backends in the order that the ranks refer to: by identity, so the same on every node.
    /// The backends of a service must stand in the map in this order.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    pub fn slots(&self) -> Slots {
        self.slots
    }

    /// What sets with the same table have in common.
    pub fn likeness(&self) -> Likeness {
        let backends = self.members.iter().zip(&self.ports_be);
        let backends = backends.map(|(m, port_be)| (m.address, *port_be, m.weight)).collect();
        Likeness { slots: self.slots, backends }
    }

    /// One bucket for each slot. Without members every bucket is empty.
    pub fn buckets(&self) -> Vec<Bucket> {
        build::populate(&self.identities, &self.members, self.slots)
    }
}

/// For each member its port where the set has its address more than once, and else 0: a set of
/// machines has the same table whatever port they serve on.
fn ports_that_count(members: &[Member]) -> Vec<u16> {
    let mut times: HashMap<Address, u32> = HashMap::with_capacity(members.len());
    for member in members {
        *times.entry(member.address).or_default() += 1;
    }
    let counts = |m: &Member| times.get(&m.address).is_some_and(|&times| times > 1);
    members.iter().map(|m| if counts(m) { m.port_be } else { 0 }).collect()
}

/// A set's table, and the order of backends that its ranks refer to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Table {
    outline: Outline,
    buckets: Vec<Bucket>,
}

impl Table {
    /// Builds the table of a set. The order of `members` is of no account.
    ///
    /// # Errors
    /// Where a backend stands there twice, or there are too many of them.
    pub fn build(members: &[Member], slots: Slots) -> Result<Self, BuildError> {
        let outline = Outline::new(members, slots)?;
        let buckets = outline.buckets();
        Ok(Self { outline, buckets })
    }

    /// As [`Outline::members`].
    pub fn members(&self) -> &[Member] {
        self.outline.members()
    }

    /// One bucket for each slot.
    pub fn buckets(&self) -> &[Bucket] {
        &self.buckets
    }

    pub fn slots(&self) -> Slots {
        self.outline.slots()
    }

    /// The fraction of the buckets in which each member comes first, in the order of
    /// [`members`](Self::members).
    pub fn shares(&self) -> Vec<f64> {
        shares(self.members().len(), &self.buckets)
    }
}

/// The fraction of the buckets in which each of so many members comes first.
pub fn shares(members: usize, buckets: &[Bucket]) -> Vec<f64> {
    let mut owned = vec![0_u32; members];
    for bucket in buckets {
        if let Some(count) = owned.get_mut(usize::from(bucket.ranks[0])) {
            *count += 1;
        }
    }
    owned.into_iter().map(|count| f64::from(count) / buckets.len() as f64).collect()
}

/// The ranks of a bucket that are in use.
fn ranked(bucket: &Bucket) -> &[u16] {
    let used = bucket.ranks.iter().position(|&rank| rank == NONE);
    &bucket.ranks[..used.unwrap_or(bucket.ranks.len())]
}
