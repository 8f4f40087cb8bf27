//! What is in a frame: the rows of "Steering" that look at the frame alone.

use lb_common::Address;
use lb_common::counter::Verdict;
use lb_common::flow::FlowKey;
use lb_common::fragment::FragmentKey;
use lb_common::service::{TCP, UDP};

use super::state::Mac;

pub(super) const ETHERTYPE_IPV4: u16 = 0x0800;
pub(super) const ETHERTYPE_ARP: u16 = 0x0806;
pub(super) const ETHERTYPE_IPV6: u16 = 0x86dd;
/// 802.1Q and 802.1ad.
const TAGS: [u16; 2] = [0x8100, 0x88a8];

const ICMP: u8 = 1;
pub(super) const ICMPV6: u8 = 58;
const IPV6_FRAGMENT: u8 = 44;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

pub(super) fn byte(frame: &[u8], at: usize) -> Option<u8> {
    frame.get(at).copied()
}

pub(super) fn word(frame: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([byte(frame, at)?, byte(frame, at + 1)?]))
}

fn mac(frame: &[u8], at: usize) -> Option<Mac> {
    frame.get(at..at + 6)?.try_into().ok()
}

pub(super) fn address_v4(frame: &[u8], at: usize) -> Option<Address> {
    Some(Address::from_v4(frame.get(at..at + 4)?.try_into().ok()?))
}

pub(super) fn address_v6(frame: &[u8], at: usize) -> Option<Address> {
    Some(Address::from_v6(frame.get(at..at + 16)?.try_into().ok()?))
}

/// The Ethernet header and its tags.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    pub(super) to: Mac,
    pub(super) from: Mac,
    pub(super) ethertype: u16,
    /// Where the next header begins.
    pub(super) end: usize,
}

/// "Too short for an Ethernet, VLAN [..] header [..]. Up to two VLAN tags are read."
pub(super) fn link(frame: &[u8]) -> Option<Link> {
    let (to, from) = (mac(frame, 0)?, mac(frame, 6)?);
    let mut at = 12;
    let mut ethertype = word(frame, at)?;
    for _ in 0..2 {
        if TAGS.contains(&ethertype) {
            at += 4;
            ethertype = word(frame, at)?;
        }
    }
    Some(Link { to, from, ethertype, end: at + 2 })
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Family {
    V4,
    V6,
}

/// An IP header without its options.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ip {
    pub(super) family: Family,
    /// Where it begins.
    pub(super) at: usize,
    pub(super) source: Address,
    pub(super) destination: Address,
    /// Protocol or next header; of a whole packet the transport's.
    pub(super) protocol: u8,
    /// TTL or hop limit.
    pub(super) ttl: u8,
}

/// The header at `at`, which the ethertype calls one of this family; nothing where it is cut.
pub(super) fn ip(frame: &[u8], at: usize, family: Family) -> Option<Ip> {
    let header = match family {
        Family::V4 => Ip {
            family,
            at,
            source: address_v4(frame, at + 12)?,
            destination: address_v4(frame, at + 16)?,
            protocol: byte(frame, at + 9)?,
            ttl: byte(frame, at + 8)?,
        },
        Family::V6 => Ip {
            family,
            at,
            source: address_v6(frame, at + 8)?,
            destination: address_v6(frame, at + 24)?,
            protocol: byte(frame, at + 6)?,
            ttl: byte(frame, at + 7)?,
        },
    };
    Some(header)
}

/// Where the transport header begins and the packet ends, as the IP header says. "A length of 0
/// stands for more than the field can say." "Bad version or header length": nothing.
fn extent(frame: &[u8], ip: &Ip) -> Option<(usize, usize)> {
    let first = byte(frame, ip.at)?;
    match ip.family {
        Family::V4 => {
            let length = usize::from(first & 0x0f) * 4;
            let end = match word(frame, ip.at + 2)? {
                0 => usize::MAX,
                total => ip.at + usize::from(total),
            };
            (first >> 4 == 4 && length >= 20).then_some((ip.at + length, end))
        }
        Family::V6 => {
            let end = match word(frame, ip.at + 4)? {
                0 => usize::MAX,
                payload => ip.at + 40 + usize::from(payload),
            };
            (first >> 4 == 6).then_some((ip.at + 40, end))
        }
    }
}

