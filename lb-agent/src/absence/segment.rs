//! A segment of TCP, as a packet of IP. Pure.

use std::net::{IpAddr, SocketAddr};

use pnet::packet::ip::IpNextHeaderProtocols::Tcp;
use pnet::packet::ipv4::{self, Ipv4Flags, MutableIpv4Packet};
use pnet::packet::ipv6::MutableIpv6Packet;
use pnet::packet::tcp::{self, MutableTcpPacket};

const TCP_BYTES: usize = 20;
const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;

/// A segment without options. Both ends are of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub sequence: u32,
    pub acknowledgement: u32,
    /// As in [`TcpFlags`](pnet::packet::tcp::TcpFlags).
    pub flags: u8,
    /// It carries a byte of no meaning.
    pub has_byte: bool,
    /// TTL or hop limit.
    pub ttl: u8,
}

impl Segment {
    /// As it goes over the wire, from the header of IP on; nothing where the ends are of two families.
    pub fn packet(&self) -> Option<Vec<u8>> {
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut bytes = vec![0; IPV4_BYTES + self.length()];
                let mut segment = self.tcp(&mut bytes[IPV4_BYTES..])?;
                let sum = tcp::ipv4_checksum(&segment.to_immutable(), &source, &destination);
                segment.set_checksum(sum);
                let mut packet = MutableIpv4Packet::new(&mut bytes)?;
                packet.set_version(4);
                packet.set_header_length(5);
                packet.set_total_length((IPV4_BYTES + self.length()) as u16);
                packet.set_flags(Ipv4Flags::DontFragment);
                packet.set_ttl(self.ttl);
                packet.set_next_level_protocol(Tcp);
                packet.set_source(source);
                packet.set_destination(destination);
                let sum = ipv4::checksum(&packet.to_immutable());
                packet.set_checksum(sum);
                Some(bytes)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut bytes = vec![0; IPV6_BYTES + self.length()];
                let mut segment = self.tcp(&mut bytes[IPV6_BYTES..])?;
                let sum = tcp::ipv6_checksum(&segment.to_immutable(), &source, &destination);
                segment.set_checksum(sum);
                let mut packet = MutableIpv6Packet::new(&mut bytes)?;
                packet.set_version(6);
                packet.set_payload_length(self.length() as u16);
                packet.set_next_header(Tcp);
                packet.set_hop_limit(self.ttl);
                packet.set_source(source);
                packet.set_destination(destination);
                Some(bytes)
            }
            _ => None,
        }
    }

    /// Bytes from the header of TCP on.
    const fn length(&self) -> usize {
        TCP_BYTES + self.has_byte as usize
    }

    /// All of it, but for its checksum.
    fn tcp<'a>(&self, bytes: &'a mut [u8]) -> Option<MutableTcpPacket<'a>> {
        let mut segment = MutableTcpPacket::new(bytes)?;
        segment.set_source(self.source.port());
        segment.set_destination(self.destination.port());
        segment.set_sequence(self.sequence);
        segment.set_acknowledgement(self.acknowledgement);
        segment.set_data_offset((TCP_BYTES / 4) as u8);
        segment.set_flags(self.flags);
        segment.set_window(1024);
        Some(segment)
    }
}

#[cfg(test)]
mod tests {
    use pnet::packet::tcp::TcpFlags;

    use super::*;

    /// RFC 1071 over the whole, which is then zero.
    fn sum(words: impl IntoIterator<Item = u8>) -> u16 {
        let mut bytes: Vec<u8> = words.into_iter().collect();
        bytes.resize(bytes.len().next_multiple_of(2), 0);
        let sum: u32 = bytes.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        !((folded & 0xffff) + (folded >> 16)) as u16
    }

    fn segment(source: &str, destination: &str) -> Segment {
        Segment {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            sequence: 0x0102_0304,
            acknowledgement: 0xfffe_fdfc,
            flags: TcpFlags::ACK,
            has_byte: false,
            ttl: 1,
        }
    }

    #[test]
    fn a_packet_of_ipv4_is_one_that_receivers_take() {
        let bytes = segment("192.0.2.1:7", "198.51.100.9:8443").packet().unwrap();
        assert_eq!((bytes.len(), bytes[8], bytes[9]), (40, 1, 6));
        assert_eq!(sum(bytes[..20].iter().copied()), 0, "the header's checksum");
        let pseudo = bytes[12..20].iter().copied().chain([0, 6, 0, 20]);
        assert_eq!(sum(pseudo.chain(bytes[20..].iter().copied())), 0, "the segment's checksum");
        assert_eq!(bytes[20..24], [0, 7, 0x20, 0xfb]);
        assert_eq!(bytes[24..32], [1, 2, 3, 4, 0xff, 0xfe, 0xfd, 0xfc]);
        assert_eq!(bytes[33], 0x10, "ACK alone");
    }

    #[test]
    fn a_packet_of_ipv6_is_one_that_receivers_take() {
        let bytes = segment("[2001:db8::1]:7", "[2001:db8::9]:8443").packet().unwrap();
        assert_eq!((bytes.len(), bytes[6], bytes[7]), (60, 6, 1));
        let pseudo = bytes[8..40].iter().copied().chain([0, 0, 0, 20, 0, 0, 0, 6]);
        assert_eq!(sum(pseudo.chain(bytes[40..].iter().copied())), 0, "the segment's checksum");
    }

    #[test]
    fn a_byte_counts_in_lengths_and_checksums() {
        let v4 = Segment { has_byte: true, ..segment("192.0.2.1:7", "198.51.100.9:8443") };
        let bytes = v4.packet().unwrap();
        assert_eq!((bytes.len(), bytes[3]), (41, 41));
        let pseudo = bytes[12..20].iter().copied().chain([0, 6, 0, 21]);
        assert_eq!(sum(pseudo.chain(bytes[20..].iter().copied())), 0);
        let v6 = Segment { has_byte: true, ..segment("[2001:db8::1]:7", "[2001:db8::9]:8443") };
        let bytes = v6.packet().unwrap();
        assert_eq!((bytes.len(), bytes[5]), (61, 21));
        let pseudo = bytes[8..40].iter().copied().chain([0, 0, 0, 21, 0, 0, 0, 6]);
        assert_eq!(sum(pseudo.chain(bytes[40..].iter().copied())), 0);
    }

    #[test]
    fn there_is_none_between_families() {
        assert_eq!(segment("192.0.2.1:7", "[2001:db8::9]:8443").packet(), None);
    }
}
