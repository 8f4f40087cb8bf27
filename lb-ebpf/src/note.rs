//! Which connections clients have. A client that waits sends nothing, so that it would never learn that its
//! backend is gone: the agent asks those that are noted here whether they still mean it, and the answer ends
//! in a reset.
//!
//! Only what a client pushes is noted. A SYN says nothing yet, so that a flood of them leaves no trace; a bare
//! acknowledgement may be the last one, of a connection that has ended.

use lb_common::backend::NO_BACKEND;
use lb_common::counter::Verdict;
use lb_common::service::{NOTED, Service};

use crate::environment::{Frame, Node};
use crate::parse::Packet;
use crate::steer::Steered;
use crate::wire::{TCP_FIN, TCP_PSH, TCP_RST, TCP_SYN, Tcp};

/// Notes a segment from a client to a service, which came from outside, by what became of it.
#[inline(always)]
pub(crate) fn note<F: Frame, N: Node>(
    frame: &F,
    node: &N,
    service: &Service,
    packet: &Packet,
    steered: Steered,
) {
    let flags = packet.tcp_flags;
    if service.flags & NOTED == 0 || flags & (TCP_FIN | TCP_RST | TCP_PSH) == 0 {
        return;
    }
    if flags & (TCP_FIN | TCP_RST) != 0 || matches!(steered.verdict, Verdict::Nobody) {
        node.flow_forget(&packet.flow);
    } else if flags & TCP_SYN == 0
        && (steered.backend != NO_BACKEND || matches!(steered.verdict, Verdict::LocalEstablished))
        && let Some(tcp) = frame.load::<Tcp>(packet.transport)
    {
        let (sequence_be, acknowledged_be) = (tcp.sequence_be, tcp.acknowledgement_be);
        node.flow_note(&packet.flow, steered.backend, sequence_be, acknowledged_be);
    }
}
