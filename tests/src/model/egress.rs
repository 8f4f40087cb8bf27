//! "Leaving: tc egress".

use lb_common::counter::Verdict;
use lb_common::settings::LOCAL_UDP;

use super::parse::{self, Family, Kind};
use super::state::State;
use super::{Outcome, neighbour, rewrite};

/// What becomes of a frame of this node that leaves by `interface`.
pub fn leave(state: &State, frame: &[u8], interface: u32) -> Outcome {
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
    // "A datagram with a remembered tuple: its source becomes the VIP and the service's port."
    let Ok(packet) = parse::packet(frame, link, ip) else { return untouched() };
    if packet.kind != Kind::Datagram || state.settings.flags & LOCAL_UDP == 0 {
        return untouched();
    }
    let Some(asked) = state.udp_replies.get(&packet.tuple) else { return untouched() };
    let mut out = Outcome::passed(Verdict::UdpReply, frame);
    rewrite::source(&mut out.frame, &packet, &asked.address, asked.port_be);
    out
}
