//! Answers to packets that go no further: a time-exceeded where no hop is left, a too-big where the next
//! link takes no packet so large. They come from the node's own address, as a router's.

use lb_common::Address;
use lb_common::checksum::fold;
use lb_common::counter::Verdict;

use crate::environment::{Frame, Node};
use crate::opaque::opaque;
use crate::parse::{Packet, Parsed, parse};
use crate::steer::{Steered, is_from_peer};
use crate::wire::*;

/// A message is at most so long: RFC 1812, 4.3.2.3 and RFC 4443, 2.4(c).
const LONGEST_V4: usize = 576;
const LONGEST_V6: usize = 1280;

/// So many bytes of a frame are looked at: the link header, and what is quoted.
pub const QUOTED: u32 = 31 + LONGEST_V6 as u32;

/// What every IPv6 link takes (RFC 8200, 5), with an Ethernet header: no frame that is not longer is too
/// large.
const ANY_LINK_TAKES: u32 = 1280 + 14;

/// The MTU of the interface where the packet is to go, where that is less than the packet. Unless the packet
/// is more than where it came from takes, too: then the kernel has joined several.
#[inline(always)]
pub fn too_large<F: Frame, N: Node>(
    frame: &F,
    node: &N,
    packet: &Packet,
    interface: u32,
) -> Option<u16> {
    if frame.length() <= ANY_LINK_TAKES || frame.is_joined() {
        return None;
    }
    let out = node.interface(interface)?.mtu;
    let length = length(frame, packet)?;
    let came = node.interface(frame.interface_index())?.mtu;
    (length > out as usize && length <= came as usize && out != 0).then_some(out)
}

/// By its IP header.
#[inline(always)]
fn length<F: Frame>(frame: &F, packet: &Packet) -> Option<usize> {
    if packet.v4 {
        let offset = core::mem::offset_of!(Ipv4, total_length_be);
        return Some(u16::from_be(frame.load::<u16>(packet.network + offset)?) as usize);
    }
    let offset = core::mem::offset_of!(Ipv6, payload_length_be);
    let payload = u16::from_be(frame.load::<u16>(packet.network + offset)?);
    Some(payload as usize + size_of::<Ipv6>())
}

/// Turns the frame into the answer: with the MTU, or with 0 that no hop is left. Nothing where none may be
/// given or made.
#[inline(always)]
pub fn answer<F: Frame, N: Node>(frame: &mut F, node: &N, mtu: u32) -> Option<Steered> {
    let Parsed::Packet(packet) = parse(frame, |address| node.may_be_ours(address)) else {
        return None;
    };
    let ethernet = frame.load::<Ethernet>(0)?;
    // A peer carried it here, and does not know the way to its sender.
    if is_from_peer(node, node.settings()?, &ethernet) || !is_one_machine(&packet) {
        return None;
    }
    let own = node.interface(frame.interface_index())?;
    let own = if packet.v4 { Address::from_v4_word(own.address_v4_be) } else { own.address_v6 };
    // Unspecified, of either version.
    if own.words[0] | own.words[3] == 0 || !node.may_answer() {
        return None;
    }
    let (headers, longest) = if packet.v4 {
        (size_of::<Ipv4>() + size_of::<Icmp>(), LONGEST_V4)
    } else {
        (size_of::<Ipv6>() + size_of::<Icmp>(), LONGEST_V6)
    };
    // Whole words: the sum is over those.
    let quoted = length(frame, &packet)?.min(longest - headers) & !3;
    let sum = sum(frame, packet.network, quoted)?;
    frame.end_at(packet.network + quoted)?;
    frame.grow(headers)?;
    link(frame, headers, packet.network)?;
    if packet.v4 {
        say_v4(frame, &packet, &own, quoted, sum, mtu)?;
    } else {
        say_v6(frame, &packet, &own, quoted, sum, mtu)?;
    }
    let verdict = if mtu == 0 { Verdict::IcmpExpired } else { Verdict::IcmpTooBig };
    Some(Steered { interface: frame.interface_index(), ..Steered::here(verdict) })
}

/// Whether the source is the address of one machine, as it must be to get an error (RFC 1122, 3.2.2,
/// RFC 4443, 2.4(e)).
#[inline(always)]
const fn is_one_machine(packet: &Packet) -> bool {
    let words = packet.flow.source.words;
    if packet.v4 {
        let first = words[3].to_ne_bytes()[0];
        return first != 0 && first != 127 && first < 224;
    }
    words[0].to_ne_bytes()[0] != 0xff && words[0] | words[1] | words[2] != 0
}

