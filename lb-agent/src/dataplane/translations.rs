//! The NAT flows as one node tells another of them, and such flows put in.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use lb_common::flow::FlowKey;
use lb_common::layout::map;
use lb_common::nat::NatEntry;

use super::error::DataPlaneError;
use super::hearsay::{Hearsay, Told};
use super::nat::{client_key, number, partner};
use super::{batch, monotonic_ns};

/// A flow with both its entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translation {
    /// The key of `forward`.
    pub client: FlowKey,
    pub forward: NatEntry,
    /// Of the replies.
    pub back: NatEntry,
}

impl Translation {
    /// The key of `back`.
    pub fn reply(&self) -> FlowKey {
        partner(&self.client, &self.forward)
    }

    /// A number for it, the same on every node.
    pub fn number(&self) -> u64 {
        number(&self.client)
    }
}

/// One entry of a flow.
#[derive(Clone, Copy, Debug)]
pub struct Half {
    /// The key of the entry of the client's packets, whichever this one is.
    pub client: FlowKey,
    pub entry: NatEntry,
    /// The flow's number.
    pub number: u64,
    /// A number for what it is translated to.
    pub translation: u32,
}

/// What became of a flow that another node told of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Adopted {
    /// It was not known.
    New,
    /// It was.
    Known,
    /// Its port is another flow's here.
    PortTaken,
    /// Its client has another backend or port here.
    Differs,
    /// There is no room.
    Full,
}

/// A handle of its own on the NAT flows. Whoever has one may block.
#[derive(Clone, Debug)]
pub struct Translations {
    pub(super) flows: Arc<OwnedFd>,
    pub(super) hearsay: Arc<Hearsay>,
}

impl Translations {
    /// Hands each entry to `each`, until that wants no more. Takes about half a microsecond for each.
    ///
    /// # Errors
    /// Where the kernel refuses to read the map.
    pub fn for_each(&self, mut each: impl FnMut(&Half) -> bool) -> Result<(), DataPlaneError> {
        batch::for_each(&*self.flows, NatEntry::EMPTY, |key: &FlowKey, entry| {
            let client = client_key(key, entry);
            let reply = if client == *key { partner(key, entry) } else { *key };
            let translation = number(&reply) as u32;
            each(&Half { client, entry: *entry, number: number(&client), translation })
        })
        .map_err(|e| DataPlaneError::io("reading", map::NAT_FLOWS, e))
    }

    /// The flow of a client's tuple as it is here; none where an entry is missing.
    ///
    /// # Errors
    /// Where the kernel refuses to read the map.
    pub fn of(&self, client: &FlowKey) -> Result<Option<Translation>, DataPlaneError> {
        let Some(forward) = self.look_up(client)? else { return Ok(None) };
        let Some(back) = self.look_up(&partner(client, &forward))? else { return Ok(None) };
        Ok(Some(Translation { client: *client, forward, back }))
    }

    /// The same flow with what other nodes told of it.
    pub fn with_hearsay(&self, flow: &Translation) -> Translation {
        match self.hearsay.of(flow.number()) {
            Some(told) => Translation {
                client: flow.client,
                forward: told.applied(&flow.forward),
                back: told.applied(&flow.back),
            },
            None => *flow,
        }
    }

    /// Puts a flow in that another node told of. What this node's own packets use stays as it is.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn adopt(&self, flow: &Translation, told: Told) -> Result<Adopted, DataPlaneError> {
        let reply = flow.reply();
        // The reply's first, since it claims the port, as the programs do.
        let claimed = match self.put(&reply, &flow.back)? {
            Put::There(there) if same(&there, &flow.back) => false,
            Put::There(_) => return Ok(Adopted::PortTaken),
            Put::Full => return Ok(Adopted::Full),
            Put::Done => true,
        };
        let refused = match self.put(&flow.client, &flow.forward)? {
            Put::There(there) if !same(&there, &flow.forward) => Adopted::Differs,
            Put::Full => Adopted::Full,
            Put::There(_) | Put::Done => {
                self.hearsay.note(flow.number(), told);
                return Ok(if claimed { Adopted::New } else { Adopted::Known });
            }
        };
        if claimed {
            self.remove(&reply)?;
        }
        Ok(refused)
    }

    /// Removes a flow. Packets of it are nobody's then.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn forget(&self, flow: &Translation) -> Result<(), DataPlaneError> {
        self.remove(&flow.client)?;
        self.remove(&flow.reply()).map(drop)
    }

    /// Puts an entry where none is, or one of a flow that this node knows from others only.
    fn put(&self, key: &FlowKey, entry: &NatEntry) -> Result<Put, DataPlaneError> {
        for _ in 0..ATTEMPTS {
            if self.insert(key, entry)? {
                return Ok(Put::Done);
            }
            let Some(there) = self.look_up(key)? else { return Ok(Put::Full) };
            if same(&there, entry) || self.is_used(key, &there)? {
                return Ok(Put::There(there));
            }
            self.remove(&partner(key, &there))?;
            self.remove(key)?;
        }
        Ok(Put::Full)
    }

    /// Whether this node's own packets have used the flow of an entry.
    fn is_used(&self, key: &FlowKey, entry: &NatEntry) -> Result<bool, DataPlaneError> {
        let other = self.look_up(&partner(key, entry))?;
        Ok(!entry.is_only_told() || other.is_some_and(|other| !other.is_only_told()))
    }

    fn insert(&self, key: &FlowKey, entry: &NatEntry) -> Result<bool, DataPlaneError> {
        batch::insert(&*self.flows, key, entry)
            .map_err(|e| DataPlaneError::io("writing", map::NAT_FLOWS, e))
    }

    fn look_up(&self, key: &FlowKey) -> Result<Option<NatEntry>, DataPlaneError> {
        batch::lookup(&*self.flows, key, NatEntry::EMPTY)
            .map_err(|e| DataPlaneError::io("reading", map::NAT_FLOWS, e))
    }

    fn remove(&self, key: &FlowKey) -> Result<bool, DataPlaneError> {
        batch::remove(&*self.flows, key)
            .map_err(|e| DataPlaneError::io("removing from", map::NAT_FLOWS, e))
    }

    /// The clock of the entries.
    pub fn now_ns(&self) -> u64 {
        monotonic_ns()
    }
}

/// A flow that came back in between is left to its own.
const ATTEMPTS: u32 = 2;

/// What became of an entry.
enum Put {
    Done,
    There(NatEntry),
    Full,
}

/// Whether packets become the same by both, whoever they are sent to.
fn same(one: &NatEntry, other: &NatEntry) -> bool {
    let of = |entry: &NatEntry| {
        let NatEntry { source, destination, source_port_be, destination_port_be, .. } = *entry;
        (source, destination, source_port_be, destination_port_be, entry.direction)
    };
    of(one) == of(other)
}
