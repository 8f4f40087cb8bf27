//! The headers that the programs read and write, as they lie in a frame.
//!
//! Multi-byte fields are unswapped (`_be`). Not a general packet library: only what steering needs.

pub const ETHERTYPE_IPV4: u16 = 0x0800u16.to_be();
pub const ETHERTYPE_IPV6: u16 = 0x86ddu16.to_be();
pub const ETHERTYPE_ARP: u16 = 0x0806u16.to_be();
pub const ETHERTYPE_VLAN: u16 = 0x8100u16.to_be();
pub const ETHERTYPE_QINQ: u16 = 0x88a8u16.to_be();

pub const PROTOCOL_ICMP: u8 = 1;
pub const PROTOCOL_TCP: u8 = 6;
pub const PROTOCOL_UDP: u8 = 17;
/// IPv6's headers before the transport's (RFC 8200, 4.1).
pub const PROTOCOL_HOP_BY_HOP: u8 = 0;
pub const PROTOCOL_ROUTING: u8 = 43;
pub const PROTOCOL_FRAGMENT: u8 = 44;
pub const PROTOCOL_DESTINATION_OPTIONS: u8 = 60;
pub const PROTOCOL_ICMPV6: u8 = 58;

/// A MAC as three words, so that it is loaded and stored without going byte by byte.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mac(pub [u16; 3]);

impl Mac {
    #[inline(always)]
    pub const fn from_bytes(b: [u8; 6]) -> Self {
        Self([
            u16::from_ne_bytes([b[0], b[1]]),
            u16::from_ne_bytes([b[2], b[3]]),
            u16::from_ne_bytes([b[4], b[5]]),
        ])
    }

    #[inline(always)]
    pub const fn bytes(self) -> [u8; 6] {
        let [a, b, c] = [self.0[0].to_ne_bytes(), self.0[1].to_ne_bytes(), self.0[2].to_ne_bytes()];
        [a[0], a[1], b[0], b[1], c[0], c[1]]
    }

    #[inline(always)]
    pub const fn same(self, other: Self) -> bool {
        self.differs(other) == 0
    }

    /// Which bits differ, joined: 0 where both are the same.
    #[inline(always)]
    pub const fn differs(self, other: Self) -> u32 {
        ((self.0[0] ^ other.0[0]) | (self.0[1] ^ other.0[1]) | (self.0[2] ^ other.0[2])) as u32
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Ethernet {
    pub destination: Mac,
    pub source: Mac,
    pub ethertype_be: u16,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Vlan {
    pub tag_be: u16,
    pub ethertype_be: u16,
}

/// RFC 791.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Ipv4 {
    pub version_ihl: u8,
    pub tos: u8,
    pub total_length_be: u16,
    pub id_be: u16,
    pub fragment_be: u16,
    pub ttl: u8,
    pub protocol: u8,
    pub checksum: u16,
    pub source: u32,
    pub destination: u32,
}

/// More fragments, or an offset: everything in the field but "don't fragment" and the reserved bit.
pub const IPV4_FRAGMENT_MASK: u16 = 0x3fffu16.to_be();

pub const DONT_FRAGMENT: u16 = 0x4000u16.to_be();
/// Of an error that this node makes.
pub const ERROR_TTL: u8 = 64;

/// The offset alone, in units of eight bytes.
pub const IPV4_OFFSET_MASK: u16 = 0x1fffu16.to_be();

/// RFC 8200.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Ipv6 {
    pub version_class_flow_be: u32,
    pub payload_length_be: u16,
    pub next_header: u8,
    pub hop_limit: u8,
    pub source: [u32; 4],
    pub destination: [u32; 4],
}

/// What hop-by-hop, routing and destination options headers begin with (RFC 8200, 4.3 to 4.6).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Extension {
    pub next_header: u8,
    /// In units of eight bytes, the first not counted.
    pub length: u8,
    pub routing_type: u8,
    pub segments_left: u8,
}

