//! Answering a SYN for a listener of this node by a SYN cookie, in XDP, so that a flood of them costs
//! neither memory nor the stack's time.
//!
//! The cookie is the kernel's own: it finds it valid when it comes back, and makes the connection from
//! it. Other options than the segment's size stay out. The kernel keeps them in the timestamp that it
//! sends, beside an offset that is its secret (`secure_tcp_ts_off`), so whoever does not know that one
//! cannot say them.

use lb_common::Address;
use lb_common::checksum::fold;
use lb_common::counter::Verdict;

use crate::carry::address;
use crate::environment::{Cookies, Frame, Node, SynCookie};
use crate::opaque::unknown;
use crate::parse::{Packet, Parsed, parse};
use crate::steer::{Steered, is_from_peer};
use crate::wire::*;

/// The window of the answer, which holds until this side's first segment: as much as a client sends at
/// once (RFC 6928), and less than any listener's buffer takes.
const WINDOW: u16 = 16_384;

/// Segments of an Ethernet of 1500 bytes. A client with less gets no more.
const SEGMENT_V4: u16 = 1460;
const SEGMENT_V6: u16 = 1440;

/// No TCP header has more bytes of options (40).
const OPTIONS_MASK: u64 = 0x3f;

/// A fresh TTL or hop limit.
const TTL: u8 = 64;

const DONT_FRAGMENT: u16 = 0x4000u16.to_be();
const OPTION_SEGMENT: u16 = 0x0204u16.to_be();

/// The shortest frame of an Ethernet, without its checksum.
const FRAME_MIN: usize = 60;

/// TCP with the one option that says the largest segment (RFC 9293, 3.7.1).
#[repr(C)]
#[derive(Clone, Copy)]
struct Answer {
    tcp: Tcp,
    option: u16,
    segment_be: u16,
}

const _: () = assert!(size_of::<Answer>() == 24);

/// Answers a SYN that [`steer`](crate::steer::steer) left to this, or leaves it to the stack.
#[inline(always)]
pub fn answer<F: Frame, N: Node + Cookies>(frame: &mut F, node: &N) -> Steered {
    // Before the rest: what is read behind it would prove to the compiler, but not to the verifier, that it
    // is there.
    let Some(ethernet) = frame.load::<Ethernet>(0) else {
        return Steered::here(Verdict::Inconsistent);
    };
    let Parsed::Packet(packet) = parse(frame, |address| node.may_be_ours(address)) else {
        return Steered::here(Verdict::Inconsistent);
    };
    let Some(tcp_length) = plain_header(frame, &packet) else {
        return Steered::here(Verdict::SynDropped);
    };
    let Some((to, from, interface)) = way_back(frame, node, &packet, &ethernet) else {
        // The stack asks for the neighbour when it answers, and the next SYN finds it.
        return Steered::here(Verdict::LocalNew);
    };
    let Some(cookie) = node.cookie(&packet, tcp_length) else {
        return Steered::here(Verdict::LocalNew);
    };
    match write(frame, &packet, &cookie, [to, from]) {
        Some(()) => Steered { interface, ..Steered::here(Verdict::SynCookie) },
        None => Steered::here(Verdict::SynDropped),
    }
}

/// Bytes of the TCP header, where the IP header has no options and the packet all of it. Nobody honest sends
/// other SYNs.
#[inline(always)]
fn plain_header<F: Frame>(frame: &F, packet: &Packet) -> Option<u64> {
    let (header, length) = if packet.v4 {
        let ip = frame.load::<Ipv4>(packet.network)?;
        (size_of::<Ipv4>(), u16::from_be(ip.total_length_be) as usize)
    } else {
        let ip = frame.load::<Ipv6>(packet.network)?;
        let length = u16::from_be(ip.payload_length_be) as usize;
        (size_of::<Ipv6>(), size_of::<Ipv6>() + length)
    };
    let tcp = frame.load::<Tcp>(packet.transport)?;
    let tcp_length = (tcp.data_offset >> 4) as usize * 4;
    let plain = packet.transport == packet.network + header
        && tcp_length >= size_of::<Tcp>()
        && header + tcp_length <= length;
    // The verifier has to see bounds of what goes to helpers, and 6.12 and older ones forget those of a
    // comparison where the value comes from the stack. These follow from the value itself.
    let options = unknown(tcp_length.wrapping_sub(size_of::<Tcp>()) as u64) & OPTIONS_MASK;
    plain.then_some(size_of::<Tcp>() as u64 + options)
}

