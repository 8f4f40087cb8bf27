//! What a backend's new connections come to, as far as it can be seen from here: SYNs that it refuses, and SYNs that
//! come again since nobody answered them. Segments of connections cost nothing for it.

use lb_common::nat::{FROM_BACKEND, NatEntry, SEEN_SYN};
use lb_common::passive::syn_hash;

use crate::environment::{Frame, Node};
use crate::nat;
use crate::parse::Packet;
use crate::wire::{TCP_RST, Tcp};

/// A SYN of a client that goes to the backend at this index from here. One that a peer carried here the peer has
/// noted.
#[inline(always)]
pub(crate) fn sent<F: Frame, N: Node>(frame: &F, node: &N, packet: &Packet, index: u32) {
    let Some(tcp) = frame.load::<Tcp>(packet.transport) else { return };
    if node.syn_again(syn_hash(&packet.flow, tcp.sequence_be, index)) {
        node.note_unanswered(index);
    }
}

/// Notes a refusal where a translated packet is one: a reset from the backend of a flow whose client has sent
/// nothing but SYNs.
#[inline(always)]
pub(crate) fn returned<N: Node>(node: &N, packet: &Packet, entry: &NatEntry) {
    if entry.direction != FROM_BACKEND || packet.tcp_flags & TCP_RST == 0 {
        return;
    }
    let client = nat::partner(entry, packet.flow.protocol);
    if node.nat_entry(&client).is_some_and(|client| client.seen == SEEN_SYN) {
        node.note_refused(entry.backend);
    }
}
