//! ARP and neighbour discovery: the second to fifth row of "Steering", the first two of "Leaving".

use lb_common::Address;
use lb_common::counter::Verdict;

use super::Outcome;
use super::parse::{self, Family, ICMPV6, Ip};
use super::state::State;
use super::steer::is_mapped;

const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

/// ARP for IPv4 over Ethernet (RFC 826).
struct Arp {
    is_request: bool,
    sender: Address,
    target: Address,
    sender_at: usize,
}

enum ReadArp {
    Short,
    /// Of other kinds of addresses.
    Foreign,
    Ours(Arp),
}

fn arp(frame: &[u8], at: usize) -> ReadArp {
    let Some(header) = frame.get(at..at + 28) else { return ReadArp::Short };
    if header[..6] != [0, 1, 8, 0, 6, 4] {
        return ReadArp::Foreign;
    }
    let address = |at: usize| Address::from_v4([0, 1, 2, 3].map(|byte| header[at + byte]));
    let is_request = header[6..8] == [0, 1];
    ReadArp::Ours(Arp { is_request, sender: address(14), target: address(24), sender_at: at + 14 })
}

/// "ARP request for a VIP, this node has a lease": "the stack answers"; "no lease": dropped; "any
/// other ARP": passed.
pub(super) fn arp_arrives(state: &State, frame: &[u8], at: usize) -> Outcome {
    match arp(frame, at) {
        ReadArp::Short => Outcome::passed(Verdict::NotIp, frame),
        ReadArp::Ours(arp) if arp.is_request && state.is_vip(&arp.target) => {
            match state.has_lease(&arp.target) {
                true => Outcome::passed(Verdict::ArpHeld, frame),
                false => Outcome::dropped(Verdict::ArpNoLease, frame),
            }
        }
        _ => Outcome::passed(Verdict::NotOurs, frame),
    }
}

/// The type and target of a neighbour solicitation or advertisement that is "whole, in an IPv6 header
/// of version 6".
fn discovery(frame: &[u8], ip: &Ip) -> Option<(u8, Address)> {
    if ip.family != Family::V6 || ip.protocol != ICMPV6 {
        return None;
    }
    let (message, inside) = parse::inside(frame, ip)?;
    let kind = parse::byte(inside, message)?;
    let target = parse::address_v6(inside, message + 8)?;
    [SOLICITATION, ADVERTISEMENT].contains(&kind).then_some((kind, target))
}

/// "Neighbour solicitation for a VIP, lease / no lease"; "any other [..] neighbour solicitation or
/// advertisement". Nothing where it is none.
pub(super) fn discovery_arrives(state: &State, frame: &[u8], ip: &Ip) -> Option<Outcome> {
    let (kind, target) = discovery(frame, ip)?;
    let outcome = match target {
        target if kind == SOLICITATION && is_vip(state, &target) => {
            match state.has_lease(&target) {
                true => Outcome::passed(Verdict::NdHeld, frame),
                false => Outcome::dropped(Verdict::NdNoLease, frame),
            }
        }
        _ => Outcome::passed(Verdict::NotOurs, frame),
    };
    Some(outcome)
}

/// Whether it is a VIP, as an IPv6 address.
fn is_vip(state: &State, address: &Address) -> bool {
    !is_mapped(address, Family::V6) && state.is_vip(address)
}

/// "An ARP request that names a VIP as its sender, no lease here: the sender becomes the node's own
/// address on that interface"; "any other ARP with a VIP as its sender, or a request when the node
/// has no IPv4 address there": dropped.
pub(super) fn arp_leaves(state: &State, frame: &[u8], at: usize, interface: u32) -> Outcome {
    let ReadArp::Ours(arp) = arp(frame, at) else { return Outcome::untouched(frame) };
    if !state.is_vip(&arp.sender) || state.has_lease(&arp.sender) {
        return Outcome::untouched(frame);
    }
    let own = state.interface(interface).map_or(0, |own| own.address_v4_be);
    // One that asks for the VIP itself is an announcement (RFC 5227).
    if !arp.is_request || arp.target == arp.sender || own == 0 {
        return Outcome::dropped(Verdict::AnnounceNoLease, frame);
    }
    let mut out = Outcome::passed(Verdict::ArpCorrected, frame);
    out.frame[arp.sender_at..arp.sender_at + 4].copy_from_slice(&own.to_ne_bytes());
    out
}

/// "A neighbour advertisement of a VIP, or a solicitation sent from it; no lease here": dropped.
pub(super) fn discovery_leaves(state: &State, frame: &[u8], ip: &Ip) -> Option<Outcome> {
    let (kind, target) = discovery(frame, ip)?;
    let vip = if kind == ADVERTISEMENT { target } else { ip.source };
    Some(match is_vip(state, &vip) && !state.has_lease(&vip) {
        true => Outcome::dropped(Verdict::AnnounceNoLease, frame),
        false => Outcome::untouched(frame),
    })
}
