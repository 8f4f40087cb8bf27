//! Datagrams that stay where the ones before went, or go to the server that their QUIC connection id names.
//! A program of its own: few services want that, and no other packet is to pay for it.
//!
//! Each node notes for itself whom a client's datagrams went to. One that a peer carried here is only ever for
//! a server here, or goes the way of the ranks from here: two nodes that noted different servers do not send
//! it to and fro.

use lb_common::affinity::Affinity;
use lb_common::backend::{ALIVE, Delivery, NO_BACKEND};
use lb_common::bucket::slot;
use lb_common::counter::{Outcome, Verdict};
use lb_common::deep::DeepPacket;
use lb_common::quic::{OCTETS, Scheme, ServerId};
use lb_common::service::{HAS_NAT, STAYS, Service};

use crate::choose::{self, Choice};
use crate::deep::unpack;
use crate::deliver;
use crate::environment::{Frame, Node};
use crate::parse::{Packet, Parsed, parse};
use crate::steer::{Steered, carry_out, hash, is_from_peer, service_key, settle};
use crate::wire::*;
use crate::{fragment, nat};

/// A QUIC packet with a long header, whose connection id has its length before it (RFC 8999, 5.1).
const LONG_HEADER: u8 = 0x80;
const LONG_LENGTH: usize = 5;
const LONG_ID: usize = 6;
/// That of a short header follows the first byte (RFC 8999, 5.2).
const SHORT_ID: usize = 1;

/// Decides on a datagram that [`steer`](crate::steer::steer) left to this. `deep` is what the program before
/// found in a frame whose headers lie deep.
#[inline(always)]
pub fn steer_datagram<F: Frame, N: Node>(
    frame: &mut F,
    node: &N,
    deep: Option<&DeepPacket>,
) -> Steered {
    let (packet, first) = match (parse(frame, |address| node.may_be_ours(address)), deep) {
        (Parsed::Packet(packet), _) => (packet, None),
        (Parsed::Deep(_), Some(deep)) => (unpack(deep), (deep.first != 0).then_some(deep.id)),
        _ => return Steered::here(Verdict::Inconsistent),
    };
    let steered = datagram(frame, node, &packet);
    let steered = settle(frame, node, steered);
    if let Some(id) = first {
        fragment::first(frame, node, &packet, id, steered);
    }
    steered
}

#[inline(always)]
fn datagram<F: Frame, N: Node>(frame: &mut F, node: &N, packet: &Packet) -> Steered {
    let Some(settings) = node.settings() else { return Steered::here(Verdict::NotReady) };
    let Some(ethernet) = frame.load::<Ethernet>(0) else { return Steered::here(Verdict::NotIp) };
    let Some(service) = node.service(&service_key(packet)) else {
        return Steered::here(Verdict::Inconsistent);
    };
    let from_peer = is_from_peer(node, settings, &ethernet);
    let named = named(frame, node, service, packet)
        .filter(|index| to(node, packet, *index, from_peer).is_some());
    if service.flags & HAS_NAT != 0
        && let Some(entry) = node.nat_entry(&packet.flow)
    {
        if named.is_none_or(|index| index == entry.backend) {
            if let Some(steered) = nat::known(frame, node, packet) {
                return steered;
            }
        } else {
            nat::forget(node, packet, entry);
        }
    }
    let noted = noted(node, service, packet);
    let index = named.or(noted).unwrap_or(NO_BACKEND);
    let (choice, new) = match to(node, packet, index, from_peer) {
        Some(choice) => (choice, noted.is_none()),
        None => {
            let hash = hash(service, packet);
            let Some(bucket) = node.bucket(service.table, slot(hash, service.slots)) else {
                return Steered::here(Verdict::Inconsistent);
            };
            let sender = ethernet.source;
            (choose::for_new(node, packet, service, bucket, hash, sender, from_peer), true)
        }
    };
    let steered = carry_out(frame, node, settings, packet, &ethernet, choice, from_peer, new);
    if let Choice::Here { index, .. } | Choice::Direct { index, .. } = choice {
        note(node, service, packet, index, steered);
    }
    if let Choice::Here { index, .. } = choice
        && let Some(backend) = node.backend(index)
    {
        // tc would look for it among the ranks of the client's bucket, where it need not be.
        deliver::address_to(frame, node, packet, backend);
    }
    steered
}

