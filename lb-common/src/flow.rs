//! The tuple of a flow in one direction, as a key.

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

const _: () = assert!(size_of::<FlowKey>() == 40);
const _: () = assert!(size_of::<Endpoint>() == 20);
