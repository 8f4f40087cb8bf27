//! Where the headers of a frame are, and the tuple that they name.

use lb_common::Address;
use lb_common::counter::Verdict;
use lb_common::flow::FlowKey;

use crate::environment::Frame;
use crate::opaque::opaque;
use crate::wire::*;

/// At least an Ethernet header and two tags.
pub(crate) const LINK_BYTES: usize = 31;

/// What a frame is, as far as steering cares.
#[derive(Clone, Copy)]
pub enum Parsed {
    /// ARP, its header at this offset.
    Arp(usize),
    /// A neighbour solicitation or advertisement: the offsets of its IPv6 and ICMPv6 headers.
    Nd {
        network: usize,
        transport: usize,
    },
    /// TCP or UDP to an address that passed the filter.
    Packet(Packet),
    /// An ICMP or ICMPv6 error to an address that passed the filter.
    Error(Outer),
    /// Neither ARP nor IP.
    NotIp,
    /// To an address that the filter excludes.
    NotOurs,
    /// A fragment, or with IPv6 extension headers, to an address that passed the filter: the offset of its
    /// valid IP header. [`uncover`](crate::deep::uncover) looks further.
    Deep(usize),
    /// To an address that passed the filter; no more can be said than why.
    Truncated,
    OtherProtocol,
    OtherIcmp,
}

/// A packet's headers.
#[derive(Clone, Copy)]
pub struct Packet {
    /// Offset of the IPv4 or IPv6 header.
    pub network: usize,
    /// Offset of the TCP, UDP or ICMP header.
    pub transport: usize,
    /// The tuple, client to service.
    pub flow: FlowKey,
    /// 0 for UDP.
    pub tcp_flags: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// IPv4, rather than IPv6.
    pub v4: bool,
}

impl Packet {
    #[inline(always)]
    pub const fn is_udp(&self) -> bool {
        self.flow.protocol == PROTOCOL_UDP
    }

    /// Whether it may begin something: a SYN without ACK, or a datagram.
    #[inline(always)]
    pub const fn is_new(&self) -> bool {
        self.is_udp() || self.tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST) == TCP_SYN
    }
}

/// The headers of an ICMP error.
#[derive(Clone, Copy)]
pub struct Outer {
    /// Offset of the IPv4 or IPv6 header.
    pub network: usize,
    /// Offset of the ICMP header.
    pub transport: usize,
    /// TTL or hop limit.
    pub ttl: u8,
    /// IPv4, rather than IPv6.
    pub v4: bool,
    /// As in a [`Header`].
    last: i32,
}

impl Outer {
    /// Whether the message has so many bytes; behind them lies the link's padding.
    #[inline(always)]
    pub(crate) const fn reaches(&self, bytes: usize) -> bool {
        self.last >= bytes as i32 - 1
    }
}

/// The packet that an ICMP error complains about.
#[derive(Clone, Copy)]
pub struct Quoted {
    /// Offset of its IPv4 or IPv6 header.
    pub network: usize,
    /// Offset of its TCP or UDP header, of which at least the ports are there.
    pub transport: usize,
    /// Its tuple, turned round: what its receiver sends.
    pub flow: FlowKey,
}

/// An IPv4 or IPv6 header, in one form.
#[derive(Clone, Copy)]
pub(crate) struct Header {
    pub(crate) network: usize,
    pub(crate) transport: usize,
    pub(crate) source: Address,
    pub(crate) destination: Address,
    pub(crate) protocol: u8,
    pub(crate) ttl: u8,
    pub(crate) v4: bool,
    /// A fragment, or with an IPv6 extension header.
    deep: bool,
    valid: bool,
    /// Where its payload ends, counted from the header's end, less one. A length of 0 wraps to the
    /// largest: it stands for more than the field can say, as in packets that the kernel joined
    /// before tc sees them (BIG TCP).
    pub(crate) last: i32,
}

impl Header {
    /// Whether the payload has room for a `T`.
    #[inline(always)]
    const fn holds<T>(&self) -> bool {
        self.reaches(size_of::<T>())
    }

    /// Whether the payload has so many bytes. What lies behind it is the link's padding, and may
    /// look like anything.
    #[inline(always)]
    const fn reaches(&self, bytes: usize) -> bool {
        self.last >= bytes as i32 - 1
    }
}

/// Parses a frame, as cheaply as its kind allows: a packet whose destination `ours` excludes is
/// done at once.
#[inline(always)]
pub fn parse<F: Frame>(frame: &F, ours: impl Fn(&Address) -> bool) -> Parsed {
    let Some(ethernet) = frame.load::<Ethernet>(0) else { return Parsed::NotIp };
    let mut ethertype = ethernet.ethertype_be;
    let mut network = size_of::<Ethernet>();
    if is_vlan(ethertype) {
        // At most two tags, by hand: a loop would cost every untagged frame.
        let Some(tag) = frame.load::<Vlan>(network) else { return Parsed::NotIp };
        network += size_of::<Vlan>();
        ethertype = tag.ethertype_be;
        if is_vlan(ethertype) {
            let Some(tag) = frame.load::<Vlan>(network) else { return Parsed::NotIp };
            network += size_of::<Vlan>();
            ethertype = tag.ethertype_be;
        }
    }
    parse_network(frame, ours, opaque::<LINK_BYTES>(network, ethernet.source.0[2]), ethertype)
}

