//! ARP and neighbour discovery for a VIP, answered only under a lease; and what this node may say
//! about a VIP that it does not hold.

use lb_common::Address;
use lb_common::counter::Verdict;

use crate::environment::{Frame, Node};
use crate::virtual_mac::in_use;
use crate::wire::*;

/// An ARP packet that came in.
#[inline(always)]
pub fn arp<F: Frame, N: Node>(frame: &F, node: &N, offset: usize) -> Verdict {
    let Some(arp) = frame.load::<Arp>(offset) else { return Verdict::NotIp };
    if !arp.is_ipv4() || arp.operation_be != ARP_REQUEST {
        return Verdict::NotOurs;
    }
    match holds(node, &Address::from_v4_word(Arp::word(arp.target))) {
        None => Verdict::NotOurs,
        Some(true) => Verdict::ArpHeld,
        Some(false) => Verdict::ArpNoLease,
    }
}

/// A neighbour solicitation or advertisement that came in.
#[inline(always)]
pub fn nd<F: Frame, N: Node>(frame: &F, node: &N, offset: usize) -> Verdict {
    let Some((kind, target)) = nd_target(frame, offset) else { return Verdict::NotOurs };
    if kind != ND_SOLICITATION {
        return Verdict::NotOurs;
    }
    match holds(node, &target) {
        None => Verdict::NotOurs,
        Some(true) => Verdict::NdHeld,
        Some(false) => Verdict::NdNoLease,
    }
}

/// Whether this node holds a lease on the address; nothing where it is no VIP.
#[inline(always)]
pub fn holds<N: Node>(node: &N, address: &Address) -> Option<bool> {
    if !node.may_be_ours(address) {
        return None;
    }
    let vip = node.vip(address)?;
    Some(node.now_ns() < vip.lease_until_ns)
}

#[inline(always)]
fn nd_target<F: Frame>(frame: &F, offset: usize) -> Option<(u8, Address)> {
    let icmp = frame.load::<Icmp>(offset)?;
    let words = frame.load::<[u32; 4]>(offset + size_of::<Icmp>())?;
    let address = Address { words };
    // Not IPv4's, which the maps hold in this form.
    if address.is_v4() { None } else { Some((icmp.kind, address)) }
}

/// An ARP packet that this node is about to send. A request that names a VIP as its sender, as the
/// kernel does when it answers a client from the VIP, would draw the VIP's traffic here: its
/// sender becomes the node's own address.
#[inline(always)]
pub fn arp_out<F: Frame, N: Node>(
    frame: &mut F,
    node: &N,
    virtually: bool,
    offset: usize,
) -> Verdict {
    let Some(arp) = frame.load::<Arp>(offset) else { return Verdict::NotIp };
    if !arp.is_ipv4() {
        return Verdict::NotOurs;
    }
    let sender = Arp::word(arp.sender);
    let refused = match refused(node, virtually, &Address::from_v4_word(sender)) {
        None => return Verdict::NotOurs,
        Some(refused) => refused,
    };
    let own = node.interface(frame.interface_index()).map_or(0, |i| i.address_v4_be);
    if arp.operation_be != ARP_REQUEST || Arp::word(arp.target) == sender || own == 0 || virtually {
        return refused;
    }
    let b = own.to_ne_bytes();
    let words = [u16::from_ne_bytes([b[0], b[1]]), u16::from_ne_bytes([b[2], b[3]])];
    match frame.store(offset + core::mem::offset_of!(Arp, sender), words) {
        Some(()) => Verdict::ArpCorrected,
        None => refused,
    }
}

/// Why this node must not say that it is at an address; nothing where it may. A virtual router's MAC
/// speaks for VIPs alone: the node's own addresses are not at it.
#[inline(always)]
fn refused<N: Node>(node: &N, virtually: bool, address: &Address) -> Option<Verdict> {
    match holds(node, address) {
        Some(false) => Some(Verdict::AnnounceNoLease),
        Some(true) if !virtually && in_use(node) => Some(Verdict::AnnounceOtherMac),
        None if virtually => Some(Verdict::AnnounceOtherMac),
        _ => None,
    }
}

/// A neighbour discovery message that this node is about to send: advertisements of a VIP, and
/// solicitations that come from it, need the lease.
#[inline(always)]
pub fn nd_out<F: Frame, N: Node>(
    frame: &F,
    node: &N,
    virtually: bool,
    network: usize,
    offset: usize,
) -> Verdict {
    let Some((kind, target)) = nd_target(frame, offset) else { return Verdict::NotOurs };
    let about = if kind == ND_ADVERTISEMENT {
        target
    } else {
        match frame.load::<Ipv6>(network) {
            Some(ip) if !(Address { words: ip.source }).is_v4() => Address { words: ip.source },
            _ => return Verdict::NotOurs,
        }
    };
    refused(node, virtually, &about).unwrap_or(Verdict::NotOurs)
}