/// Where the transport header begins, and the frame up to the packet's end: behind it "lies padding".
/// Nothing where the IP header is bad.
pub(super) fn inside<'a>(frame: &'a [u8], ip: &Ip) -> Option<(usize, &'a [u8])> {
    let (transport, end) = extent(frame, ip)?;
    Some((transport, &frame[..end.clamp(ip.at, frame.len())]))
}

/// The headers that may stand between IPv6's and the transport's.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const DESTINATION_OPTIONS: u8 = 60;

/// "Passed over: up to six of them and 176 bytes."
const EXTENSIONS: usize = 6;
const EXTENSION_BYTES: usize = 176;

/// Where a packet's transport header is, if this frame has it.
struct Place {
    protocol: u8,
    transport: usize,
    /// Which packet it is a fragment of.
    fragment: Option<FragmentKey>,
    /// A fragment other than the first.
    follows: bool,
}

/// Looks for it from `transport` on, where the IP header ends.
fn place(frame: &[u8], ip: &Ip, transport: usize) -> Result<Place, Verdict> {
    let key = |id, protocol| FragmentKey {
        source: ip.source,
        destination: ip.destination,
        id,
        protocol,
        ..FragmentKey::default()
    };
    if ip.family == Family::V4 {
        let word = |at| word(frame, at).ok_or(Verdict::Truncated);
        // More fragments, or an offset.
        let (id, flags) = (u32::from(word(ip.at + 4)?.to_be()), word(ip.at + 6)?);
        let fragment = (flags & 0x3fff != 0).then(|| key(id, ip.protocol));
        let follows = flags & 0x1fff != 0;
        return Ok(Place { protocol: ip.protocol, transport, fragment, follows });
    }
    let mut place = Place { protocol: ip.protocol, transport, fragment: None, follows: false };
    for _ in 0..EXTENSIONS {
        let header = frame.get(place.transport..).unwrap_or_default();
        place.transport += match place.protocol {
            IPV6_FRAGMENT => {
                let header = header.get(..8).ok_or(Verdict::Truncated)?;
                let id = u32::from_ne_bytes([header[4], header[5], header[6], header[7]]);
                let (offset, more) = (word(header, 2).unwrap_or(0) & 0xfff8, header[3] & 1);
                if offset != 0 || more != 0 {
                    place.fragment = Some(key(id, IPV6_FRAGMENT));
                }
                if offset != 0 {
                    return Ok(Place { follows: true, ..place });
                }
                place.protocol = header[0];
                8
            }
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {
                let header = header.get(..4).ok_or(Verdict::Truncated)?;
                if place.protocol == ROUTING && header[3] != 0 {
                    return Err(Verdict::OtherProtocol);
                }
                place.protocol = header[0];
                8 * (1 + usize::from(header[1]))
            }
            _ => break,
        };
        if place.transport - transport > EXTENSION_BYTES {
            return Err(Verdict::OtherProtocol);
        }
    }
    Ok(place)
}

/// Where the transport header of a quoted packet is that may be the first of several fragments, and its protocol.
fn first_fragment(frame: &[u8], ip: &Ip, transport: usize) -> Result<(usize, u8), Verdict> {
    let (offset, first) = match (ip.family, ip.protocol) {
        (Family::V4, protocol) => {
            (word(frame, ip.at + 6).unwrap_or(0) & 0x1fff, (transport, protocol))
        }
        (Family::V6, IPV6_FRAGMENT) => {
            let header = frame.get(transport..transport + 8).ok_or(Verdict::Truncated)?;
            (word(header, 2).unwrap_or(0) & 0xfff8, (transport + 8, header[0]))
        }
        (Family::V6, protocol) => (0, (transport, protocol)),
    };
    if offset == 0 { Ok(first) } else { Err(Verdict::IcmpOther) }
}

/// What a packet is, as far as choosing is concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// A SYN without ACK and RST.
    Syn,
    /// Any other segment.
    Segment,
    Datagram,
    /// An ICMP error; the tuple is the quoted one, turned round, once that is read.
    Error,
    /// A fragment other than the first, which has no tuple.
    Following,
}

/// A TCP, UDP or ICMP packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet {
    pub(super) link: Link,
    pub(super) ip: Ip,
    pub(super) kind: Kind,
    /// The tuple that chooses; its protocol is TCP or UDP.
    pub(super) tuple: FlowKey,
    /// Where the transport header begins.
    pub(super) transport: usize,
    /// Which packet it is a fragment of.
    pub(super) fragment: Option<FragmentKey>,
    /// Neither a fragment nor with extension headers.
    pub(super) plain: bool,
    /// Where it came in.
    pub(super) interface: u32,
    /// Flags of a segment.
    pub(super) fin: bool,
    pub(super) rst: bool,
    /// An acknowledgement that neither opens nor resets.
    pub(super) may_be_cookie: bool,
}

