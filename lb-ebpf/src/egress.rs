//! What leaves the node: ARP and ND that would claim a VIP without a lease or its MAC, and replies of UDP
//! servers on this node.

use lb_common::counter::{Outcome, Verdict};
use lb_common::fragment::LEAVING;
use lb_common::settings::LOCAL_UDP;

use crate::deep::{Part, key, uncover};
use crate::environment::{Frame, Node};
use crate::nat::rewrite;
use crate::neighbour;
use crate::parse::{Packet, Parsed, parse};
use crate::{fragment, virtual_mac};

/// What becomes of a frame that leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leaving {
    /// None of our business.
    Untouched,
    Decided(Verdict),
    /// [`leave_rare`] decides.
    Rare,
}

/// Decides on a frame that is about to leave.
#[inline(always)]
pub fn leave<F: Frame, N: Node>(frame: &mut F, node: &N) -> Leaving {
    let virtually = match virtual_mac::leave(frame, node) {
        Ok(virtually) => virtually,
        Err(verdict) => return Leaving::Decided(verdict),
    };
    let local_udp = node.settings().is_some_and(|settings| settings.flags & LOCAL_UDP != 0);
    let verdict = match parse(frame, |_| local_udp) {
        Parsed::Arp(offset) => neighbour::arp_out(frame, node, virtually, offset),
        Parsed::Nd { network, transport } => {
            neighbour::nd_out(frame, node, virtually, network, transport)
        }
        Parsed::Packet(packet) if packet.is_udp() => {
            return match udp_reply(frame, node, &packet) {
                Some(verdict) => Leaving::Decided(verdict),
                None => Leaving::Untouched,
            };
        }
        Parsed::Deep(_) => return Leaving::Rare,
        _ => return Leaving::Untouched,
    };
    if verdict as u32 == Verdict::NotOurs as u32 || verdict as u32 == Verdict::NotIp as u32 {
        return Leaving::Untouched;
    }
    Leaving::Decided(verdict)
}

/// Decides on a frame that [`leave`] left to this: a reply in pieces.
#[inline(always)]
pub fn leave_rare<F: Frame, N: Node>(frame: &mut F, node: &N) -> Option<Verdict> {
    let Parsed::Deep(network) = parse(frame, |_| true) else { return None };
    let uncovered = uncover(frame, network)?;
    if let Part::Following = uncovered.part {
        fragment::leave(frame, node, &uncovered)?;
        return Some(Verdict::UdpReply);
    }
    let Parsed::Packet(packet) = uncovered.parsed(frame) else { return None };
    if !packet.is_udp() {
        return None;
    }
    let verdict = udp_reply(frame, node, &packet);
    if uncovered.is_first() {
        let key = key(&packet, uncovered.id, LEAVING);
        fragment::note(frame, node, &packet, &key, verdict.is_some());
    }
    verdict
}

#[inline(always)]
fn udp_reply<F: Frame, N: Node>(frame: &mut F, node: &N, packet: &Packet) -> Option<Verdict> {
    let asked = *node.udp_reply(&packet.flow)?;
    rewrite(
        frame,
        packet,
        &asked.address,
        asked.port_be,
        &packet.flow.destination,
        packet.flow.destination_port_be,
        packet.ttl,
    )?;
    Some(Verdict::UdpReply)
}

/// Whether a verdict on leaving keeps the frame from leaving.
#[inline(always)]
pub const fn is_dropped(verdict: Verdict) -> bool {
    matches!(verdict.outcome(), Outcome::Drop)
}
