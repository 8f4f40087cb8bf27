//! The data path's global settings: the one element of the map `settings`.

/// Packets to a VIP on a port that no service has are dropped instead of passed to the stack.
pub const DROP_UNKNOWN_PORTS: u32 = 1 << 0;
/// The node's own processes are sent to a backend on this node where one accepts.
pub const HOST_PREFERS_LOCAL: u32 = 1 << 1;
/// A UDP service has a backend on this node: replies are looked up on their way out.
pub const LOCAL_UDP: u32 = 1 << 2;
/// What is said about a VIP is said with its virtual router's MAC, and with no other.
pub const VIRTUAL_MAC: u32 = 1 << 3;

/// SYNs that this node takes are counted against [`Settings::syn_interval_ns`].
pub const SYN_GUARD: u32 = 1 << 4;
/// In a flood XDP answers them by cookies, which the kernel takes when they come back.
pub const SYN_COOKIES: u32 = 1 << 5;

#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Settings {
    /// One bit for each peer's MAC ([`peer_bit`]); where the sender's bit is clear it is no peer.
    pub peers: u64,
    /// Key of [`nat_port_hash`](crate::hash::nat_port_hash), the same on every node.
    pub nat_key: u64,
    /// First port of the range reserved for NAT, in host order.
    pub nat_port_first: u16,
    /// Ports in that range; 0 where nothing is delivered by NAT.
    pub nat_port_count: u16,
    pub flags: u32,
    /// A second divided by the rate of SYNs above which this is a flood; with [`SYN_GUARD`].
    pub syn_interval_ns: u32,
    /// Room; zero.
    pub reserved: u32,
}

/// What the program notes for itself: the one element of the map `runtime`.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Runtime {
    /// When a SYN cookie last came back for a listener here (`CLOCK_MONOTONIC`, nanoseconds).
    pub cookie_seen_ns: u64,
}

/// How long after a cookie tc goes on to look for more: the longest that one is valid (two periods
/// of a minute, Linux `MAX_SYNCOOKIE_AGE`).
pub const COOKIE_WATCH_NS: u64 = 120 * 1_000_000_000;

/// The bit of a MAC in [`Settings::peers`].
#[inline(always)]
pub const fn peer_bit(mac: &[u8; 6]) -> u64 {
    // The low bytes differ between the cards of one vendor.
    1 << ((mac[5] ^ (mac[4] << 1)) & 63)
}

/// The key of the map `peers`: the MAC of another node's interface.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PeerKey {
    pub mac: [u8; 6],
    pub padding: [u8; 2],
}

const _: () = assert!(size_of::<Settings>() == 32);
const _: () = assert!(size_of::<PeerKey>() == 8);
