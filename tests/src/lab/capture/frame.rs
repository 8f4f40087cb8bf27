//! One recorded frame and what a scenario asks of it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};

use crate::lab::Mac;

/// Seen from the host at the end of the link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    ToHost,
    FromHost,
}

#[derive(Clone, Debug)]
pub struct Frame {
    /// Since the Unix epoch, by the kernel's clock.
    pub at: Duration,
    pub direction: Direction,
    /// From the Ethernet header on.
    pub bytes: Vec<u8>,
}

/// An IP packet, unfragmented, with TCP or UDP in it.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub ttl: u8,
    /// It may be a flow's first: a SYN, or any datagram.
    pub opens: bool,
    pub rst: bool,
    /// Everything behind the IP header, the TCP or UDP header included.
    pub ip_payload: &'a [u8],
}

impl Frame {
    /// None for a frame too short to have one.
    pub fn destination_mac(&self) -> Option<Mac> {
        self.bytes.get(..6)?.try_into().ok()
    }

    pub fn source_mac(&self) -> Option<Mac> {
        self.bytes.get(6..12)?.try_into().ok()
    }

    /// The protocol of an IPv4 packet and the next header of an IPv6 one, untagged, with its version
    /// of IP.
    pub fn ip_protocol(&self) -> Option<(u8, u8)> {
        match self.bytes.get(12..14)? {
            [0x08, 0x00] => Some((4, *self.bytes.get(23)?)),
            [0x86, 0xdd] => Some((6, *self.bytes.get(20)?)),
            _ => None,
        }
    }

    /// None for what is neither TCP nor UDP over IP.
    pub fn packet(&self) -> Option<Packet<'_>> {
        let sliced = SlicedPacket::from_ethernet(&self.bytes).ok()?;
        let (source, destination, ttl, ip_payload) = match sliced.net.as_ref()? {
            NetSlice::Ipv4(ip) => {
                let header = ip.header();
                let source = IpAddr::V4(header.source_addr());
                let destination = IpAddr::V4(header.destination_addr());
                (source, destination, header.ttl(), ip.payload().payload)
            }
            NetSlice::Ipv6(ip) => {
                let header = ip.header();
                let source = IpAddr::V6(header.source_addr());
                let destination = IpAddr::V6(header.destination_addr());
                (source, destination, header.hop_limit(), ip.payload().payload)
            }
            NetSlice::Arp(_) => return None,
        };
        let (source_port, destination_port, opens, rst) = match sliced.transport.as_ref()? {
            TransportSlice::Tcp(tcp) => {
                (tcp.source_port(), tcp.destination_port(), tcp.syn() && !tcp.ack(), tcp.rst())
            }
            TransportSlice::Udp(udp) => (udp.source_port(), udp.destination_port(), true, false),
            _ => return None,
        };
        Some(Packet {
            source: SocketAddr::new(source, source_port),
            destination: SocketAddr::new(destination, destination_port),
            ttl,
            opens,
            rst,
            ip_payload,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;

    fn frame(bytes: Vec<u8>) -> Frame {
        Frame { at: Duration::ZERO, direction: Direction::ToHost, bytes }
    }

    #[test]
    fn a_tcp_segment_is_told_in_full() {
        let mut bytes = Vec::new();
        PacketBuilder::ethernet2([1; 6], [2; 6])
            .ipv4([192, 0, 2, 1], [192, 0, 2, 2], 61)
            .tcp(1000, 2000, 7, 100)
            .syn()
            .write(&mut bytes, b"hello")
            .unwrap();
        let frame = frame(bytes);
        let packet = frame.packet().unwrap();
        assert_eq!(packet.source, "192.0.2.1:1000".parse().unwrap());
        assert_eq!(packet.destination, "192.0.2.2:2000".parse().unwrap());
        assert!(packet.opens && !packet.rst && packet.ttl == 61);
        assert!(packet.ip_payload.ends_with(b"hello") && packet.ip_payload.len() == 25);
        assert_eq!(frame.destination_mac(), Some([2; 6]));
        assert_eq!(frame.source_mac(), Some([1; 6]));
    }

    #[test]
    fn the_protocol_is_told_for_both_families_and_for_nothing_else() {
        let mut four = Vec::new();
        PacketBuilder::ethernet2([1; 6], [2; 6])
            .ipv4([192, 0, 2, 1], [192, 0, 2, 2], 255)
            .udp(1, 2)
            .write(&mut four, b"")
            .unwrap();
        let mut six = Vec::new();
        PacketBuilder::ethernet2([1; 6], [2; 6])
            .ipv6([1; 16], [2; 16], 255)
            .udp(1, 2)
            .write(&mut six, b"")
            .unwrap();
        assert_eq!(frame(four.clone()).ip_protocol(), Some((4, 17)));
        assert_eq!(frame(six).ip_protocol(), Some((6, 17)));
        four[13] = 6;
        assert_eq!(frame(four).ip_protocol(), None);
    }

    #[test]
    fn a_truncated_frame_is_no_packet() {
        let mut bytes = Vec::new();
        PacketBuilder::ethernet2([1; 6], [2; 6])
            .ipv6([1; 16], [2; 16], 3)
            .udp(1, 2)
            .write(&mut bytes, b"x")
            .unwrap();
        for length in 0..bytes.len() - 1 {
            assert!(frame(bytes[..length].to_vec()).packet().is_none(), "{length} bytes");
        }
        assert!(frame(bytes).packet().is_some());
    }
}
