//! Full NAT: towards a backend that runs nothing of ours, and back.
//!
//! The source towards the backend is the VIP itself with a port of the reserved range, so that
//! replies follow the VIP when it moves.

use lb_common::Address;
use lb_common::backend::{ACCEPTS, ALIVE, Backend, NO_BACKEND};
use lb_common::checksum::Difference;
use lb_common::counter::Verdict;
use lb_common::flow::FlowKey;
use lb_common::hash::{mix, nat_port_hash};
use lb_common::nat::*;

use crate::answer::too_large;
use crate::carry::address;
use crate::environment::{Frame, InsertError, Node};
use crate::parse::Packet;
use crate::passive;
use crate::steer::{Steered, leaves_its_vlan};
use crate::wire::*;

/// Ports tried before the range counts as exhausted for this backend. With a range half full the
/// chance that a free one is missed is 2^-16.
const ATTEMPTS: u32 = 16;

/// Translates a client's packet by its entry, if it has one that still serves.
#[inline(always)]
pub fn known<F: Frame, N: Node>(frame: &mut F, node: &N, packet: &Packet) -> Option<Steered> {
    let entry = node.nat_entry(&packet.flow)?;
    let from_client = entry.direction == FROM_CLIENT;
    // From the backend's side a SYN begins nothing: it is a simultaneous open (RFC 9293, 3.5) or forged,
    // and must not end the client's flow.
    let begins = from_client && packet.is_new() && !packet.is_udp();
    if from_client && packet.is_new() && !serves(node, entry, packet.is_udp()) {
        // A client that opens a new connection from an old port is free to go elsewhere, and datagrams go to
        // whoever lives.
        forget(node, packet, entry);
        return None;
    }
    if packet.ttl <= 1 {
        // Before it keeps the flow alive, or ends it.
        return Some(Steered::here(Verdict::TtlExceeded));
    }
    if leaves_its_vlan(frame, packet.network, entry.ifindex) {
        return Some(Steered::here(Verdict::OtherVlan));
    }
    node.nat_touch(&packet.flow, entry, seen(packet), node.now_ns(), begins);
    if from_client {
        node.count_backend(entry.backend, frame.length(), begins);
    }
    if begins {
        passive::sent(frame, node, packet, entry.backend);
    }
    passive::returned(node, packet, entry);
    let verdict = if from_client { Verdict::NatForward } else { Verdict::NatReturn };
    Some(translate(frame, node, packet, entry, verdict))
}

/// Whether the entry's backend still takes what its client begins; a datagram begins nothing in its flow.
#[inline(always)]
fn serves<N: Node>(node: &N, entry: &NatEntry, datagram: bool) -> bool {
    let wanted = if datagram { ALIVE } else { ACCEPTS };
    node.backend(entry.backend).is_some_and(|backend| {
        backend.state & wanted != 0
            && backend.address == entry.destination
            && backend.port_be == entry.destination_port_be
    })
}

/// Removes a client's entry, and its partner.
#[inline(always)]
pub(crate) fn forget<N: Node>(node: &N, packet: &Packet, entry: &NatEntry) {
    let partner = partner(entry, packet.flow.protocol);
    node.nat_remove(&packet.flow);
    node.nat_remove(&partner);
}

/// The key of an entry's partner: the packet that it makes, turned round.
#[inline(always)]
pub(crate) fn partner(entry: &NatEntry, protocol: u8) -> FlowKey {
    FlowKey {
        source: entry.destination,
        destination: entry.source,
        source_port_be: entry.destination_port_be,
        destination_port_be: entry.source_port_be,
        protocol,
        padding: [0; 3],
    }
}

#[inline(always)]
const fn seen(packet: &Packet) -> u8 {
    let flags = packet.tcp_flags;
    let mut seen = if packet.is_new() && !packet.is_udp() { SEEN_SYN } else { SEEN_DATA };
    if flags & TCP_FIN != 0 {
        seen |= SEEN_FIN;
    }
    if flags & TCP_RST != 0 {
        seen |= SEEN_RST;
    }
    seen
}

/// Makes the two entries of a flow to `backend`: the reply's first, since it claims the port.
#[inline(always)]
pub fn open<N: Node>(
    node: &N,
    packet: &Packet,
    ethernet: &Ethernet,
    interface: u32,
    index: u32,
    backend: &Backend,
) -> Result<(), Verdict> {
    let Some(settings) = node.settings() else { return Err(Verdict::NotReady) };
    let (first, count) = (settings.nat_port_first, settings.nat_port_count);
    if count == 0 {
        return Err(Verdict::NatExhausted);
    }
    let mut hash = nat_port_hash(settings.nat_key, &packet.flow);
    let mut entry = NatEntry {
        source: packet.flow.destination,
        destination: packet.flow.source,
        source_port_be: packet.flow.destination_port_be,
        destination_port_be: packet.flow.source_port_be,
        ifindex: interface,
        mac: ethernet.source.bytes(),
        direction: FROM_BACKEND,
        seen: 0,
        source_mac: ethernet.destination.bytes(),
        padding: [0; 2],
        last_seen_ns: node.now_ns(),
        backend: index,
        told: 0,
    };
    let mut reply = FlowKey {
        source: backend.address,
        destination: packet.flow.destination,
        source_port_be: backend.port_be,
        destination_port_be: 0,
        protocol: packet.flow.protocol,
        padding: [0; 3],
    };
    for _ in 0..ATTEMPTS {
        let offset = ((hash >> 32) as u32 as u64 * count as u64) >> 32;
        reply.destination_port_be = first.wrapping_add(offset as u16).to_be();
        match node.nat_insert(&reply, &entry) {
            Ok(()) => {
                to_client_entry(&mut entry, packet, reply.destination_port_be, backend);
                return pair(node, packet, &reply, &entry);
            }
            Err(InsertError::Exists) => hash = mix(hash),
            Err(InsertError::Full) => return Err(Verdict::NatFull),
        }
    }
    Err(Verdict::NatExhausted)
}

