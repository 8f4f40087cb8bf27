//! The wire format against packets of a real keepalived, against every mutation that is to be
//! refused, and as properties. Here is what they share, among it a checksum that was written apart
//! from the tested one.

mod built;
mod captured;
mod properties;
mod refused;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::*;

/// The ends of the captured packets.
const NODE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 139, 133));
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 139, 134));
const GROUP: IpAddr = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 18));
const NODE_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0x4838, 0x18ff, 0xfe37, 0x1002));
const GROUP_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12));

fn parse_between(
    ends: (IpAddr, IpAddr),
    payload: &[u8],
) -> Result<(Version, Advertisement), ParseError> {
    parse(&Envelope { source: ends.0, destination: ends.1, ttl: 255 }, payload)
}

/// RFC 1071 by the letter: 16-bit words, the carry added at each of them.
fn reference(message: &[u8], pseudo_header: Option<(IpAddr, IpAddr)>) -> u16 {
    let mut bytes = message.to_vec();
    if let Some((source, destination)) = pseudo_header {
        for end in [source, destination] {
            match end {
                IpAddr::V4(address) => bytes.extend(address.octets()),
                IpAddr::V6(address) => bytes.extend(address.octets()),
            }
        }
        bytes.extend([0, 112]);
        bytes.extend((message.len() as u16).to_be_bytes());
    }
    let mut sum = 0u16;
    for word in bytes.chunks(2) {
        let (added, carry) =
            sum.overflowing_add(u16::from_be_bytes([word[0], *word.get(1).unwrap_or(&0)]));
        sum = added + u16::from(carry);
    }
    !sum
}

/// Makes the checksum right again.
fn repair(message: &mut [u8], pseudo_header: Option<(IpAddr, IpAddr)>) {
    message[6..8].fill(0);
    let checksum = reference(message, pseudo_header);
    message[6..8].copy_from_slice(&checksum.to_be_bytes());
}
