//! ICMP and ICMPv6 errors: they go where the packet came from that they quote. Path MTU discovery
//! depends on them (RFC 1191, RFC 8201).

use lb_common::Address;
use lb_common::backend::NO_BACKEND;
use lb_common::bucket::slot;
use lb_common::checksum::Difference;
use lb_common::counter::Verdict;
use lb_common::nat::NatEntry;

use crate::carry::address;
use crate::choose::{self, Choice};
use crate::environment::{Frame, Node};
use crate::nat::{difference, readdress};
use crate::parse::{Outer, Packet, Quoted, addresses, quoted};
use crate::stay;
use crate::steer::{
    Steered, addressed_to_us, forward, hash, is_from_peer, leaves_its_vlan, service_key,
};
use crate::wire::*;

/// Decides on an error.
#[inline(always)]
pub fn error<F: Frame, N: Node>(frame: &mut F, node: &N, outer: &Outer) -> Steered {
    let Some(settings) = node.settings() else { return Steered::here(Verdict::NotReady) };
    let Some(ethernet) = frame.load::<Ethernet>(0) else { return Steered::here(Verdict::NotIp) };
    if !addressed_to_us(frame, node, &ethernet) {
        return Steered::here(Verdict::OtherHost);
    }
    let quoted = match quoted(frame, outer) {
        Ok(quoted) => quoted,
        Err(verdict) => return Steered::here(verdict),
    };
    if let Some(entry) = node.nat_entry(&quoted.flow) {
        return translate(frame, outer, &quoted, entry);
    }
    let from_peer = is_from_peer(node, settings, &ethernet);
    to_owner(frame, node, outer, &quoted, ethernet.source, from_peer)
}

/// About a packet from the VIP to a client: whoever has the client's connection sent it.
#[inline(always)]
fn to_owner<F: Frame, N: Node>(
    frame: &mut F,
    node: &N,
    outer: &Outer,
    quoted: &Quoted,
    sender: Mac,
    from_peer: bool,
) -> Steered {
    let packet = &Packet {
        network: outer.network,
        transport: outer.transport,
        flow: quoted.flow,
        tcp_flags: if quoted.flow.protocol == PROTOCOL_UDP { 0 } else { TCP_ACK },
        ttl: outer.ttl,
        v4: outer.v4,
    };
    let Some(service) = node.service(&service_key(packet)) else {
        return Steered::here(Verdict::IcmpOther);
    };
    let choice = match stay::whom_to_tell(node, service, packet, from_peer) {
        Some(choice) => choice,
        None => {
            let hash = hash(service, packet);
            let Some(bucket) = node.bucket(service.table, slot(hash, service.slots)) else {
                return Steered::here(Verdict::Inconsistent);
            };
            if packet.is_udp() {
                choose::for_new(node, packet, service, bucket, hash, sender, from_peer)
            } else {
                choose::for_owner(node, packet, service, bucket, sender, from_peer, false)
            }
        }
    };
    match choice {
        Choice::Direct { index, ttl, .. } => {
            forward(frame, node, packet, index, Verdict::IcmpDirect, ttl, from_peer, false)
        }
        Choice::Here { index, .. } => {
            node.count_backend(index, frame.length(), false);
            Steered::here(Verdict::IcmpLocal)
        }
        Choice::Pass(Verdict::LocalEstablished) => Steered::here(Verdict::IcmpLocal),
        _ => Steered::here(Verdict::IcmpOther),
    }
}

