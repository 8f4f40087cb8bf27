//! A service: an address, protocol and port that clients use, and what to do with its packets.

use crate::Address;

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

/// The key of the map `services`.
#[repr(C, align(4))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ServiceKey {
    /// The VIP.
    pub address: Address,
    pub port_be: u16,
    /// [`TCP`] or [`UDP`].
    pub protocol: u8,
    pub padding: u8,
}

/// Clients are hashed by address and port instead of by address alone.
pub const HASH_PORT: u32 = 1 << 0;
/// At least one backend is delivered by NAT: the flow's NAT entry is looked up first.
pub const HAS_NAT: u32 = 1 << 1;
/// At least one backend is on this node.
pub const HAS_LOCAL: u32 = 1 << 2;

/// The value of the map `services`.
///
/// Everything that belongs to one generation of the table is in this one value, so that replacing
/// it swaps table, size and backends at once.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Service {
    /// The seed of the client's hash ([`service_seed`](crate::hash::service_seed)).
    pub seed: u64,
    /// Index of its table in the map `tables`.
    pub table: u32,
    /// Slots of that table.
    pub slots: u32,
    /// Index of its first backend in the map `backends`.
    pub backends: u32,
    /// [`HASH_PORT`], [`HAS_NAT`], [`HAS_LOCAL`].
    pub flags: u32,
    /// Backends from there on.
    pub backend_count: u32,
    /// Room (protection, a flow-table switch, connection-id routing); zero.
    pub reserved: u32,
}

const _: () = assert!(size_of::<ServiceKey>() == 20);
const _: () = assert!(size_of::<Service>() == 32);
