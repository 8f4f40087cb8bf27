//! "Carrying changes the two MACs and the TTL or hop limit, and nothing behind the IP header."

use lb_common::counter::Verdict;

use super::parse::{Kind, Packet};
use super::state::State;
use super::{Outcome, answer, passive, rewrite};

/// Carries a frame to another node, with a TTL of at most `ttl_limit`; a `new` one counts as a connection.
pub(super) fn carry(
    state: &mut State,
    frame: &[u8],
    packet: &Packet,
    verdict: Verdict,
    index: u32,
    ttl_limit: u8,
    new: bool,
) -> Outcome {
    if packet.ip.ttl <= 1 {
        return no_hop_left(state, frame, packet);
    }
    let backend = state.backends[index as usize];
    if leaves_its_vlan(packet, backend.ifindex) {
        return Outcome::passed(Verdict::OtherVlan, frame);
    }
    if let Some(mtu) = answer::too_large(state, frame, packet, backend.ifindex) {
        return Outcome::too_large(mtu, frame);
    }
    state.count_backend(index, frame, new);
    if new && packet.kind == Kind::Syn && !state.is_peer(&packet.link.from) {
        passive::sent(state, frame, packet, index);
    }
    let mut out = frame.to_vec();
    rewrite::macs(&mut out, backend.mac, backend.source_mac);
    rewrite::ttl(&mut out, &packet.ip, (packet.ip.ttl - 1).min(ttl_limit));
    Outcome::sent(verdict, backend.ifindex, out)
}

/// "A packet with VLAN tags that is to leave by another interface than it came in by."
pub(super) const fn leaves_its_vlan(packet: &Packet, interface: u32) -> bool {
    packet.ip.at > 14 && packet.interface != interface
}

/// "A frame whose TTL does not allow it is dropped (`ttl_exceeded`); one from a peer ends in this
/// node's stack (`nobody`), whose reset tells the client."
fn no_hop_left(state: &State, frame: &[u8], packet: &Packet) -> Outcome {
    match state.is_peer(&packet.link.from) {
        true => Outcome::passed(Verdict::Nobody, frame),
        false => Outcome::dropped(Verdict::TtlExceeded, frame),
    }
}