/// The MACs and the interface of the way to the client: the way that the SYN came, unless another node
/// carried it here.
#[inline(always)]
fn way_back<F: Frame, N: Node + Cookies>(
    frame: &F,
    node: &N,
    packet: &Packet,
    ethernet: &Ethernet,
) -> Option<(Mac, Mac, u32)> {
    if is_from_peer(node, node.settings()?, ethernet) {
        return node.way(packet, frame.interface_index());
    }
    Some((ethernet.source, ethernet.destination, frame.interface_index()))
}

/// Makes the frame as long as the answer, and writes that.
#[inline(always)]
fn write<F: Frame>(
    frame: &mut F,
    packet: &Packet,
    cookie: &SynCookie,
    [to, from]: [Mac; 2],
) -> Option<()> {
    let syn = frame.load::<Tcp>(packet.transport)?;
    let end = packet.transport + size_of::<Answer>();
    frame.end_at(if end < FRAME_MIN { FRAME_MIN } else { end })?;
    address(frame, to, from)?;
    let most = if packet.v4 { SEGMENT_V4 } else { SEGMENT_V6 };
    let mut answer = Answer {
        tcp: Tcp {
            ports: Ports {
                source_be: packet.flow.destination_port_be,
                destination_be: packet.flow.source_port_be,
            },
            sequence_be: cookie.sequence.to_be(),
            acknowledgement_be: u32::from_be(syn.sequence_be).wrapping_add(1).to_be(),
            data_offset: (size_of::<Answer>() as u8 / 4) << 4,
            flags: TCP_SYN | TCP_ACK,
            window_be: WINDOW.to_be(),
            checksum: 0,
            urgent_be: 0,
        },
        option: OPTION_SEGMENT,
        segment_be: if cookie.segment < most { cookie.segment } else { most }.to_be(),
    };
    answer.tcp.checksum = checksum(packet, &answer);
    write_ip(frame, packet)?;
    frame.store(packet.transport, answer)?;
    if packet.v4 && end < FRAME_MIN {
        // What the SYN had there would be padding with a meaning.
        frame.store(FRAME_MIN - size_of::<u16>(), 0u16)?;
    }
    Some(())
}

#[inline(always)]
fn write_ip<F: Frame>(frame: &mut F, packet: &Packet) -> Option<()> {
    let (source, destination) = (&packet.flow.destination, &packet.flow.source);
    if !packet.v4 {
        let ip = Ipv6 {
            version_class_flow_be: 0x6000_0000u32.to_be(),
            payload_length_be: (size_of::<Answer>() as u16).to_be(),
            next_header: PROTOCOL_TCP,
            hop_limit: TTL,
            source: source.words,
            destination: destination.words,
        };
        return frame.store(packet.network, ip);
    }
    let mut ip = Ipv4 {
        version_ihl: 0x45,
        tos: 0,
        total_length_be: ((size_of::<Ipv4>() + size_of::<Answer>()) as u16).to_be(),
        id_be: 0,
        fragment_be: DONT_FRAGMENT,
        ttl: TTL,
        protocol: PROTOCOL_TCP,
        checksum: 0,
        source: source.v4_word(),
        destination: destination.v4_word(),
    };
    let halves = [
        u16::from_ne_bytes([ip.version_ihl, ip.tos]),
        ip.total_length_be,
        ip.fragment_be,
        u16::from_ne_bytes([ip.ttl, ip.protocol]),
    ];
    ip.checksum = !fold(sum(&halves) + ip.source as u64 + ip.destination as u64);
    frame.store(packet.network, ip)
}

#[inline(always)]
fn sum(halves: &[u16; 4]) -> u64 {
    halves[0] as u64 + halves[1] as u64 + halves[2] as u64 + halves[3] as u64
}

#[inline(always)]
fn words(address: &Address) -> u64 {
    let w = &address.words;
    w[0] as u64 + w[1] as u64 + w[2] as u64 + w[3] as u64
}

/// TCP's, with its pseudo-header (RFC 9293, 3.1).
#[inline(always)]
fn checksum(packet: &Packet, answer: &Answer) -> u16 {
    let tcp = &answer.tcp;
    let addresses = if packet.v4 {
        packet.flow.source.v4_word() as u64 + packet.flow.destination.v4_word() as u64
    } else {
        words(&packet.flow.source) + words(&packet.flow.destination)
    };
    let pseudo = (PROTOCOL_TCP as u16).to_be() as u64
        + (size_of::<Answer>() as u16).to_be() as u64
        + addresses;
    let halves = [
        u16::from_ne_bytes([tcp.data_offset, tcp.flags]),
        tcp.window_be,
        answer.option,
        answer.segment_be,
    ];
    let ports = tcp.ports.source_be as u64 + tcp.ports.destination_be as u64;
    let numbers = tcp.sequence_be as u64 + tcp.acknowledgement_be as u64;
    !fold(pseudo + sum(&halves) + ports + numbers)
}
