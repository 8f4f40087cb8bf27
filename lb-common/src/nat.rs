//! NAT entries. A translated flow has two, one for each direction, made and removed together.

use crate::Address;

/// Flags seen on packets in an entry's direction; the agent joins both directions' for timeouts.
pub const SEEN_SYN: u8 = 1 << 0;
pub const SEEN_FIN: u8 = 1 << 1;
pub const SEEN_RST: u8 = 1 << 2;
/// A packet other than the first SYN.
pub const SEEN_DATA: u8 = 1 << 3;

/// The entry of packets from the client (its partner's key is the reply's).
pub const FROM_CLIENT: u8 = 1;
/// The entry of packets from the backend.
pub const FROM_BACKEND: u8 = 2;

/// The value of the map `nat_flows`: what a packet with the key's tuple becomes.
///
/// The partner's key follows from the value: the tuple that the packet gets, reversed.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NatEntry {
    /// What the source and destination become.
    pub source: Address,
    pub destination: Address,
    pub source_port_be: u16,
    pub destination_port_be: u16,
    /// Out of this interface,
    pub ifindex: u32,
    /// to this MAC,
    pub mac: [u8; 6],
    /// [`FROM_CLIENT`] or [`FROM_BACKEND`].
    pub direction: u8,
    /// `SEEN_*`.
    pub seen: u8,
    /// from this one.
    pub source_mac: [u8; 6],
    pub padding: [u8; 2],
    /// When a packet last used it: `CLOCK_MONOTONIC` in nanoseconds, coarse; written at most once
    /// a second.
    pub last_seen_ns: u64,
    /// Index in `backends` of the flow's backend.
    pub backend: u32,
    /// 0 in what the programs make. In an entry that another node told of: [`NatEntry::mark`] of its
    /// `last_seen_ns`, which fits until a packet has used it here.
    pub told: u32,
}

impl NatEntry {
    /// No entry: room to read one into.
    pub const EMPTY: Self = Self {
        source: Address::UNSPECIFIED,
        destination: Address::UNSPECIFIED,
        source_port_be: 0,
        destination_port_be: 0,
        ifindex: 0,
        mac: [0; 6],
        direction: 0,
        seen: 0,
        source_mac: [0; 6],
        padding: [0; 2],
        last_seen_ns: 0,
        backend: 0,
        told: 0,
    };

    /// Of an entry that another node told of, last used at this time; never 0.
    pub const fn mark(last_seen_ns: u64) -> u32 {
        ((last_seen_ns >> 32) ^ last_seen_ns) as u32 | 1
    }

    /// Whether this node knows of it from another one only: none of its own packets has used it.
    pub const fn is_only_told(&self) -> bool {
        self.told == Self::mark(self.last_seen_ns)
    }
}

const _: () = assert!(size_of::<NatEntry>() == 72);
