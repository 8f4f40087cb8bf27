//! What the program knows of the interface that a frame came in on.

use crate::Address;

/// Interfaces that can be attached at once. The slot is the interface's index modulo this; the
/// agent refuses an interface whose slot another one holds.
pub const SLOTS: u32 = 64;

/// The value of the array `interfaces`, at slot `ifindex % SLOTS`. Direct indexing instead of a
/// hash map: it is read for every packet to a VIP.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Interface {
    /// 0 where the slot is free.
    pub ifindex: u32,
    /// Its MAC. A frame that is not addressed to it (flooding, promiscuous mode) is not ours.
    pub mac: [u8; 6],
    /// Its MTU; 0 where that is not known, and where it is more than fits.
    pub mtu: u16,
    /// The node's IPv4 address here, as an ARP request may name it; 0 for none.
    pub address_v4_be: u32,
    /// The node's IPv6 address here; unspecified for none.
    pub address_v6: Address,
}

const _: () = assert!(size_of::<Interface>() == 32);
