//! "Leaving: tc egress".

use lb_common::counter::Verdict;
use lb_common::settings::LOCAL_UDP;

use super::parse::{self, Family, Kind, Packet};
use super::state::State;
use super::{Outcome, fragment, neighbour, rewrite};

/// What becomes of a frame of this node that leaves by `interface`.
pub fn leave(state: &mut State, frame: &[u8], interface: u32) -> Outcome {
    let untouched = || Outcome::untouched(frame);
    let Some(link) = parse::link(frame) else { return untouched() };
    let family = match link.ethertype {
        parse::ETHERTYPE_ARP => return neighbour::arp_leaves(state, frame, link.end, interface),
        parse::ETHERTYPE_IPV4 => Family::V4,
        parse::ETHERTYPE_IPV6 => Family::V6,
        _ => return untouched(),
    };
    let Some(ip) = parse::ip(frame, link.end, family) else { return untouched() };
    if let Some(outcome) = neighbour::discovery_leaves(state, frame, &ip) {
        return outcome;
    }
    let Ok(packet) = parse::packet(frame, link, ip, interface) else { return untouched() };
    if state.settings.flags & LOCAL_UDP == 0 {
        return untouched();
    }
    let outcome = match packet.kind {
        Kind::Following => fragment::following_leaves(state, frame, &packet),
        Kind::Datagram => {
            let outcome = reply(state, frame, &packet);
            fragment::first_leaves(state, &packet, outcome.as_ref());
            outcome
        }
        _ => None,
    };
    outcome.unwrap_or_else(untouched)
}

/// "A datagram with a remembered tuple: its source becomes the VIP and the service's port."
fn reply(state: &State, frame: &[u8], packet: &Packet) -> Option<Outcome> {
    let asked = state.udp_replies.get(&packet.tuple)?;
    let mut out = Outcome::passed(Verdict::UdpReply, frame);
    rewrite::source(&mut out.frame, packet, &asked.address, asked.port_be);
    Some(out)
}