/// Parses from the network header on: at offset `network`, of the kind that `ethertype` says.
#[inline(always)]
pub fn parse_network<F: Frame>(
    frame: &F,
    ours: impl Fn(&Address) -> bool,
    network: usize,
    ethertype: u16,
) -> Parsed {
    let header = match ethertype {
        ETHERTYPE_IPV4 => ipv4(frame, network),
        ETHERTYPE_IPV6 => ipv6(frame, network),
        ETHERTYPE_ARP => return Parsed::Arp(network),
        _ => None,
    };
    let Some(header) = header else { return Parsed::NotIp };
    // An IPv4-mapped address in an IPv6 header is nobody's (RFC 4291, 2.5.5.2), though the maps hold
    // IPv4 addresses in that form.
    let mapped = !header.v4 && header.destination.is_v4();
    if mapped || !ours(&header.destination) {
        return not_ours(frame, &header);
    }
    if !header.valid {
        return Parsed::Truncated;
    }
    if header.deep {
        return Parsed::Deep(network);
    }
    transport(frame, &header)
}

#[inline(always)]
const fn is_vlan(ethertype: u16) -> bool {
    matches!(ethertype, ETHERTYPE_VLAN | ETHERTYPE_QINQ)
}

#[inline(always)]
pub(crate) fn ipv4<F: Frame>(frame: &F, network: usize) -> Option<Header> {
    let ip = frame.load::<Ipv4>(network)?;
    let length = (ip.version_ihl as usize & 0xf) << 2;
    Some(Header {
        network,
        transport: network + length,
        source: Address::from_v4_word(ip.source),
        destination: Address::from_v4_word(ip.destination),
        protocol: ip.protocol,
        ttl: ip.ttl,
        v4: true,
        deep: ip.fragment_be & IPV4_FRAGMENT_MASK != 0,
        valid: ip.version_ihl >> 4 == 4 && ip.version_ihl & 0xf >= 5,
        last: u16::from_be(ip.total_length_be).wrapping_sub(1) as i32 - length as i32,
    })
}

#[inline(always)]
pub(crate) fn ipv6<F: Frame>(frame: &F, network: usize) -> Option<Header> {
    let ip = frame.load::<Ipv6>(network)?;
    Some(Header {
        network,
        transport: network + size_of::<Ipv6>(),
        source: Address { words: ip.source },
        destination: Address { words: ip.destination },
        protocol: ip.next_header,
        ttl: ip.hop_limit,
        v4: false,
        deep: is_extension(ip.next_header),
        valid: ip.version_class_flow_be.to_ne_bytes()[0] >> 4 == 6,
        last: u16::from_be(ip.payload_length_be).wrapping_sub(1) as i32,
    })
}

/// Whether it is one of the headers that may stand before the transport's.
#[inline(always)]
const fn is_extension(protocol: u8) -> bool {
    matches!(
        protocol,
        PROTOCOL_HOP_BY_HOP | PROTOCOL_ROUTING | PROTOCOL_FRAGMENT | PROTOCOL_DESTINATION_OPTIONS
    )
}

/// Solicitations go to a multicast address, which no filter knows.
#[inline(always)]
fn not_ours<F: Frame>(frame: &F, header: &Header) -> Parsed {
    if header.protocol == PROTOCOL_ICMPV6 && !header.v4 && header.valid {
        return nd(frame, header).unwrap_or(Parsed::NotOurs);
    }
    Parsed::NotOurs
}

/// A neighbour solicitation or advertisement that is whole, up to its target.
#[inline(always)]
fn nd<F: Frame>(frame: &F, header: &Header) -> Option<Parsed> {
    let icmp = frame.load::<Icmp>(header.transport)?;
    frame.load::<[u32; 4]>(header.transport + size_of::<Icmp>())?;
    let whole = header.reaches(size_of::<Icmp>() + size_of::<[u32; 4]>());
    (whole && matches!(icmp.kind, ND_SOLICITATION | ND_ADVERTISEMENT))
        .then_some(Parsed::Nd { network: header.network, transport: header.transport })
}

/// What the transport header says, wherever it lies.
#[inline(always)]
pub(crate) fn transport<F: Frame>(frame: &F, header: &Header) -> Parsed {
    let (ports, tcp_flags) = match header.protocol {
        PROTOCOL_TCP => match frame.load::<Tcp>(header.transport) {
            Some(tcp) if header.holds::<Tcp>() => (tcp.ports, tcp.flags),
            _ => return Parsed::Truncated,
        },
        PROTOCOL_UDP => match frame.load::<Udp>(header.transport) {
            Some(udp) if header.holds::<Udp>() => (udp.ports, 0),
            _ => return Parsed::Truncated,
        },
        PROTOCOL_ICMP if header.v4 => return icmp(frame, header),
        PROTOCOL_ICMPV6 if !header.v4 => return icmp(frame, header),
        _ => return Parsed::OtherProtocol,
    };
    let flow = FlowKey {
        source: header.source,
        destination: header.destination,
        source_port_be: ports.source_be,
        destination_port_be: ports.destination_be,
        protocol: header.protocol,
        padding: [0; 3],
    };
    Parsed::Packet(packet(header, flow, tcp_flags))
}

