//! Every reason for which a packet is refused, each by the least change of a packet that is heard.

use super::captured::{V2_PRIORITY_100, V2_WITHOUT_PASSWORD, V3_IPV6, V3_PRIORITY_100};
use super::*;

type Change = fn(&mut Vec<u8>);

/// The captured packet of that version, changed, with its checksum right again.
fn changed(version: Version, change: Change) -> Result<(Version, Advertisement), ParseError> {
    let (mut bytes, pseudo_header) = match version {
        Version::V2 => (V2_PRIORITY_100.to_vec(), None),
        Version::V3 => (V3_PRIORITY_100.to_vec(), Some((NODE, GROUP))),
    };
    change(&mut bytes);
    repair(&mut bytes, pseudo_header);
    parse_between((NODE, GROUP), &bytes)
}

#[test]
fn each_wrong_field_and_each_wrong_length_is_refused_by_its_name() {
    use ParseError::*;
    let (v2, v3) = (Version::V2, Version::V3);
    let cases: [(Version, Change, ParseError, &str); 15] = [
        (v2, |b| b[0] = 0x11, UnknownVersion(1), "unknown_version"),
        (v2, |b| b[0] = 0x41, UnknownVersion(4), "unknown_version"),
        (v3, |b| b[0] = 0x30, NotAdvertisement(0), "not_advertisement"),
        (v3, |b| b[0] = 0x32, NotAdvertisement(2), "not_advertisement"),
        (v2, |b| b.truncate(12), length(12, 20, 1), "length_mismatch"),
        (v2, |b| b[3] = 2, length(20, 24, 2), "length_mismatch"),
        (v3, |b| b.extend([0; 8]), length(20, 12, 1), "length_mismatch"),
        (v3, |b| b.truncate(11), length(11, 12, 1), "length_mismatch"),
        (v2, |b| b[1] = 0, RouterIdZero, "router_id_zero"),
        (v3, |b| b[1] = 0, RouterIdZero, "router_id_zero"),
        (v2, without_addresses, NoAddresses, "no_addresses"),
        (v3, without_addresses, NoAddresses, "no_addresses"),
        (v2, |b| b[4] = 2, UnknownAuthentication(2), "unknown_authentication"),
        (v2, |b| b[5] = 0, IntervalZero, "interval_zero"),
        (v3, |b| b[5] = 0, IntervalZero, "interval_zero"),
    ];
    for version in [v2, v3] {
        assert!(changed(version, |_| ()).is_ok());
    }
    for (version, change, error, name) in cases {
        assert_eq!(changed(version, change), Err(error), "version {version}");
        assert_eq!(error.name(), name);
    }
}

fn length(length: usize, expected: usize, count: u8) -> ParseError {
    ParseError::LengthMismatch { length, expected, count }
}

fn without_addresses(bytes: &mut Vec<u8>) {
    bytes[3] = 0;
    bytes.drain(8..12);
}

#[test]
fn fewer_bytes_than_a_header_are_truncated() {
    for length in 0..8 {
        let error = ParseError::Truncated { length };
        assert_eq!(parse_between((NODE, GROUP), &V2_PRIORITY_100[..length]), Err(error));
        assert_eq!(error.name(), "truncated");
    }
}

#[test]
fn a_packet_that_ends_early_is_refused_wherever_it_ends() {
    for length in 8..V2_PRIORITY_100.len() {
        let heard = parse_between((NODE, GROUP), &V2_PRIORITY_100[..length]);
        assert_eq!(heard, Err(self::length(length, 20, 1)));
    }
    for length in 8..V3_IPV6.len() {
        let heard = parse_between((NODE_V6, GROUP_V6), &V3_IPV6[..length]);
        assert_eq!(heard, Err(self::length(length, 40, 2)));
    }
}

#[test]
fn any_flipped_bit_makes_a_packet_wrong() {
    let packets: [(&[u8], (IpAddr, IpAddr)); 3] = [
        (&V2_PRIORITY_100, (NODE, GROUP)),
        (&V3_PRIORITY_100, (NODE, GROUP)),
        (&V3_IPV6, (NODE_V6, GROUP_V6)),
    ];
    for (packet, ends) in packets {
        for bit in 0..packet.len() * 8 {
            let mut bytes = packet.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(parse_between(ends, &bytes).is_err(), "bit {bit}");
        }
    }
    let mut bytes = V2_PRIORITY_100;
    bytes[7] ^= 1;
    let error = ParseError::ChecksumWrong(0x0268);
    assert_eq!(parse_between((NODE, GROUP), &bytes), Err(error));
    assert_eq!(error.name(), "checksum_wrong");
    assert_eq!(error.to_string(), "checksum 0x0268 is wrong");
}

#[test]
fn a_damaged_packet_counts_as_damaged_whatever_else_is_wrong() {
    let mut bytes = V2_WITHOUT_PASSWORD;
    (bytes[1], bytes[4], bytes[5]) = (0, 9, 0);
    assert_eq!(parse_between((NODE, GROUP), &bytes), Err(ParseError::ChecksumWrong(0x2e8a)));
}

#[test]
fn version_2_takes_no_pseudo_header() {
    let mut bytes = V2_PRIORITY_100;
    repair(&mut bytes, Some((NODE, GROUP)));
    let heard = parse_between((NODE, GROUP), &bytes);
    assert!(matches!(heard, Err(ParseError::ChecksumWrong(_))), "{heard:?}");
}

#[test]
fn ipv6_takes_no_checksum_without_a_pseudo_header() {
    let mut bytes = V3_IPV6;
    repair(&mut bytes, None);
    let heard = parse_between((NODE_V6, GROUP_V6), &bytes);
    assert!(matches!(heard, Err(ParseError::ChecksumWrong(_))), "{heard:?}");
}

#[test]
fn a_pseudo_header_of_another_destination_is_refused() {
    let heard = parse_between((NODE, PEER), &V3_PRIORITY_100);
    assert_eq!(heard, Err(ParseError::ChecksumWrong(0xf106)));
}

#[test]
fn version_2_over_ipv6_and_ends_of_two_families_do_not_fit() {
    let (v2, v3): (&[u8], &[u8]) = (&V2_PRIORITY_100, &V3_PRIORITY_100);
    let cases = [
        (Version::V2, v2, NODE_V6, GROUP_V6),
        (Version::V2, v2, NODE, GROUP_V6),
        (Version::V3, v3, NODE_V6, GROUP),
    ];
    for (version, bytes, from, to) in cases {
        let error = ParseError::FamilyMismatch { version, from, to };
        assert_eq!(parse_between((from, to), bytes), Err(error));
        assert_eq!(error.name(), "family_mismatch");
    }
}

#[test]
fn a_packet_of_the_other_family_has_the_wrong_length() {
    let heard = parse_between((NODE_V6, GROUP_V6), &V3_PRIORITY_100);
    assert_eq!(heard, Err(length(12, 24, 1)));
}
