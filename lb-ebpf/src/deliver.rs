//! Handing a packet for VIP and port to the socket that listens on the node's own address and
//! port. Runs at tc ingress, where a socket can be assigned; nothing is rewritten for TCP.

use lb_common::backend::{ACCEPTS, Backend, Delivery};
use lb_common::bucket::{NONE, RANKS, slot};
use lb_common::counter::Verdict;
use lb_common::flow::{Endpoint, FlowKey};
use lb_common::service::{HAS_LOCAL, Service};

use crate::deep::{Part, uncover};
use crate::environment::{Assign, Frame, Node, Owner};
use crate::fragment;
use crate::nat::rewrite;
use crate::parse::{Packet, Parsed};
use crate::steer::{hash, service_key};
use crate::wire::*;

/// Delivers a frame that steering left here, if it begins something for a socket of this node.
#[inline(always)]
pub fn deliver<F: Frame, N: Node + Assign>(
    frame: &mut F,
    node: &N,
    parsed: Parsed,
) -> Option<Verdict> {
    let Parsed::Packet(packet) = parsed else { return None };
    packet_here(frame, node, &packet)
}

/// The same for a frame whose headers lie deep. A segment in pieces is not delivered: the stack puts them
/// together later, and drops the socket that was assigned to one.
#[inline(always)]
pub fn deliver_rare<F: Frame, N: Node + Assign>(
    frame: &mut F,
    node: &N,
    network: usize,
) -> Option<Verdict> {
    let uncovered = uncover(frame, network)?;
    if let Part::Following = uncovered.part {
        fragment::deliver(frame, node, &uncovered)?;
        return Some(Verdict::UdpDelivered);
    }
    let Parsed::Packet(packet) = uncovered.parsed(frame) else { return None };
    if uncovered.is_first() && !packet.is_udp() {
        return None;
    }
    packet_here(frame, node, &packet)
}

#[inline(always)]
fn packet_here<F: Frame, N: Node + Assign>(
    frame: &mut F,
    node: &N,
    packet: &Packet,
) -> Option<Verdict> {
    let segment = !packet.is_new();
    if segment
        && !(packet.tcp_flags & (TCP_ACK | TCP_SYN | TCP_RST) == TCP_ACK && node.cookies_about())
    {
        // Its connection has a socket, which the stack finds by itself.
        return None;
    }
    let service = node.service(&service_key(packet))?;
    if service.flags & HAS_LOCAL == 0 {
        return None;
    }
    if packet.is_udp() {
        return udp(frame, node, packet, service);
    }
    match node.tcp_owner(packet) {
        // A SYN sent again belongs to the connection that the first one opened. One that meets its
        // predecessor in TIME-WAIT is the stack's as well: a listener that is assigned would not
        // remove that socket, and the kernel drops a SYN whose request would stand beside it.
        Owner::Connection | Owner::TimeWait => None,
        Owner::Nobody => tcp(node, packet, service, segment),
    }
}

#[inline(always)]
fn tcp<N: Node + Assign>(
    node: &N,
    packet: &Packet,
    service: &Service,
    cookie: bool,
) -> Option<Verdict> {
    let (index, backend) = own_backend(node, packet, service, |backend| {
        if cookie { node.tcp_cookie(packet, backend) } else { backend.state & ACCEPTS != 0 }
    })?;
    if node.assign_listener(packet, backend) {
        Some(Verdict::Assigned)
    } else {
        if !cookie {
            node.note_refused(index);
        }
        Some(Verdict::AssignFailed)
    }
}

/// The first backend of this node in the packet's bucket that `takes` it, with its index.
#[inline(always)]
fn own_backend<'a, N: Node>(
    node: &'a N,
    packet: &Packet,
    service: &Service,
    takes: impl Fn(&Backend) -> bool,
) -> Option<(u32, &'a Backend)> {
    let bucket = node.bucket(service.table, slot(hash(service, packet), service.slots))?;
    for rank in 0..RANKS {
        let relative = bucket.ranks[rank];
        if relative == NONE {
            break;
        }
        let index = service.backends.wrapping_add(relative as u32);
        let backend = node.backend(index)?;
        if backend.delivery == Delivery::Local as u8 && takes(backend) {
            return Some((index, backend));
        }
    }
    None
}

/// An ordinary UDP server answers from the address that it was asked at, so its datagrams get the
/// node's address and port, and its replies are turned back on their way out.
#[inline(always)]
fn udp<F: Frame, N: Node>(
    frame: &mut F,
    node: &N,
    packet: &Packet,
    service: &Service,
) -> Option<Verdict> {
    let (_, backend) = own_backend(node, packet, service, |backend| {
        backend.state & ACCEPTS != 0 && node.udp_socket(packet, backend)
    })?;
    address_to(frame, node, packet, backend)?;
    Some(Verdict::UdpDelivered)
}

/// Gives a datagram the address of its server here, and remembers how to turn the reply back.
#[inline(always)]
pub(crate) fn address_to<F: Frame, N: Node>(
    frame: &mut F,
    node: &N,
    packet: &Packet,
    backend: &Backend,
) -> Option<()> {
    let flow = &packet.flow;
    let reply = FlowKey {
        source: backend.address,
        destination: flow.source,
        source_port_be: backend.port_be,
        destination_port_be: flow.source_port_be,
        protocol: flow.protocol,
        padding: [0; 3],
    };
    let asked =
        Endpoint { address: flow.destination, port_be: flow.destination_port_be, padding: [0; 2] };
    if node.udp_reply(&reply) != Some(&asked) {
        node.udp_remember(&reply, &asked);
    }
    rewrite(
        frame,
        packet,
        &flow.source,
        flow.source_port_be,
        &backend.address,
        backend.port_be,
        packet.ttl,
    )
}