#[inline(always)]
const fn packet(header: &Header, flow: FlowKey, tcp_flags: u8) -> Packet {
    Packet {
        network: header.network,
        transport: header.transport,
        flow,
        tcp_flags,
        ttl: header.ttl,
        v4: header.v4,
    }
}

#[inline(always)]
fn icmp<F: Frame>(frame: &F, header: &Header) -> Parsed {
    let icmp = match frame.load::<Icmp>(header.transport) {
        Some(icmp) if header.holds::<Icmp>() => icmp,
        _ => return Parsed::Truncated,
    };
    let error = if header.v4 {
        matches!(icmp.kind, ICMP_UNREACHABLE | ICMP_TIME_EXCEEDED | ICMP_PARAMETER_PROBLEM)
    } else {
        matches!(icmp.kind, 1..=ICMPV6_LAST_ERROR)
    };
    let Header { network, transport, ttl, v4, last, .. } = *header;
    if error {
        return Parsed::Error(Outer { network, transport, ttl, v4, last });
    }
    if v4 { Parsed::OtherIcmp } else { nd(frame, header).unwrap_or(Parsed::OtherIcmp) }
}

/// The source and destination in the IP header at `network`.
#[inline(always)]
pub(crate) fn addresses<F: Frame>(
    frame: &F,
    network: usize,
    v4: bool,
) -> Option<(Address, Address)> {
    if v4 {
        let ip = frame.load::<Ipv4>(network)?;
        return Some((Address::from_v4_word(ip.source), Address::from_v4_word(ip.destination)));
    }
    let ip = frame.load::<Ipv6>(network)?;
    Some((Address { words: ip.source }, Address { words: ip.destination }))
}

/// The quoted packet as far as its transport header, if it is the first of several fragments: only that has one.
/// Its sender made them, so nothing else stands before it.
#[inline(always)]
fn first_fragment<F: Frame>(frame: &F, outer: &Outer, header: Header) -> Result<Header, Verdict> {
    let (transport, protocol, follows) = if header.v4 {
        let ip = frame.load::<Ipv4>(header.network).ok_or(Verdict::Truncated)?;
        (header.transport, header.protocol, ip.fragment_be & IPV4_OFFSET_MASK)
    } else if header.protocol == PROTOCOL_FRAGMENT {
        let transport = header.transport + size_of::<Ipv6Fragment>();
        match frame.load::<Ipv6Fragment>(header.transport) {
            Some(part) if outer.reaches(transport - outer.transport) => {
                (transport, part.next_header, part.offset_be & IPV6_OFFSET_MASK)
            }
            _ => return Err(Verdict::Truncated),
        }
    } else {
        return Err(Verdict::IcmpOther);
    };
    if follows != 0 {
        return Err(Verdict::IcmpOther);
    }
    Ok(Header { transport, protocol, ..header })
}

/// The packet that an ICMP error quotes, or why nothing can be said of it.
#[inline(always)]
pub fn quoted<F: Frame>(frame: &F, outer: &Outer) -> Result<Quoted, Verdict> {
    let network = outer.transport + size_of::<Icmp>();
    let header = if outer.v4 { ipv4(frame, network) } else { ipv6(frame, network) };
    let least = size_of::<Icmp>() + if outer.v4 { size_of::<Ipv4>() } else { size_of::<Ipv6>() };
    let header = match header {
        Some(header) if outer.reaches(least) => header,
        _ => return Err(Verdict::Truncated),
    };
    // The filter lets some foreign addresses through, and anything can be quoted: an error goes to
    // whom sent the packet.
    let to_sender = addresses(frame, outer.network, outer.v4)
        .is_some_and(|(_, destination)| destination == header.source);
    if !header.valid || !to_sender {
        return Err(Verdict::IcmpOther);
    }
    let header = if header.deep { first_fragment(frame, outer, header)? } else { header };
    if !matches!(header.protocol, PROTOCOL_TCP | PROTOCOL_UDP) {
        return Err(Verdict::IcmpOther);
    }
    let ports = match frame.load::<Ports>(header.transport) {
        Some(ports) if outer.reaches(header.transport + size_of::<Ports>() - outer.transport) => {
            ports
        }
        _ => return Err(Verdict::Truncated),
    };
    let flow = FlowKey {
        source: header.destination,
        destination: header.source,
        source_port_be: ports.destination_be,
        destination_port_be: ports.source_be,
        protocol: header.protocol,
        padding: [0; 3],
    };
    Ok(Quoted { network, transport: header.transport, flow })
}
