//! VRRP's checksum, with and without a pseudo-header. Which of them a message has is for the
//! versions to say.

use std::net::IpAddr;

use lb_common::checksum::fold;

use super::PROTOCOL;

/// Where the checksum is in a message.
const FIELD: std::ops::Range<usize> = 6..8;

/// The checksum over the message alone; 0 if a right one is in it already. A word as it lies in the
/// packet, unswapped.
pub(super) fn plain(message: &[u8]) -> u16 {
    !fold(sum(message))
}

/// The checksum over the message and a pseudo-header; 0 if a right one is in it already.
///
/// ```text
///  IPv4 (RFC 9293, 3.1)                      IPv6 (RFC 8200, 8.1)
///  0 source   4 destination                  0 source   16 destination
///  8 0   9 protocol   10 length              32 length (32 bits)   36 0   39 next header
/// ```
///
/// They differ in where zeros are, which a sum does not see: a message is shorter than 65536 bytes.
pub(super) fn with_pseudo_header(message: &[u8], source: IpAddr, destination: IpAddr) -> u16 {
    let numbers = [(message.len() as u16).to_be(), u16::from(PROTOCOL).to_be()];
    let pseudo_header =
        address(source) + address(destination) + numbers.map(u64::from).iter().sum::<u64>();
    !fold(sum(message) + pseudo_header)
}

/// Writes a checksum into the message for which it was computed, whose field was 0.
pub(super) fn seal(message: &mut [u8], checksum: u16) {
    message[FIELD].copy_from_slice(&checksum.to_ne_bytes());
}

fn address(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(address) => sum(&address.octets()),
        IpAddr::V6(address) => sum(&address.octets()),
    }
}

/// The sum of the bytes' words; what is odd at the end counts as if a 0 followed.
fn sum(bytes: &[u8]) -> u64 {
    let (words, odd) = bytes.as_chunks::<2>();
    let last = odd.first().map_or(0, |&byte| u16::from_ne_bytes([byte, 0]));
    words.iter().map(|&word| u64::from(u16::from_ne_bytes(word))).sum::<u64>() + u64::from(last)
}
