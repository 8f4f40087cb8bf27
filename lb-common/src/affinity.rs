//! Whom a client's datagrams went to, for services that keep them there.

use crate::Address;
use crate::backend::Backend;

/// The value of the map `affinities`, by the tuple from the client to the service.
///
/// It names the backend twice: an index may be another one's after a change of the configuration.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Affinity {
    pub address: Address,
    pub port_be: u16,
    /// Zero.
    pub padding: u16,
    /// Index in the map `backends`.
    pub backend: u32,
    /// When the last datagram was seen, to the second: `CLOCK_MONOTONIC`, nanoseconds.
    pub last_seen_ns: u64,
}

impl Affinity {
    #[inline(always)]
    pub const fn new(backend: &Backend, index: u32, now_ns: u64) -> Self {
        let Backend { address, port_be, .. } = *backend;
        Self { address, port_be, padding: 0, backend: index, last_seen_ns: now_ns }
    }

    /// Whether it is this backend that it names, which may be another one's place by now.
    #[inline(always)]
    pub fn names(&self, backend: &Backend) -> bool {
        self.address == backend.address && self.port_be == backend.port_be
    }
}

const _: () = assert!(size_of::<Affinity>() == 32);