/// RFC 8200, 4.5.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Ipv6Fragment {
    pub next_header: u8,
    pub reserved: u8,
    pub offset_be: u16,
    /// In halves: the header lies at any offset.
    pub id: [u16; 2],
}

/// The offset in units of eight bytes, and whether more follow.
pub const IPV6_OFFSET_MASK: u16 = 0xfff8u16.to_be();
pub const IPV6_MORE: u16 = 1u16.to_be();

/// The first words of TCP and UDP alike.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Ports {
    pub source_be: u16,
    pub destination_be: u16,
}

/// RFC 9293. Options are not looked at.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Tcp {
    pub ports: Ports,
    pub sequence_be: u32,
    pub acknowledgement_be: u32,
    pub data_offset: u8,
    pub flags: u8,
    pub window_be: u16,
    pub checksum: u16,
    pub urgent_be: u16,
}

pub const TCP_FIN: u8 = 0x01;
pub const TCP_SYN: u8 = 0x02;
pub const TCP_RST: u8 = 0x04;
pub const TCP_PSH: u8 = 0x08;
pub const TCP_ACK: u8 = 0x10;

/// RFC 768.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Udp {
    pub ports: Ports,
    pub length_be: u16,
    pub checksum: u16,
}

/// The start of ICMP (RFC 792) and ICMPv6 (RFC 4443) alike; an error's quoted packet follows.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Icmp {
    pub kind: u8,
    pub code: u8,
    pub checksum: u16,
    pub rest_be: u32,
}

pub const ICMP_UNREACHABLE: u8 = 3;
/// The code for "fragmentation needed" (RFC 1191, 4).
pub const ICMP_TOO_BIG: u8 = 4;
pub const ICMP_TIME_EXCEEDED: u8 = 11;
pub const ICMP_PARAMETER_PROBLEM: u8 = 12;
pub const ICMPV6_TOO_BIG: u8 = 2;
pub const ICMPV6_TIME_EXCEEDED: u8 = 3;
/// ICMPv6 errors are the types below 128 (RFC 4443, 2.1); these are the ones defined.
pub const ICMPV6_LAST_ERROR: u8 = 4;
pub const ND_SOLICITATION: u8 = 135;
pub const ND_ADVERTISEMENT: u8 = 136;

/// ARP for IPv4 over Ethernet (RFC 826). 16-bit words, since the addresses lie unaligned.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Arp {
    pub hardware_be: u16,
    pub protocol_be: u16,
    pub lengths_be: u16,
    pub operation_be: u16,
    pub sender_mac: Mac,
    pub sender: [u16; 2],
    pub target_mac: Mac,
    pub target: [u16; 2],
}

pub const ARP_REQUEST: u16 = 1u16.to_be();

impl Arp {
    /// Whether this is ARP for IPv4 over Ethernet, the only kind that names a VIP.
    #[inline(always)]
    pub const fn is_ipv4(&self) -> bool {
        self.hardware_be == 1u16.to_be()
            && self.protocol_be == ETHERTYPE_IPV4
            && self.lengths_be == 0x0604u16.to_be()
    }

    #[inline(always)]
    pub const fn word(half: [u16; 2]) -> u32 {
        // Both halves as they lie in memory, whichever the byte order.
        let [a, b] = [half[0].to_ne_bytes(), half[1].to_ne_bytes()];
        u32::from_ne_bytes([a[0], a[1], b[0], b[1]])
    }
}

const _: () = assert!(size_of::<Ethernet>() == 14);
const _: () = assert!(size_of::<Ipv4>() == 20);
const _: () = assert!(size_of::<Ipv6>() == 40);
const _: () = assert!(size_of::<Tcp>() == 20);
const _: () = assert!(size_of::<Udp>() == 8);
const _: () = assert!(size_of::<Ipv6Fragment>() == 8);
const _: () = assert!(size_of::<Arp>() == 28);
