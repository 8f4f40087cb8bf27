//! The tuple of a flow in one direction, as a key; and what is noted of the connections of clients.

use crate::Address;

/// A direction of a flow: the addresses and ports of its packets as they stand in the headers.
#[repr(C, align(4))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct FlowKey {
    pub source: Address,
    pub destination: Address,
    pub source_port_be: u16,
    pub destination_port_be: u16,
    /// IANA protocol number: 6 or 17.
    pub protocol: u8,
    pub padding: [u8; 3],
}

impl FlowKey {
    /// The tuple of the packets that go the other way.
    #[inline(always)]
    pub const fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port_be: self.destination_port_be,
            destination_port_be: self.source_port_be,
            protocol: self.protocol,
            padding: [0; 3],
        }
    }
}

/// An address and port.
#[repr(C, align(4))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Endpoint {
    pub address: Address,
    pub port_be: u16,
    pub padding: [u8; 2],
}

/// The value of the map `flows`, by the tuple from the client to the service: a connection, noted so that its
/// client can be told when its backend is gone. Nothing is wrong where one is missing.
///
/// The numbers are those of the last segment in which the client pushed something.
#[repr(C, align(4))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Flow {
    /// Index in the map `backends`: whom its first segment that was noted most probably went to, or
    /// [`NO_BACKEND`](crate::backend::NO_BACKEND). Its owner may be another one.
    pub backend: u32,
    /// The segment's sequence number.
    pub sequence_be: u32,
    /// What it acknowledged.
    pub acknowledged_be: u32,
    /// When it came, and when the first one did: `CLOCK_MONOTONIC`, in units of 2^30 ns.
    pub seen: u32,
    pub since: u32,
}

impl Flow {
    /// Nanoseconds as a time of [`seen`](Self::seen).
    #[inline(always)]
    pub const fn time(now_ns: u64) -> u32 {
        (now_ns >> 30) as u32
    }
}

const _: () = assert!(size_of::<Flow>() == 20);
const _: () = assert!(size_of::<FlowKey>() == 40);
const _: () = assert!(size_of::<Endpoint>() == 20);
