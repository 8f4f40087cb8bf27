//! A frame as those read it who get it, and its checksums computed from nothing. Written apart from
//! the programs, which it is to judge. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMP: u8 = 1;
pub const ICMPV6: u8 = 58;

/// What a frame holds behind its link header.
#[derive(Clone, Copy, Debug)]
pub enum Content {
    /// ARP for IPv4 over Ethernet, its first byte here.
    Arp(usize),
    Ip(Ip),
    Other,
}

/// An IP header.
#[derive(Clone, Copy, Debug)]
pub struct Ip {
    /// Its first byte.
    pub at: usize,
    /// The first byte behind it and IPv6's extension headers.
    pub transport: usize,
    /// The first byte behind the packet, by its length; the rest is the link's padding.
    pub end: usize,
    pub v4: bool,
    pub from: IpAddr,
    pub to: IpAddr,
    pub protocol: u8,
    pub ttl: u8,
    /// It is no fragment.
    pub whole: bool,
    /// It is a fragment other than the first, which alone has ports.
    pub follows: bool,
    /// A fragment's.
    pub identification: u32,
    /// The version is the one that the frame says, and the length holds the header.
    pub sound: bool,
}

/// The packet that a fragment is of.
pub type Piece = (IpAddr, IpAddr, u32, u8);

/// Who talks to whom.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Tuple {
    pub protocol: u8,
    pub from: SocketAddr,
    pub to: SocketAddr,
}

impl Tuple {
    pub const fn turned(self) -> Self {
        Self { protocol: self.protocol, from: self.to, to: self.from }
    }
}

pub fn word(frame: &[u8], at: usize) -> Option<u16> {
    frame.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

fn v4(frame: &[u8], at: usize) -> Option<IpAddr> {
    frame.get(at..)?.first_chunk::<4>().map(|bytes| Ipv4Addr::from(*bytes).into())
}

fn v6(frame: &[u8], at: usize) -> Option<IpAddr> {
    frame.get(at..)?.first_chunk::<16>().map(|bytes| Ipv6Addr::from(*bytes).into())
}

/// An address of ARP's or neighbour discovery's.
pub fn address(frame: &[u8], at: usize, family: u8) -> Option<IpAddr> {
    if family == 4 { v4(frame, at) } else { v6(frame, at) }
}

/// Reads a frame with up to two VLAN tags.
pub fn read(frame: &[u8]) -> Content {
    let mut at = 12;
    for _ in 0..2 {
        if matches!(word(frame, at), Some(0x8100 | 0x88a8)) {
            at += 4;
        }
    }
    let found = match word(frame, at) {
        Some(0x0800) => ipv4(frame, at + 2),
        Some(0x86dd) => ipv6(frame, at + 2),
        Some(0x0806) if frame.get(at + 2..at + 8) == Some(&[0, 1, 8, 0, 6, 4]) => {
            return if frame.len() < at + 30 { Content::Other } else { Content::Arp(at + 2) };
        }
        _ => None,
    };
    found.map_or(Content::Other, Content::Ip)
}

fn ipv4(frame: &[u8], at: usize) -> Option<Ip> {
    let first = *frame.get(at)?;
    let length = usize::from(first & 15) * 4;
    Some(Ip {
        at,
        transport: at + length,
        end: at + usize::from(word(frame, at + 2)?),
        v4: true,
        from: v4(frame, at + 12)?,
        to: v4(frame, at + 16)?,
        protocol: *frame.get(at + 9)?,
        ttl: *frame.get(at + 8)?,
        whole: word(frame, at + 6)? & 0x3fff == 0,
        follows: word(frame, at + 6)? & 0x1fff != 0,
        identification: word(frame, at + 4)?.into(),
        sound: first >> 4 == 4 && length >= 20,
    })
}

fn ipv6(frame: &[u8], at: usize) -> Option<Ip> {
    let mut ip = Ip {
        at,
        transport: at + 40,
        end: at + 40 + usize::from(word(frame, at + 4)?),
        v4: false,
        from: v6(frame, at + 8)?,
        to: v6(frame, at + 24)?,
        protocol: *frame.get(at + 6)?,
        ttl: *frame.get(at + 7)?,
        whole: true,
        follows: false,
        identification: 0,
        sound: *frame.get(at)? >> 4 == 6,
    };
    // Hop-by-hop, routing, fragment, destination options (RFC 8200, 4). More than that nobody sends.
    while !ip.follows && matches!(ip.protocol, 0 | 43 | 44 | 60) && ip.transport < at + 1024 {
        let header = frame.get(ip.transport..).and_then(<[u8]>::first_chunk::<8>);
        let Some([next, length, high, low, id @ ..]) = header.copied() else { break };
        let bytes = if ip.protocol == 44 { 8 } else { (usize::from(length) + 1) * 8 };
        if ip.protocol == 44 {
            let part = u16::from_be_bytes([high, low]) & 0xfff9;
            ip.whole &= part == 0;
            ip.follows = part > 1;
            ip.identification = u32::from_be_bytes(id);
        }
        ip.protocol = next;
        ip.transport += bytes;
    }
    Some(ip)
}

/// The header of the packet that an ICMP error quotes; nothing where this is none.
pub fn quoted(frame: &[u8], ip: &Ip) -> Option<Ip> {
    let kind = *frame.get(ip.transport)?;
    let at = ip.transport + 8;
    match ip.protocol {
        ICMP if ip.v4 && matches!(kind, 3 | 11 | 12) => ipv4(frame, at),
        ICMPV6 if !ip.v4 && matches!(kind, 1..=4) => ipv6(frame, at),
        _ => None,
    }
}

impl Ip {
    /// Where its TTL or hop limit is.
    pub const fn ttl_at(&self) -> usize {
        self.at + if self.v4 { 8 } else { 7 }
    }

    /// Where its two addresses are, one behind the other.
    pub const fn addresses(&self) -> std::ops::Range<usize> {
        if self.v4 { self.at + 12..self.at + 20 } else { self.at + 8..self.at + 40 }
    }

    /// Where the checksum of TCP or UDP is.
    pub const fn checksum_at(&self) -> Option<usize> {
        match self.protocol {
            _ if self.follows => None,
            TCP => Some(self.transport + 16),
            UDP => Some(self.transport + 6),
            _ => None,
        }
    }

    /// Which packet a fragment is of; IPv6 has no protocol in it.
    pub fn piece(&self) -> Piece {
        let protocol = if self.v4 { self.protocol } else { 0 };
        (self.from, self.to, self.identification, protocol)
    }

    /// Of TCP and UDP.
    pub fn tuple(&self, frame: &[u8]) -> Option<Tuple> {
        self.checksum_at()?;
        let port = |at| word(frame, at);
        Some(Tuple {
            protocol: self.protocol,
            from: SocketAddr::new(self.from, port(self.transport)?),
            to: SocketAddr::new(self.to, port(self.transport + 2)?),
        })
    }

    /// TCP's, UDP's or ICMP's part, where the frame holds all of it.
    fn body<'f>(&self, frame: &'f [u8]) -> Option<&'f [u8]> {
        let whole = self.sound && self.whole;
        frame.get(self.transport..self.end).filter(|_| whole)
    }

    /// RFC 9293, 3.1 and RFC 8200, 8.1: the sum of what a transport's checksum covers besides it.
    fn pseudo_header(&self, frame: &[u8], length: usize) -> u32 {
        let addresses = frame.get(self.addresses()).unwrap_or_default();
        fold(sum(addresses) + length as u32 + u32::from(self.protocol))
    }
}