impl Packet {
    /// Whether it counts as a new connection: "a SYN"; "each datagram counts as a new connection".
    pub(super) fn is_new(&self) -> bool {
        matches!(self.kind, Kind::Syn | Kind::Datagram)
    }
}

/// The rows from "bad version or header length" to "ICMP that is no error".
pub(super) fn packet(frame: &[u8], link: Link, ip: Ip, interface: u32) -> Result<Packet, Verdict> {
    let (end, inside) = inside(frame, &ip).ok_or(Verdict::Truncated)?;
    let Place { protocol, transport, fragment, follows } = place(frame, &ip, end)?;
    let ip = Ip { protocol, ..ip };
    let plain = fragment.is_none() && transport == end;
    let following = Packet {
        link,
        ip,
        kind: Kind::Following,
        tuple: FlowKey::default(),
        transport,
        fragment,
        plain,
        interface,
        fin: false,
        rst: false,
        may_be_cookie: false,
    };
    if follows {
        return Ok(following);
    }
    let frame = inside;
    let needs = match (ip.protocol, ip.family) {
        (TCP, _) => 20,
        (UDP, _) | (ICMP, Family::V4) | (ICMPV6, Family::V6) => 8,
        _ => return Err(Verdict::OtherProtocol),
    };
    if transport + needs > frame.len() {
        return Err(Verdict::Truncated);
    }
    let flags = match ip.protocol {
        TCP => frame[transport + 13],
        _ => 0,
    };
    let has = |flag| flags & flag != 0;
    let kind = match ip.protocol {
        TCP if has(SYN) && !has(ACK) && !has(RST) => Kind::Syn,
        TCP => Kind::Segment,
        UDP => Kind::Datagram,
        _ => Kind::Error,
    };
    if kind == Kind::Error && (fragment.is_some() || !is_error(frame, &ip, transport)) {
        return Err(Verdict::IcmpOther);
    }
    let tuple = match kind {
        Kind::Error => FlowKey::default(),
        _ => tuple(frame, &ip, transport).ok_or(Verdict::Truncated)?,
    };
    let (fin, rst) = (has(FIN), has(RST));
    let may_be_cookie = has(ACK) && !has(SYN) && !rst;
    Ok(Packet { kind, tuple, fin, rst, may_be_cookie, ..following })
}

/// Addresses, and the ports at `transport`.
fn tuple(frame: &[u8], ip: &Ip, transport: usize) -> Option<FlowKey> {
    Some(FlowKey {
        source: ip.source,
        destination: ip.destination,
        source_port_be: word(frame, transport)?.to_be(),
        destination_port_be: word(frame, transport + 2)?.to_be(),
        protocol: ip.protocol,
        padding: [0; 3],
    })
}

/// "ICMP destination unreachable, time exceeded, parameter problem; ICMPv6 types 1 to 4."
fn is_error(frame: &[u8], ip: &Ip, message: usize) -> bool {
    match ip.family {
        Family::V4 => [3, 11, 12].contains(&frame[message]),
        Family::V6 => (1..=4).contains(&frame[message]),
    }
}

/// The packet that an ICMP error quotes: its headers, and its tuple turned round. "Cut before the ports
/// of what it quotes"; "that quotes neither TCP nor UDP, a fragment other than the first, or a packet of another
/// sender than the error is to".
pub(super) fn quoted(frame: &[u8], packet: &Packet) -> Result<Packet, Verdict> {
    let (_, frame) = inside(frame, &packet.ip).ok_or(Verdict::Truncated)?;
    let message = packet.transport;
    let ip = ip(frame, message + 8, packet.ip.family).ok_or(Verdict::Truncated)?;
    let (transport, _) = extent(frame, &ip).ok_or(Verdict::IcmpOther)?;
    if ip.source != packet.ip.destination {
        return Err(Verdict::IcmpOther);
    }
    let (transport, protocol) = first_fragment(frame, &ip, transport)?;
    if ![TCP, UDP].contains(&protocol) {
        return Err(Verdict::IcmpOther);
    }
    let ip = Ip { protocol, ..ip };
    let tuple = tuple(frame, &ip, transport).ok_or(Verdict::Truncated)?.reversed();
    Ok(Packet { ip, tuple, transport, ..*packet })
}