/// Turns the reply's entry into the client's, in place: two on the stack would not fit.
#[inline(always)]
fn to_client_entry(entry: &mut NatEntry, packet: &Packet, port_be: u16, backend: &Backend) {
    entry.destination = backend.address;
    entry.destination_port_be = backend.port_be;
    entry.source_port_be = port_be;
    entry.ifindex = backend.ifindex;
    entry.mac = backend.mac;
    entry.source_mac = backend.source_mac;
    entry.direction = FROM_CLIENT;
    entry.seen = seen(packet);
}

#[inline(always)]
fn pair<N: Node>(
    node: &N,
    packet: &Packet,
    reply: &FlowKey,
    entry: &NatEntry,
) -> Result<(), Verdict> {
    match node.nat_insert(&packet.flow, entry) {
        Ok(()) => Ok(()),
        // Another CPU was faster with the same flow: its pair counts, ours goes.
        Err(InsertError::Exists) => {
            node.nat_remove(reply);
            Ok(())
        }
        Err(InsertError::Full) => {
            node.nat_remove(reply);
            Err(Verdict::NatFull)
        }
    }
}

/// Rewrites the packet, which has a hop left, as the entry says.
#[inline(always)]
pub fn translate<F: Frame, N: Node>(
    frame: &mut F,
    node: &N,
    packet: &Packet,
    entry: &NatEntry,
    verdict: Verdict,
) -> Steered {
    if let Some(mtu) = too_large(frame, node, packet, entry.ifindex) {
        return Steered { interface: mtu as u32, ..Steered::here(Verdict::TooBig) };
    }
    let backend = if entry.direction == FROM_CLIENT { entry.backend } else { NO_BACKEND };
    let done = rewrite(
        frame,
        packet,
        &entry.source,
        entry.source_port_be,
        &entry.destination,
        entry.destination_port_be,
        packet.ttl.wrapping_sub(1),
    )
    .and_then(|()| address(frame, Mac::from_bytes(entry.mac), Mac::from_bytes(entry.source_mac)));
    match done {
        Some(()) => Steered { verdict, interface: entry.ifindex, backend },
        None => Steered::here(Verdict::Truncated),
    }
}

/// Replaces a packet's tuple and TTL and corrects its checksums.
#[inline(always)]
pub fn rewrite<F: Frame>(
    frame: &mut F,
    packet: &Packet,
    source: &Address,
    source_port_be: u16,
    destination: &Address,
    destination_port_be: u16,
    ttl: u8,
) -> Option<()> {
    let flow = &packet.flow;
    let pseudo = difference(
        difference(Difference::ZERO, &flow.source, source),
        &flow.destination,
        destination,
    );
    let ports = Difference::ZERO
        .word(flow.source_port_be, source_port_be)
        .word(flow.destination_port_be, destination_port_be);
    readdress(frame, packet.network, packet.v4, source, destination, ttl, pseudo)?;
    frame.store(
        packet.transport,
        Ports { source_be: source_port_be, destination_be: destination_port_be },
    )?;
    correct(frame, packet, pseudo, ports)
}

/// Replaces the addresses and TTL of the IP header at `network`; `addresses` is what that changes in a
/// sum over them.
#[inline(always)]
pub(crate) fn readdress<F: Frame>(
    frame: &mut F,
    network: usize,
    v4: bool,
    source: &Address,
    destination: &Address,
    ttl: u8,
    addresses: Difference,
) -> Option<()> {
    if v4 {
        let ip = frame.load::<Ipv4>(network)?;
        let checksum = addresses
            .word(u16::from_ne_bytes([ip.ttl, ip.protocol]), u16::from_ne_bytes([ttl, ip.protocol]))
            .apply(ip.checksum);
        let (source, destination) = (source.v4_word(), destination.v4_word());
        return frame.store(network, Ipv4 { ttl, checksum, source, destination, ..ip });
    }
    frame.store(network + core::mem::offset_of!(Ipv6, hop_limit), ttl)?;
    frame.store(network + core::mem::offset_of!(Ipv6, source), source.words)?;
    frame.store(network + core::mem::offset_of!(Ipv6, destination), destination.words)
}

#[inline(always)]
fn correct<F: Frame>(
    frame: &mut F,
    packet: &Packet,
    pseudo: Difference,
    ports: Difference,
) -> Option<()> {
    if packet.is_udp() {
        let udp = frame.load::<Udp>(packet.transport)?;
        if udp.checksum == 0 {
            // Over IPv4 the sender left it out (RFC 768); over IPv6 the receiver refuses it anyway.
            return Some(());
        }
        let offset = packet.transport + core::mem::offset_of!(Udp, checksum);
        return frame.correct_checksum(offset, pseudo, ports, true);
    }
    let offset = packet.transport + core::mem::offset_of!(Tcp, checksum);
    frame.correct_checksum(offset, pseudo, ports, false)
}

#[inline(always)]
pub(crate) const fn difference(sum: Difference, old: &Address, new: &Address) -> Difference {
    // The first three words are equal for two mapped IPv4 addresses and cancel out.
    sum.long(old.words[0], new.words[0])
        .long(old.words[1], new.words[1])
        .long(old.words[2], new.words[2])
        .long(old.words[3], new.words[3])
}