/// The sum of 16-bit words (RFC 1071), an odd byte at the end as if a zero followed.
pub fn sum(bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<2>();
    let words = words.iter().map(|word| u32::from(u16::from_be_bytes(*word)));
    let rest = rest.first().map_or(0, |byte| u32::from(*byte) << 8);
    fold(words.fold(0, |sum, word| fold(sum + word)) + rest)
}

fn fold(mut sum: u32) -> u32 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

/// Says what is wrong with the checksums of a frame: IPv4's, and those of TCP, UDP, ICMP where the
/// whole packet is in it.
///
/// # Errors
/// At the first wrong one.
pub fn verify(frame: &[u8]) -> Result<(), String> {
    let Content::Ip(ip) = read(frame) else { return Ok(()) };
    if ip.v4 && ip.sound {
        let header = frame.get(ip.at..ip.transport).unwrap_or_default();
        if sum(header) != 0xffff {
            return Err("the IPv4 checksum is wrong".to_owned());
        }
    }
    let Some(body) = ip.body(frame) else { return Ok(()) };
    let covered = match ip.protocol {
        UDP if word(body, 6) == Some(0) => return Ok(()),
        // UDP has a length of its own, and sums only so much.
        UDP => match word(body, 4).and_then(|length| body.get(..usize::from(length))) {
            Some(datagram) if datagram.len() >= 8 => datagram,
            _ => return Ok(()),
        },
        TCP if body.len() >= 20 => body,
        ICMP if ip.v4 && body.len() >= 8 => {
            let right = sum(body) == 0xffff;
            return right.then_some(()).ok_or_else(|| "the ICMP checksum is wrong".to_owned());
        }
        ICMPV6 if !ip.v4 && body.len() >= 8 => body,
        _ => return Ok(()),
    };
    if fold(ip.pseudo_header(frame, covered.len()) + sum(covered)) == 0xffff {
        return Ok(());
    }
    Err(format!("the checksum of protocol {} is wrong", ip.protocol))
}

/// Sets every checksum right that [`verify`] looks at, which chance hardly does.
pub fn repair(frame: &mut [u8]) {
    let Content::Ip(ip) = read(frame) else { return };
    if ip.v4 && ip.sound && ip.transport <= frame.len() {
        set(frame, ip.at + 10, 0);
        let right = !sum(&frame[ip.at..ip.transport]) as u16;
        set(frame, ip.at + 10, right);
    }
    let Some(length) = ip.body(frame).map(<[u8]>::len) else { return };
    let (at, covered) = match ip.protocol {
        TCP if length >= 20 => (16, length),
        UDP if length >= 8 => {
            let own = word(frame, ip.transport + 4).map_or(0, usize::from);
            if !(8..=length).contains(&own) {
                return;
            }
            (6, own)
        }
        ICMP | ICMPV6 if length >= 8 => (2, length),
        _ => return,
    };
    set(frame, ip.transport + at, 0);
    let body = sum(&frame[ip.transport..ip.transport + covered]);
    let pseudo = if ip.protocol == ICMP { 0 } else { ip.pseudo_header(frame, covered) };
    let right = !fold(body + pseudo) as u16;
    // Zero says that there is none (RFC 768).
    let right = if ip.protocol == UDP && right == 0 { 0xffff } else { right };
    set(frame, ip.transport + at, right);
}

/// The frame with one of the two forms that a sum of zero has: to a receiver they are the same.
pub fn normal(frame: &[u8]) -> Vec<u8> {
    let mut normal = frame.to_vec();
    let Content::Ip(ip) = read(frame) else { return normal };
    let header = ip.v4.then_some(ip.at + 10);
    for at in header.into_iter().chain(ip.checksum_at()) {
        if word(frame, at) == Some(0xffff) {
            set(&mut normal, at, 0);
        }
    }
    normal
}

fn set(frame: &mut [u8], at: usize, value: u16) {
    frame[at..at + 2].copy_from_slice(&value.to_be_bytes());
}
