//! What is ignored when heard, what is zero when sent, and what the wire cannot carry.

use super::captured::{V2_WITHOUT_PASSWORD, V3_PRIORITY_100, said};
use super::*;

fn build(said: &Advertisement, version: Version) -> Result<Vec<u8>, BuildError> {
    said.build(version, NODE, GROUP, Checksum::PseudoHeader)
}

#[test]
fn the_reserved_nibble_is_ignored_when_heard_and_zero_when_sent() {
    let mut bytes = V3_PRIORITY_100;
    bytes[4] |= 0xf0;
    repair(&mut bytes, Some((NODE, GROUP)));
    let (version, heard) = parse_between((NODE, GROUP), &bytes).expect("it is heard");
    assert_eq!(heard.interval, Duration::from_secs(2));
    assert_eq!(build(&heard, version).as_deref(), Ok(&V3_PRIORITY_100[..]));
}

#[test]
fn a_trailer_without_a_password_is_ignored_when_heard_and_zero_when_sent() {
    let mut bytes = V2_WITHOUT_PASSWORD;
    bytes[12..].fill(0xee);
    repair(&mut bytes, None);
    let (version, heard) = parse_between((NODE, GROUP), &bytes).expect("it is heard");
    assert_eq!(heard.authentication, Authentication::None);
    assert_eq!(build(&heard, version).as_deref(), Ok(&V2_WITHOUT_PASSWORD[..]));
}

#[test]
fn any_ttl_is_read() {
    for ttl in [0, 1, 254, 255] {
        let envelope = Envelope { source: NODE, destination: GROUP, ttl };
        assert!(parse(&envelope, &V3_PRIORITY_100).is_ok(), "ttl {ttl}");
    }
}

#[test]
fn a_password_is_cut_to_eight_bytes_and_padded_with_nul() {
    let cases = [
        ("K8SHA_KA_AUTH", *b"K8SHA_KA"),
        ("eight888", *b"eight888"),
        ("short", *b"short\0\0\0"),
        ("", [0; 8]),
        // The eighth byte is a half of the letter.
        ("sevenly\u{e9}", *b"sevenly\xc3"),
    ];
    for (text, bytes) in cases {
        assert_eq!(Authentication::password(text), Authentication::Password(bytes), "{text}");
    }
}

#[test]
fn a_password_is_not_debugged() {
    let said = said(100, Authentication::password("K8SHA_KA"));
    let text = format!("{said:?}");
    assert!(text.contains("Password(..)"), "{text}");
}

#[test]
fn intervals_that_the_wire_cannot_say_are_refused_and_never_rounded() {
    let ms = Duration::from_millis;
    let cases = [
        (Version::V2, ms(1000), true),
        (Version::V2, ms(255_000), true),
        (Version::V2, ms(0), false),
        (Version::V2, ms(999), false),
        (Version::V2, ms(1500), false),
        (Version::V2, ms(256_000), false),
        (Version::V3, ms(10), true),
        (Version::V3, ms(40_950), true),
        (Version::V3, ms(0), false),
        (Version::V3, ms(9), false),
        (Version::V3, ms(15), false),
        (Version::V3, ms(40_960), false),
        // 65536 seconds and one more, and so in centiseconds: what a cast would cut off.
        (Version::V2, ms(65_537_000), false),
        (Version::V3, ms(655_370), false),
        (Version::V3, Duration::MAX, false),
    ];
    for (version, interval, fits) in cases {
        let said = Advertisement { interval, ..said(100, Authentication::None) };
        let built = build(&said, version).map(drop);
        let expected = if fits { Ok(()) } else { Err(BuildError::Interval { version, interval }) };
        assert_eq!(built, expected);
    }
}

#[test]
fn one_to_255_addresses_are_sent() {
    let with = |count: usize| Advertisement {
        addresses: vec![[192, 0, 2, 1].into(); count],
        ..said(100, Authentication::None)
    };
    for version in [Version::V2, Version::V3] {
        assert_eq!(build(&with(0), version), Err(BuildError::NoAddresses));
        assert!(build(&with(1), version).is_ok());
        assert!(build(&with(255), version).is_ok());
        assert_eq!(build(&with(256), version), Err(BuildError::TooManyAddresses { count: 256 }));
    }
}

#[test]
fn addresses_and_ends_of_two_families_are_refused() {
    let mut said = said(100, Authentication::None);
    let ends = said.build(Version::V3, NODE, GROUP_V6, Checksum::Plain);
    assert_eq!(ends, Err(BuildError::FamiliesOfEnds { from: NODE, to: GROUP_V6 }));
    said.addresses.push(NODE_V6);
    let error = BuildError::FamilyOfAddress { address: NODE_V6, from: NODE };
    assert_eq!(build(&said, Version::V3), Err(error));
    said.addresses = vec![NODE_V6];
    let over_ipv6 = said.build(Version::V2, NODE_V6, GROUP_V6, Checksum::Plain);
    assert_eq!(over_ipv6, Err(BuildError::Version2OverIpv6 { from: NODE_V6 }));
}

#[test]
fn version_3_carries_no_password() {
    let said = said(100, Authentication::password("K8SHA_KA"));
    assert_eq!(build(&said, Version::V3), Err(BuildError::PasswordInVersion3));
}
