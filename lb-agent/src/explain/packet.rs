//! A packet as a client would send it, and what the program made of it.

use std::net::{IpAddr, SocketAddr};

use crate::config::Protocol;
use crate::netlink::Mac;

/// Enough for every way that there is.
pub const TTL: u8 = 64;

const TCP: u8 = 6;
const UDP: u8 = 17;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;

/// The packet that is sent through the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    pub client: SocketAddr,
    pub to: SocketAddr,
    pub protocol: Protocol,
    /// It begins something.
    pub new: bool,
    pub source_mac: Mac,
    /// The interface's.
    pub mac: Mac,
    /// Another one each time: a SYN that comes twice counts as unanswered.
    pub sequence: u32,
}

impl Question {
    /// The frame. Its checksums behind the IP header are left out: nobody receives it.
    pub fn frame(&self) -> Vec<u8> {
        let body = self.body();
        let mut frame = [self.mac, self.source_mac].concat();
        let protocol = if self.protocol == Protocol::Tcp { TCP } else { UDP };
        // One that fits: there are headers alone.
        let length = |more: usize| ((body.len() + more) as u16).to_be_bytes();
        match (self.client.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                frame.extend([0x08, 0x00, 0x45, 0]);
                frame.extend(length(IPV4));
                frame.extend([0, 0, 0x40, 0, TTL, protocol, 0, 0]);
                frame.extend([from.octets(), to.octets()].concat());
                let sum = checksum(&frame[ETHERNET..]);
                frame[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&sum.to_be_bytes());
            }
            (from, to) => {
                let octets = |address: IpAddr| match address {
                    IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                    IpAddr::V6(v6) => v6.octets(),
                };
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend(length(0));
                frame.extend([protocol, TTL]);
                frame.extend([octets(from), octets(to)].concat());
            }
        }
        frame.extend(body);
        frame
    }

    fn body(&self) -> Vec<u8> {
        let mut body = [self.client.port().to_be_bytes(), self.to.port().to_be_bytes()].concat();
        if self.protocol == Protocol::Udp {
            body.extend([0, 8, 0, 0]);
            return body;
        }
        body.extend(self.sequence.to_be_bytes());
        let (acknowledged, flags) = if self.new { (0, SYN) } else { (1u32, ACK) };
        body.extend(acknowledged.to_be_bytes());
        body.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        body
    }
}

/// The header's checksum (RFC 1071).
fn checksum(header: &[u8]) -> u16 {
    let words =
        header.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Where a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub mac: Mac,
    pub source_mac: Mac,
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

/// Reads a frame as [`Question::frame`] builds it, whatever its addresses are by now.
pub fn seen(frame: &[u8]) -> Option<Seen> {
    let mac = |at: usize| frame.get(at..at + 6)?.try_into().ok();
    let v4 = match frame.get(12..14)? {
        [0x08, 0x00] => true,
        [0x86, 0xdd] => false,
        _ => return None,
    };
    let address = |at: usize| -> Option<IpAddr> {
        if v4 {
            Some(IpAddr::from(<[u8; 4]>::try_from(frame.get(at..at + 4)?).ok()?))
        } else {
            Some(IpAddr::from(<[u8; 16]>::try_from(frame.get(at..at + 16)?).ok()?))
        }
    };
    let (first, second, transport) = if v4 {
        (ETHERNET + 12, ETHERNET + 16, ETHERNET + IPV4)
    } else {
        (ETHERNET + 8, ETHERNET + 24, ETHERNET + IPV6)
    };
    let port = |at: usize| Some(u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?));
    Some(Seen {
        mac: mac(0)?,
        source_mac: mac(6)?,
        source: SocketAddr::new(address(first)?, port(transport)?),
        destination: SocketAddr::new(address(second)?, port(transport + 2)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_of_either_family_and_protocol_is_whole_and_says_where_it_goes() {
        for (client, to, protocol, length) in [
            ("192.0.2.7:5000", "192.0.2.100:80", Protocol::Tcp, 54),
            ("[2001:db8::7]:5000", "[2001:db8::100]:80", Protocol::Tcp, 74),
            ("192.0.2.7:5000", "192.0.2.100:80", Protocol::Udp, 42),
            ("[2001:db8::7]:5000", "[2001:db8::100]:80", Protocol::Udp, 62),
        ] {
            let question = Question {
                client: client.parse().unwrap(),
                to: to.parse().unwrap(),
                protocol,
                new: true,
                source_mac: [2, 0, 0, 0, 0, 7],
                mac: [2, 0, 0, 0, 0, 1],
                sequence: 9,
            };
            let frame = question.frame();
            let read = seen(&frame).unwrap();
            assert_eq!(frame.len(), length, "{client}");
            assert_eq!((read.mac, read.source_mac), (question.mac, question.source_mac));
            assert_eq!((read.source, read.destination), (question.client, question.to));
            assert_eq!(seen(&frame[..length - 18]), None, "{client}: cut");
        }
    }

    #[test]
    fn the_header_has_the_sum_that_the_kernel_would_give_it() {
        let header = [0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 7, 192, 0, 2, 100];
        assert_eq!(checksum(&header), 0xb664);
    }
}
