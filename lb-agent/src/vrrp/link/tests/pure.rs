//! Headers of IPv4, ends of a link, and errors: without sockets.

use std::io;

use proptest::prelude::*;

use super::lab::ip;
use crate::vrrp::link::ends::Ends;
use crate::vrrp::link::ipv4::read;
use crate::vrrp::link::place::Place;
use crate::vrrp::link::{Envelope, LinkError, Reach, Received};

/// A header of 20 bytes with TTL 254 and protocol 112, from 192.0.2.1 to 224.0.0.18.
const HEADER: [u8; 20] =
    [0x45, 0xc0, 0, 24, 0, 1, 0, 0, 254, 112, 0, 0, 192, 0, 2, 1, 224, 0, 0, 18];

fn envelope() -> Envelope {
    Envelope { source: ip("192.0.2.1"), destination: ip("224.0.0.18"), ttl: 254 }
}

#[test]
fn options_are_no_part_of_the_payload() {
    for words in 5..=15_u8 {
        let mut bytes = HEADER.to_vec();
        bytes[0] = 0x40 | words;
        bytes[3] = words * 4 + 4;
        bytes.resize(usize::from(words) * 4, 0x99);
        bytes.extend(b"vrrp");
        let expected = Received { envelope: envelope(), payload: b"vrrp".to_vec() };
        assert_eq!(read(&bytes), Some(expected), "{words} words");
        // Behind the end that the header gives is no payload either.
        bytes.extend(b"padding");
        assert_eq!(read(&bytes).unwrap().payload, b"vrrp");
    }
}

#[test]
fn a_header_that_is_none_is_not_read() {
    let of = |first: u8| [&[first], &HEADER[1..], b"vrrp"].concat();
    assert!(read(&of(0x45)).is_some());
    // Of less than 20 bytes, of more than there are, and of IPv6.
    for first in [0x40, 0x44, 0x47, 0x4f, 0x65] {
        assert_eq!(read(&of(first)), None, "{first:#x}");
    }
    for length in 0..HEADER.len() {
        assert_eq!(read(&HEADER[..length]), None, "{length} bytes");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic_and_nothing_is_made_up(
        first in 0x40..=0x4f_u8,
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        if let Some(byte) = bytes.first_mut() {
            *byte = first;
        }
        if let Some(received) = read(&bytes) {
            let header = usize::from(first & 0x0f) * 4;
            prop_assert!(bytes[header..].starts_with(&received.payload));
            prop_assert_eq!(received.envelope.ttl, bytes[8]);
        }
    }
}

#[test]
fn peers_of_the_other_family_are_refused() {
    let mixed = Reach::Unicast(vec![ip("192.0.2.2"), ip("2001:db8::2")]);
    let (v4, v6) = ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
    let from_v4 = Ends::v4(v4, &mixed).unwrap_err().to_string();
    assert!(from_v4.contains("from 192.0.2.1 to 2001:db8::2"), "{from_v4}");
    let from_v6 = Ends::v6(v6, &mixed).unwrap_err().to_string();
    assert!(from_v6.contains("from 2001:db8::1 to 192.0.2.2"), "{from_v6}");
}

#[test]
fn a_refusal_says_who_has_to_do_something() {
    let lo = nix::net::if_::if_nametoindex("lo").unwrap();
    let place = Place::find("lo", lo, ip("192.0.2.1")).unwrap();
    let refused = |errno| place.refused("open a raw socket", io::Error::from_raw_os_error(errno));
    let peer = ip("192.0.2.2");
    let not_sent = |errno| place.not_sent(peer, io::Error::from_raw_os_error(errno));
    use LinkError as E;
    for errno in [libc::EPERM, libc::EACCES] {
        let error = refused(errno);
        assert!(matches!(error, E::NotPermitted { .. }), "{error}");
        assert!(error.to_string().contains("CAP_NET_RAW"), "{error}");
    }
    assert!(matches!(refused(libc::ENOBUFS), E::Refused { operation: "open a raw socket", .. }));
    assert!(
        matches!(not_sent(libc::EPERM), E::Filtered { destination, .. } if destination == peer)
    );
    for errno in [libc::EACCES, libc::ENETUNREACH, libc::EMSGSIZE] {
        let error = not_sent(errno);
        assert!(matches!(&error, E::NotSent { .. }), "{error}");
        assert!(error.to_string().contains("from 192.0.2.1 on lo to 192.0.2.2"), "{error}");
    }
}
