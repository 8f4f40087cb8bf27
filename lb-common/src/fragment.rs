//! Where the following fragments of a packet go: only the first one has ports.

use crate::Address;
use crate::backend::NO_BACKEND;

/// Which packet a fragment is of (RFC 791, RFC 8200, 4.5), and for which program.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct FragmentKey {
    pub source: Address,
    pub destination: Address,
    /// As it lies in the header; IPv4's in the lower half.
    pub id: u32,
    /// IPv4's protocol. IPv6's next header may differ between fragments, so 44 stands for all.
    pub protocol: u8,
    /// [`STEERED`], which delivery reads too, or [`LEAVING`].
    pub at: u8,
    pub padding: [u8; 2],
}

/// The fragment header's own number.
const ALL_OF_IPV6: u8 = 44;

pub const STEERED: u8 = 0;
pub const LEAVING: u8 = 1;

/// What became of a packet's first fragment.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Fragment {
    /// With which addresses it went on.
    pub source: Address,
    pub destination: Address,
    /// When it came, `CLOCK_MONOTONIC` in ns.
    pub seen_ns: u64,
    /// The backend that it counts for, or [`NO_BACKEND`].
    pub backend: u32,
    /// Where it was sent.
    pub ifindex: u32,
    pub mac: [u8; 6],
    pub source_mac: [u8; 6],
    /// With which TTL or hop limit.
    pub ttl: u8,
    /// 1 where it was sent; 0 where it was left to this node's stack.
    pub sent: u8,
    /// The transport's.
    pub protocol: u8,
    pub padding: u8,
}

impl FragmentKey {
    /// As steering looks it up. `v4` says which header the identification is of.
    #[inline(always)]
    pub const fn new(
        source: Address,
        destination: Address,
        id: u32,
        protocol: u8,
        v4: bool,
    ) -> Self {
        let protocol = if v4 { protocol } else { ALL_OF_IPV6 };
        Self { source, destination, id, protocol, at: STEERED, padding: [0; 2] }
    }
}

impl Fragment {
    pub const EMPTY: Self = Self {
        source: Address::UNSPECIFIED,
        destination: Address::UNSPECIFIED,
        seen_ns: 0,
        backend: NO_BACKEND,
        ifindex: 0,
        mac: [0; 6],
        source_mac: [0; 6],
        ttl: 0,
        sent: 0,
        protocol: 0,
        padding: 0,
    };
}

/// For how long following fragments are told by it. They travel together, and a sender comes back to
/// the same identification soon (RFC 6864).
pub const FRAGMENT_NS: u64 = 5_000_000_000;

const _: () = assert!(size_of::<FragmentKey>() == 40);
const _: () = assert!(size_of::<Fragment>() == 64);