/// About a translated packet. Its sender knows neither the quoted tuple nor, perhaps, who complains:
/// the quotation becomes what it sent, and the error comes from whom it sent that to (RFC 5508, 4.2).
#[inline(always)]
fn translate<F: Frame>(frame: &mut F, outer: &Outer, quoted: &Quoted, entry: &NatEntry) -> Steered {
    if outer.ttl <= 1 {
        return Steered::here(Verdict::TtlExceeded);
    }
    if leaves_its_vlan(frame, outer.network, entry.ifindex) {
        return Steered::here(Verdict::OtherVlan);
    }
    let done = translate_quoted(frame, outer, quoted, entry)
        .and_then(|change| readdress_error(frame, outer, &entry.source, &entry.destination, change))
        .and_then(|()| {
            address(frame, Mac::from_bytes(entry.mac), Mac::from_bytes(entry.source_mac))
        });
    match done {
        Some(()) => {
            Steered { verdict: Verdict::IcmpNat, interface: entry.ifindex, backend: NO_BACKEND }
        }
        None => Steered::here(Verdict::Truncated),
    }
}

/// Turns the quotation back into the packet as it was sent. Returns what that changes in a sum over it.
#[inline(always)]
fn translate_quoted<F: Frame>(
    frame: &mut F,
    outer: &Outer,
    quoted: &Quoted,
    entry: &NatEntry,
) -> Option<Difference> {
    let flow = &quoted.flow;
    let (source, destination) = (&entry.destination, &entry.source);
    let addresses = difference(
        difference(Difference::ZERO, &flow.destination, source),
        &flow.source,
        destination,
    );
    let ports =
        Ports { source_be: entry.destination_port_be, destination_be: entry.source_port_be };
    let change = addresses
        .word(flow.destination_port_be, ports.source_be)
        .word(flow.source_port_be, ports.destination_be);
    frame.store(quoted.transport, ports)?;
    let change = correct_quoted(frame, outer, quoted, change);
    if !outer.v4 {
        frame.store(quoted.network + core::mem::offset_of!(Ipv6, source), source.words)?;
        frame
            .store(quoted.network + core::mem::offset_of!(Ipv6, destination), destination.words)?;
        return Some(change);
    }
    let ip = frame.load::<Ipv4>(quoted.network)?;
    let checksum = addresses.apply(ip.checksum);
    let header =
        Ipv4 { checksum, source: source.v4_word(), destination: destination.v4_word(), ..ip };
    frame.store(quoted.network, header)?;
    Some(change.word(ip.checksum, checksum))
}

/// Corrects the quoted packet's own checksum, where the quotation reaches so far. Returns the whole
/// change with that.
#[inline(always)]
fn correct_quoted<F: Frame>(
    frame: &mut F,
    outer: &Outer,
    quoted: &Quoted,
    change: Difference,
) -> Difference {
    let udp = quoted.flow.protocol == PROTOCOL_UDP;
    let field = if udp {
        core::mem::offset_of!(Udp, checksum)
    } else {
        core::mem::offset_of!(Tcp, checksum)
    };
    let offset = quoted.transport + field;
    if !outer.reaches(offset + size_of::<u16>() - outer.transport) {
        return change;
    }
    match frame.load::<u16>(offset) {
        Some(old) if !(udp && old == 0) => {
            let new = match change.apply(old) {
                // Zero means "no checksum" (RFC 768).
                0 if udp => 0xffff,
                new => new,
            };
            match frame.store(offset, new) {
                Some(()) => change.word(old, new),
                None => change,
            }
        }
        _ => change,
    }
}

/// Readdresses the error; `change` is what its body changed by.
#[inline(always)]
fn readdress_error<F: Frame>(
    frame: &mut F,
    outer: &Outer,
    source: &Address,
    destination: &Address,
    change: Difference,
) -> Option<()> {
    let (network, v4, ttl) = (outer.network, outer.v4, outer.ttl - 1);
    let (from, to) = addresses(frame, network, v4)?;
    let addresses = difference(difference(Difference::ZERO, &from, source), &to, destination);
    readdress(frame, network, v4, source, destination, ttl, addresses)?;
    // ICMPv6's checksum covers the addresses too (RFC 4443, 2.3).
    let change = if v4 { change } else { change.and(addresses) };
    let offset = outer.transport + core::mem::offset_of!(Icmp, checksum);
    let checksum = change.apply(frame.load(offset)?);
    frame.store(offset, checksum)
}
