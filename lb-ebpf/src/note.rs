//! Which connections clients have. A client that waits sends nothing, so that it would never learn that its
//! backend is gone: the agent asks those that are noted here whether they still mean it, and the answer ends
//! in a reset.
//!
//! Only what a client pushes is noted. A SYN says nothing yet, so that a flood of them leaves no trace; a bare
//! acknowledgement may be the last one, of a connection that has ended.

use lb_common::backend::{ALIVE, NO_BACKEND};
use lb_common::bucket::{NONE, slot};
use lb_common::service::{NOTED, Service};

use crate::environment::{Frame, Node};
use crate::parse::Packet;
use crate::steer::hash;
use crate::wire::{TCP_FIN, TCP_PSH, TCP_RST, TCP_SYN, Tcp};

/// Whether a packet to a service changes what is noted, if it comes from outside.
#[inline(always)]
pub(crate) const fn is_noted(service: &Service, packet: &Packet) -> bool {
    service.flags & NOTED != 0 && packet.tcp_flags & (TCP_FIN | TCP_RST | TCP_PSH) != 0
}

/// Notes such a segment. Before it is steered: behind that the verifier would walk this once for each way that
/// a segment can go.
#[inline(always)]
pub(crate) fn note<F: Frame, N: Node>(frame: &F, node: &N, service: &Service, packet: &Packet) {
    let Some(tcp) = frame.load::<Tcp>(packet.transport) else { return };
    let (sequence_be, acknowledged_be) = (tcp.sequence_be, tcp.acknowledgement_be);
    if packet.tcp_flags & (TCP_FIN | TCP_RST) != 0 {
        node.flow_forget(&packet.flow);
    } else if packet.tcp_flags & TCP_SYN == 0
        && !node.flow_touch(&packet.flow, sequence_be, acknowledged_be)
    {
        let backend = likely_owner(node, service, packet);
        node.flow_add(&packet.flow, backend, sequence_be, acknowledged_be);
    }
}

/// Whom the segment most probably goes to: the first of the first two ranks that is thought alive.
#[inline(always)]
fn likely_owner<N: Node>(node: &N, service: &Service, packet: &Packet) -> u32 {
    let Some(bucket) = node.bucket(service.table, slot(hash(service, packet), service.slots))
    else {
        return NO_BACKEND;
    };
    for relative in [bucket.ranks[0], bucket.ranks[1]] {
        let index = service.backends.wrapping_add(relative as u32);
        if relative != NONE
            && let Some(backend) = node.backend(index)
            && backend.state & ALIVE != 0
        {
            return index;
        }
    }
    NO_BACKEND
}
