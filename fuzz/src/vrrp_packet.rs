//! Any bytes as a VRRP packet: reading them never panics, and what was read is written and read again
//! as the same.
//!
//! An input is a byte of choices, two addresses of 16 bytes each, and the packet.

#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_fuzz::vrrp::identity::Version;
use lb_fuzz::vrrp::packet::{Checksum, Envelope, PROTOCOL, parse};
use libfuzzer_sys::{Corpus, fuzz_target};

/// Bits of the first byte.
const SOURCE_V6: u8 = 1;
const DESTINATION_V6: u8 = 2;
/// Sets the checksum right, which chance hardly does: over the message alone, or ...
const REPAIR: u8 = 4;
/// ... with the pseudo-header.
const REPAIR_WITH_PSEUDO_HEADER: u8 = 8;

fuzz_target!(|input: &[u8]| -> Corpus {
    let Some(([choices], rest)) = input.split_first_chunk() else { return Corpus::Reject };
    let Some((source, rest)) = rest.split_first_chunk() else { return Corpus::Reject };
    let Some((destination, payload)) = rest.split_first_chunk() else { return Corpus::Reject };
    let envelope = Envelope {
        source: address(*source, choices & SOURCE_V6 != 0),
        destination: address(*destination, choices & DESTINATION_V6 != 0),
        ttl: 255,
    };
    let mut payload = payload.to_vec();
    if choices & (REPAIR | REPAIR_WITH_PSEUDO_HEADER) != 0 {
        repair(&mut payload, &envelope, choices & REPAIR_WITH_PSEUDO_HEADER != 0);
    }
    let Ok((version, said)) = parse(&envelope, &payload) else { return Corpus::Keep };
    for checksum in [Checksum::Plain, Checksum::PseudoHeader] {
        let Envelope { source, destination, .. } = envelope;
        let built = said.build(version, source, destination, checksum);
        let built = built.expect("what a packet says can be said in a packet");
        assert_eq!(parse(&envelope, &built), Ok((version, said.clone())));
        if version == Version::V2 {
            assert_eq!(built.len(), payload.len());
        }
    }
    Corpus::Keep
});

fn address(bytes: [u8; 16], v6: bool) -> IpAddr {
    let [a, b, c, d, ..] = bytes;
    if v6 { Ipv6Addr::from(bytes).into() } else { Ipv4Addr::new(a, b, c, d).into() }
}

/// RFC 1071, written apart from what is fuzzed.
fn repair(payload: &mut [u8], envelope: &Envelope, pseudo_header: bool) {
    if payload.len() < 8 {
        return;
    }
    payload[6..8].fill(0);
    let mut bytes = payload.to_vec();
    if bytes.len() % 2 == 1 {
        bytes.push(0);
    }
    if pseudo_header {
        for end in [envelope.source, envelope.destination] {
            match end {
                IpAddr::V4(end) => bytes.extend(end.octets()),
                IpAddr::V6(end) => bytes.extend(end.octets()),
            }
        }
        bytes.extend([0, PROTOCOL]);
        bytes.extend((payload.len() as u16).to_be_bytes());
    }
    let words = bytes.chunks_exact(2).map(|word| u64::from(u16::from_be_bytes([word[0], word[1]])));
    let mut sum: u64 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    payload[6..8].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}
