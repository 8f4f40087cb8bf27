//! The node's own sockets that a cgroup hook sent to a backend, and what they believe to talk to.

use crate::Address;

/// The key of the map `host_origins`: a socket and the backend that it was sent to.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct OriginKey {
    /// The socket's cookie.
    pub cookie: u64,
    /// The backend.
    pub address: Address,
    pub port_be: u16,
    pub padding: [u8; 6],
}

// The value is the `flow::Endpoint` that the process named: VIP and port.

const _: () = assert!(size_of::<OriginKey>() == 32);
