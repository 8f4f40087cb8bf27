//! What leaves the node: ARP and ND that would claim a VIP without a lease or its MAC, and replies of UDP
//! servers on this node.

use lb_common::counter::{Outcome, Verdict};
use lb_common::settings::LOCAL_UDP;

use crate::environment::{Frame, Node};
use crate::nat::rewrite;
use crate::neighbour;
use crate::parse::{Packet, Parsed, parse};
use crate::virtual_mac;

/// Decides on a frame that is about to leave; nothing where it is none of our business.
#[inline(always)]
pub fn leave<F: Frame, N: Node>(frame: &mut F, node: &N) -> Option<Verdict> {
    let virtually = match virtual_mac::leave(frame, node) {
        Ok(virtually) => virtually,
        Err(verdict) => return Some(verdict),
    };
    let local_udp = node.settings().is_some_and(|settings| settings.flags & LOCAL_UDP != 0);
    let verdict = match parse(frame, |_| local_udp) {
        Parsed::Arp(offset) => neighbour::arp_out(frame, node, virtually, offset),
        Parsed::Nd { network, transport } => {
            neighbour::nd_out(frame, node, virtually, network, transport)
        }
        Parsed::Packet(packet) if packet.is_udp() => return udp_reply(frame, node, &packet),
        _ => return None,
    };
    (verdict as u32 != Verdict::NotOurs as u32 && verdict as u32 != Verdict::NotIp as u32)
        .then_some(verdict)
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