/// The sum of what is quoted.
#[inline(always)]
fn sum<F: Frame>(frame: &F, network: usize, quoted: usize) -> Option<u64> {
    let mut sum = 0u64;
    for word in 0..LONGEST_V6 / 4 {
        if word * 4 >= quoted {
            break;
        }
        // Else LLVM counts from the frame's end, which the verifier does not let it.
        let offset = opaque::<2047>(word * 4, sum as u16);
        sum += frame.load::<u32>(network + offset)? as u64;
    }
    Some(sum)
}

/// Turns the link header round and brings it to the front: it lies behind `moved` bytes, and has `bytes`.
#[inline(always)]
fn link<F: Frame>(frame: &mut F, moved: usize, bytes: usize) -> Option<()> {
    let came = frame.load::<Ethernet>(moved)?;
    let (destination, source) = (came.source, came.destination);
    frame.store(0, Ethernet { destination, source, ..came })?;
    for tag in 0..2 {
        let at = size_of::<Ethernet>() + tag * size_of::<Vlan>();
        if at < bytes {
            let tag = frame.load::<Vlan>(moved + at)?;
            frame.store(at, tag)?;
        }
    }
    Some(())
}

#[inline(always)]
fn say_v4<F: Frame>(
    frame: &mut F,
    packet: &Packet,
    own: &Address,
    quoted: usize,
    sum: u64,
    mtu: u32,
) -> Option<()> {
    let total = size_of::<Ipv4>() + size_of::<Icmp>() + quoted;
    let (kind, code) =
        if mtu == 0 { (ICMP_TIME_EXCEEDED, 0) } else { (ICMP_UNREACHABLE, ICMP_TOO_BIG) };
    let (source, destination) = (own.v4_word(), packet.flow.source.v4_word());
    let total_length_be = (total as u16).to_be();
    // As Linux's own, RFC 1812, 4.3.2.5: internetwork control.
    let words = [
        u16::from_ne_bytes([0x45, 0xc0]),
        total_length_be,
        DONT_FRAGMENT,
        u16::from_ne_bytes([ERROR_TTL, PROTOCOL_ICMP]),
    ];
    let checksum = !fold(
        words[0] as u64
            + words[1] as u64
            + words[2] as u64
            + words[3] as u64
            + source as u64
            + destination as u64,
    );
    frame.store(
        packet.network,
        Ipv4 {
            version_ihl: 0x45,
            tos: 0xc0,
            total_length_be,
            id_be: 0,
            fragment_be: DONT_FRAGMENT,
            ttl: ERROR_TTL,
            protocol: PROTOCOL_ICMP,
            checksum,
            source,
            destination,
        },
    )?;
    say(frame, packet.network + size_of::<Ipv4>(), kind, code, mtu, sum)
}

#[inline(always)]
fn say_v6<F: Frame>(
    frame: &mut F,
    packet: &Packet,
    own: &Address,
    quoted: usize,
    sum: u64,
    mtu: u32,
) -> Option<()> {
    let payload = ((size_of::<Icmp>() + quoted) as u16).to_be();
    let (kind, code) = if mtu == 0 { (ICMPV6_TIME_EXCEEDED, 0) } else { (ICMPV6_TOO_BIG, 0) };
    let destination = packet.flow.source.words;
    frame.store(
        packet.network,
        Ipv6 {
            version_class_flow_be: 0x6000_0000u32.to_be(),
            payload_length_be: payload,
            next_header: PROTOCOL_ICMPV6,
            hop_limit: ERROR_TTL,
            source: own.words,
            destination,
        },
    )?;
    // RFC 8200, 8.1.
    let mut pseudo = payload as u64 + (PROTOCOL_ICMPV6 as u16).to_be() as u64;
    for (from, to) in own.words.into_iter().zip(destination) {
        pseudo += from as u64 + to as u64;
    }
    say(frame, packet.network + size_of::<Ipv6>(), kind, code, mtu, sum + pseudo)
}

#[inline(always)]
fn say<F: Frame>(frame: &mut F, at: usize, kind: u8, code: u8, mtu: u32, sum: u64) -> Option<()> {
    let rest_be = mtu.to_be();
    let checksum = !fold(sum + u16::from_ne_bytes([kind, code]) as u64 + rest_be as u64);
    frame.store(at, Icmp { kind, code, checksum, rest_be })
}