/// Who sent the packet that an ICMP error quotes, where the service's datagrams stay: whom the client's last one
/// went to. `packet` is the quoted one turned round.
#[inline(always)]
pub(crate) fn whom_to_tell<N: Node>(
    node: &N,
    service: &Service,
    packet: &Packet,
    from_peer: bool,
) -> Option<Choice> {
    if service.flags & STAYS == 0 || !packet.is_udp() {
        return None;
    }
    to(node, packet, noted(node, service, packet)?, from_peer)
}

/// The backend that the connection id names.
#[inline(always)]
fn named<F: Frame, N: Node>(
    frame: &F,
    node: &N,
    service: &Service,
    packet: &Packet,
) -> Option<u32> {
    let scheme = Scheme::of(service)?;
    let payload = packet.transport + size_of::<Udp>();
    let first = frame.load::<u8>(payload)?;
    let at = if first & LONG_HEADER == 0 {
        payload + SHORT_ID
    } else {
        let length = frame.load::<u8>(payload + LONG_LENGTH)?;
        if length <= scheme.id_bytes {
            return None;
        }
        payload + LONG_ID
    };
    let id = scheme.server_id(frame.load::<[u8; OCTETS]>(at)?)?;
    let place = node.server(&ServerId { backends: service.backends, padding: 0, id })?;
    Some(service.backends.wrapping_add(place))
}

/// The backend that the last datagrams went to, if that was lately and it is still the service's.
#[inline(always)]
fn noted<N: Node>(node: &N, service: &Service, packet: &Packet) -> Option<u32> {
    let lately_ns = service.affinity_ns();
    if lately_ns == 0 {
        return None;
    }
    let affinity = node.affinity(&packet.flow)?;
    let lately = node.now_ns().wrapping_sub(affinity.last_seen_ns) < lately_ns;
    let index = affinity.backend;
    let ours = index.wrapping_sub(service.backends) < service.backend_count;
    let backend = node.backend(index)?;
    (lately && ours && affinity.names(backend)).then_some(index)
}

/// The way to the backend at this index, if it lives.
#[inline(always)]
fn to<N: Node>(node: &N, packet: &Packet, index: u32, from_peer: bool) -> Option<Choice> {
    const LOCAL: u8 = Delivery::Local as u8;
    const DIRECT: u8 = Delivery::Direct as u8;
    const NAT: u8 = Delivery::Nat as u8;
    let backend = node.backend(index)?;
    if backend.state & ALIVE == 0 {
        return None;
    }
    match backend.delivery {
        LOCAL if node.udp_socket(packet, backend) => {
            Some(Choice::Here { index, verdict: Verdict::LocalUdp })
        }
        DIRECT if !from_peer => Some(Choice::Direct {
            index,
            verdict: Verdict::DirectEstablished,
            ttl: packet.ttl.wrapping_sub(1),
        }),
        NAT if !from_peer => Some(Choice::Nat { index }),
        _ => None,
    }
}

/// Notes whom the datagram went to.
#[inline(always)]
fn note<N: Node>(node: &N, service: &Service, packet: &Packet, index: u32, steered: Steered) {
    let gone = match steered.verdict.outcome() {
        Outcome::Forward => true,
        _ => steered.verdict as u32 == Verdict::LocalUdp as u32,
    };
    if service.affinity_ns() == 0 || !gone {
        return;
    }
    let Some(backend) = node.backend(index) else { return };
    match node.affinity(&packet.flow) {
        Some(affinity) if affinity.backend == index && affinity.names(backend) => {
            node.affinity_touch(&packet.flow, affinity);
        }
        _ => node.affinity_note(&packet.flow, &Affinity::new(backend, index, node.now_ns())),
    }
}
