//! Packets whose transport header lies deeper than plain ones', or in another frame: IPv6 extension
//! headers, and fragments of both versions.

use lb_common::deep::DeepPacket;
use lb_common::flow::FlowKey;
use lb_common::fragment::FragmentKey;

use crate::environment::Frame;
use crate::opaque::opaque;
use crate::parse::{Header, LINK_BYTES, Packet, Parsed, ipv4, ipv6, transport};
use crate::wire::*;

/// Extension headers that are passed over: RFC 8200, 4.1 recommends an order of six, and the last two of
/// those are for IPsec.
const MOST_EXTENSIONS: usize = 6;

/// Bytes that they have together.
const MOST_BYTES: usize = 176;

/// Where the transport header begins at the latest, behind an Ethernet header and two tags.
const DEEPEST: usize = 255;

const _: () = assert!(LINK_BYTES + size_of::<Ipv6>() + MOST_BYTES <= DEEPEST);

/// So many bytes of a frame are looked at: there lies the quotation of an ICMP error, up to the quoted
/// checksum.
pub const DEPTH: u32 = DEEPEST as u32 + 8 + 60 + 20;

/// What a packet is, once its headers are walked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    Whole,
    /// The first fragment of several.
    First,
    /// Any other.
    Following,
    /// The frame ends before the headers do.
    Truncated,
    /// Its headers lead elsewhere, or are too many.
    Elsewhere,
}

/// What came out. Plain values, of which none is left open: the verifier follows those of an enum's other
/// variants too, and finds them uninitialised.
#[derive(Clone, Copy)]
pub struct Uncovered {
    pub part: Part,
    /// A fragment's identification, as it lies in the header.
    pub id: u32,
    /// With the transport's offset and protocol.
    pub(crate) header: Header,
}

/// Looks for the transport header behind the valid IP header at `network`.
#[inline(always)]
pub fn uncover<F: Frame>(frame: &F, network: usize) -> Option<Uncovered> {
    // Two bytes, since the verifier does not see that the first is there by itself.
    let [first, _] = frame.load::<[u8; 2]>(network)?;
    if first >> 4 == 4 { in_ipv4(frame, network) } else { in_ipv6(frame, network) }
}

#[inline(always)]
fn in_ipv4<F: Frame>(frame: &F, network: usize) -> Option<Uncovered> {
    let header = ipv4(frame, network)?;
    let ip = frame.load::<Ipv4>(network)?;
    let follows = ip.fragment_be & IPV4_OFFSET_MASK != 0;
    let part = if follows { Part::Following } else { Part::First };
    Some(Uncovered { part, id: ip.id_be as u32, header })
}

#[inline(always)]
fn in_ipv6<F: Frame>(frame: &F, network: usize) -> Option<Uncovered> {
    let mut uncovered = Uncovered { part: Part::Whole, id: 0, header: ipv6(frame, network)? };
    for _ in 0..MOST_EXTENSIONS {
        let header = &mut uncovered.header;
        let length = match header.protocol {
            PROTOCOL_FRAGMENT => {
                let Some(part) = frame.load::<Ipv6Fragment>(header.transport) else {
                    uncovered.part = Part::Truncated;
                    break;
                };
                header.protocol = part.next_header;
                let [high, low] = [part.id[0].to_ne_bytes(), part.id[1].to_ne_bytes()];
                let id = u32::from_ne_bytes([high[0], high[1], low[0], low[1]]);
                if part.offset_be & IPV6_OFFSET_MASK != 0 {
                    (uncovered.part, uncovered.id) = (Part::Following, id);
                    break;
                }
                // One that is the first and the last is whole (RFC 6946).
                if part.offset_be & IPV6_MORE != 0 {
                    (uncovered.part, uncovered.id) = (Part::First, id);
                }
                size_of::<Ipv6Fragment>()
            }
            PROTOCOL_HOP_BY_HOP | PROTOCOL_ROUTING | PROTOCOL_DESTINATION_OPTIONS => {
                let Some(part) = frame.load::<Extension>(header.transport) else {
                    uncovered.part = Part::Truncated;
                    break;
                };
                // Else the destination is only the next stop.
                if header.protocol == PROTOCOL_ROUTING && part.segments_left != 0 {
                    uncovered.part = Part::Elsewhere;
                    break;
                }
                header.protocol = part.next_header;
                (part.length as usize + 1) << 3
            }
            _ => break,
        };
        let transport = header.transport + length;
        if transport > network + size_of::<Ipv6>() + MOST_BYTES {
            uncovered.part = Part::Elsewhere;
            break;
        }
        header.transport = opaque::<DEEPEST>(transport, header.source.words[3] as u16);
    }
    // Here and not in the loop, where each way round would be a state of its own for the verifier: those
    // before 6.3 gave up.
    let header = &mut uncovered.header;
    header.last -= header.transport as i32 - (network + size_of::<Ipv6>()) as i32;
    Some(uncovered)
}

impl Uncovered {
    /// What the transport header says; of a following fragment nothing.
    #[inline(always)]
    pub fn parsed<F: Frame>(&self, frame: &F) -> Parsed {
        match self.part {
            Part::Following => Parsed::NotOurs,
            Part::Truncated => Parsed::Truncated,
            Part::Elsewhere => Parsed::OtherProtocol,
            Part::Whole | Part::First => transport(frame, &self.header),
        }
    }

    #[inline(always)]
    pub const fn is_first(&self) -> bool {
        matches!(self.part, Part::First)
    }

    /// The key of a following fragment, for the program `at`.
    #[inline(always)]
    pub(crate) const fn key(&self, at: u8) -> FragmentKey {
        let Header { source, destination, protocol, v4, .. } = self.header;
        FragmentKey { at, ..FragmentKey::new(source, destination, self.id, protocol, v4) }
    }
}

/// The key under which a first fragment's followers find it, for the program `at`.
#[inline(always)]
pub const fn key(packet: &Packet, id: u32, at: u8) -> FragmentKey {
    let FlowKey { source, destination, protocol, .. } = packet.flow;
    FragmentKey { at, ..FragmentKey::new(source, destination, id, protocol, packet.v4) }
}

/// A packet with a tuple, as the next program gets it. The offsets are [small](DEEPEST).
#[inline(always)]
pub const fn pack(packet: &Packet, id: u32, first: bool) -> DeepPacket {
    DeepPacket {
        flow: packet.flow,
        id,
        network: packet.network as u8,
        transport: packet.transport as u8,
        tcp_flags: packet.tcp_flags,
        ttl: packet.ttl,
        v4: packet.v4 as u8,
        first: first as u8,
        padding: [0; 2],
    }
}

/// And back.
#[inline(always)]
pub const fn unpack(deep: &DeepPacket) -> Packet {
    Packet {
        network: deep.network as usize,
        transport: deep.transport as usize,
        flow: deep.flow,
        tcp_flags: deep.tcp_flags,
        ttl: deep.ttl,
        v4: deep.v4 != 0,
    }
}
