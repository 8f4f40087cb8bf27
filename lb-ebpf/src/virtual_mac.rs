//! Frames to and from the MAC of a virtual router (RFC 9568, 7.2 and 8.1.2).
//!
//! This node sends them only while its lease on that MAC lasts. It takes them a little longer: until
//! the next Active node speaks the switch goes on to bring the clients' frames here, where they are
//! steered as well as on any other node.

use lb_common::counter::Verdict;
use lb_common::settings::VIRTUAL_MAC;
use lb_common::virtual_mac::{is_virtual, lease_key};

use crate::environment::{Frame, Node};
use crate::parse::{Parsed, parse};
use crate::wire::{Ethernet, Mac};

/// For how long after its lease a node takes frames to the MAC. Longer than the skew after which
/// another one takes over from a dead agent, at the intervals that are in use (RFC 9568, 6.1: less than
/// one), and than a switch takes to learn.
const GRACE_NS: u64 = 2_000_000_000;

/// A frame that came in, before anything else: dropped where it is for a virtual router that this
/// node is not. Where it is, everything but ARP and ND goes on as if the interface's own MAC had
/// been asked for: the stack takes it in on this interface, with the filters that a person set for
/// that, rather than on the virtual router's. ARP and ND are answered there.
#[inline(always)]
pub fn arrive<F: Frame, N: Node>(frame: &mut F, node: &N) -> Option<Verdict> {
    let destination = frame.load::<Mac>(0)?;
    if !is_virtual(destination.0) || !in_use(node) {
        return None;
    }
    if lease(node, destination)?.saturating_add(GRACE_NS) <= node.now_ns() {
        return Some(Verdict::VirtualMacNoLease);
    }
    // A look of its own: what the other one finds would have to be kept meanwhile, for every frame.
    if !matches!(parse(frame, |_| false), Parsed::Arp(_) | Parsed::Nd { .. }) {
        let own = Mac::from_bytes(node.interface(frame.interface_index())?.mac);
        frame.store(0, own)?;
        frame.readdressed();
    }
    None
}

/// A frame whose MAC `arrive` replaced, where the kernel had looked at it before: veth does
/// (`__dev_forward_skb`), and after XDP it only ever finds more frames to be another machine's
/// (`eth_skb_pkt_type`).
#[inline(always)]
pub fn recognise<F: Frame, N: Node>(frame: &mut F, node: &N) -> Option<()> {
    let own = Mac::from_bytes(node.interface(frame.interface_index())?.mac);
    if frame.load::<Mac>(0)?.same(own) {
        frame.readdressed();
    }
    Some(())
}

/// Whether the sender of a frame that is about to leave is a virtual router that this node is; else the
/// verdict on one that must not leave. Asked of every frame, so the maps are for those with such a MAC.
#[inline(always)]
pub fn leave<F: Frame, N: Node>(frame: &F, node: &N) -> Result<bool, Verdict> {
    let Some(ethernet) = frame.load::<Ethernet>(0) else { return Ok(false) };
    if !is_virtual(ethernet.source.0) || !in_use(node) {
        return Ok(false);
    }
    match lease(node, ethernet.source) {
        Some(until_ns) if node.now_ns() < until_ns => Ok(true),
        Some(_) => Err(Verdict::VirtualMacNoLease),
        // Another program's virtual router.
        None => Ok(false),
    }
}

/// Whether virtual MACs are in use, and no other speaks for a VIP.
#[inline(always)]
pub fn in_use<N: Node>(node: &N) -> bool {
    node.settings().is_some_and(|settings| settings.flags & VIRTUAL_MAC != 0)
}

/// Until when this node may send with the MAC; nothing where it is of no virtual router of ours.
#[inline(always)]
fn lease<N: Node>(node: &N, mac: Mac) -> Option<u64> {
    Some(node.vip(&lease_key(mac.bytes()))?.lease_until_ns)
}
