//! For any advertisement, and for any bytes.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn ends() -> impl Strategy<Value = (IpAddr, IpAddr)> {
    prop_oneof![
        any::<([u8; 4], [u8; 4])>().prop_map(|(a, b)| (a.into(), b.into())),
        any::<([u8; 16], [u8; 16])>().prop_map(|(a, b)| (a.into(), b.into())),
    ]
}

fn checksums() -> impl Strategy<Value = Checksum> {
    prop_oneof![Just(Checksum::Plain), Just(Checksum::PseudoHeader)]
}

fn authentications() -> impl Strategy<Value = Authentication> {
    prop_oneof![Just(Authentication::None), any::<[u8; 8]>().prop_map(Authentication::Password),]
}

fn ipv4_addresses() -> impl Strategy<Value = Vec<IpAddr>> {
    vec(any::<[u8; 4]>().prop_map(IpAddr::from), 1..=255)
}

fn ipv6_addresses() -> impl Strategy<Value = Vec<IpAddr>> {
    vec(any::<[u8; 16]>().prop_map(IpAddr::from), 1..=255)
}

prop_compose! {
    /// What either version can say, but for interval and password.
    fn advertisements(addresses: impl Strategy<Value = Vec<IpAddr>>)(
        number in 1..=255u8, priority: u8, addresses in addresses
    ) -> Advertisement {
        Advertisement {
            router_id: RouterId::new(number).expect("it begins with 1"),
            priority: Priority(priority),
            interval: Duration::ZERO,
            addresses,
            authentication: Authentication::None,
        }
    }
}

/// The bytes as they would have been sent: with nothing in what is ignored, and the checksum of
/// the same kind.
fn canonical(bytes: &[u8], pseudo_header: Option<(IpAddr, IpAddr)>) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let length = bytes.len();
    match (bytes[0] >> 4, bytes[4]) {
        (2, 0) => bytes[length - 8..].fill(0),
        (3, _) => bytes[4] &= 0x0f,
        _ => {}
    }
    repair(&mut bytes, pseudo_header);
    bytes
}

/// If bytes are heard at all, what they said is sent as the same bytes. Whether they were heard.
fn goes_there_and_back(bytes: &[u8], ends: (IpAddr, IpAddr)) -> bool {
    let Ok((version, heard)) = parse_between(ends, bytes) else { return false };
    let plain = ends.0.is_ipv4() && reference(bytes, None) == 0;
    let (checksum, pseudo_header) =
        if plain { (Checksum::Plain, None) } else { (Checksum::PseudoHeader, Some(ends)) };
    let sent = heard.build(version, ends.0, ends.1, checksum);
    assert_eq!(sent, Ok(canonical(bytes, pseudo_header)));
    true
}

proptest! {
    #[test]
    fn what_version_2_sends_is_heard(
        said in advertisements(ipv4_addresses()),
        seconds in 1..=255u64,
        authentication in authentications(),
        checksum in checksums(),
        (source, destination) in any::<([u8; 4], [u8; 4])>(),
    ) {
        let said = Advertisement { interval: Duration::from_secs(seconds), authentication, ..said };
        let ends = (source.into(), destination.into());
        let sent = said.build(Version::V2, ends.0, ends.1, checksum).expect("it fits");
        prop_assert_eq!(parse_between(ends, &sent), Ok((Version::V2, said)));
    }

    #[test]
    fn what_version_3_sends_over_ipv4_is_heard(
        said in advertisements(ipv4_addresses()),
        centiseconds in 1..=4095u64,
        checksum in checksums(),
        (source, destination) in any::<([u8; 4], [u8; 4])>(),
    ) {
        let said = Advertisement { interval: Duration::from_millis(10 * centiseconds), ..said };
        let ends = (source.into(), destination.into());
        let sent = said.build(Version::V3, ends.0, ends.1, checksum).expect("it fits");
        prop_assert_eq!(parse_between(ends, &sent), Ok((Version::V3, said)));
    }

    #[test]
    fn what_version_3_sends_over_ipv6_is_heard(
        said in advertisements(ipv6_addresses()),
        centiseconds in 1..=4095u64,
        checksum in checksums(),
        (source, destination) in any::<([u8; 16], [u8; 16])>(),
    ) {
        let said = Advertisement { interval: Duration::from_millis(10 * centiseconds), ..said };
        let ends = (source.into(), destination.into());
        let sent = said.build(Version::V3, ends.0, ends.1, checksum).expect("it fits");
        prop_assert_eq!(parse_between(ends, &sent), Ok((Version::V3, said)));
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in vec(any::<u8>(), 0..=300), ends in ends()) {
        goes_there_and_back(&bytes, ends);
    }

    /// Any bytes whose first, count, length and checksum are right: most of them are heard.
    #[test]
    fn what_is_heard_is_sent_as_the_same_bytes(
        mut bytes in vec(any::<u8>(), 24..=300),
        ends in ends(),
        version in 2..=3u8,
        plain: bool,
    ) {
        let (version, address, trailer) = match (ends.0, version) {
            (IpAddr::V4(_), 2) => (2, 4, 8),
            (IpAddr::V4(_), _) => (3, 4, 0),
            (IpAddr::V6(_), _) => (3, 16, 0),
        };
        let count = (bytes.len() - 8 - trailer) / address;
        bytes.truncate(8 + count * address + trailer);
        bytes[0] = version << 4 | 1;
        bytes[3] = count as u8;
        if version == 2 {
            bytes[4] &= 1;
        }
        let plain = version == 2 || plain && ends.0.is_ipv4();
        repair(&mut bytes, (!plain).then_some(ends));
        let interval = if version == 2 { bytes[5].into() } else {
            u16::from_be_bytes([bytes[4], bytes[5]]) & 0x0fff
        };
        let sound = bytes[1] != 0 && interval != 0;
        prop_assert_eq!(goes_there_and_back(&bytes, ends), sound);
    }
}
