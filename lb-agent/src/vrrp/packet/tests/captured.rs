//! Packets that keepalived 2.2.7 (Debian 12) sent, as tcpdump saw them behind the IP header, and
//! what they say. They are facts: where one disagrees with the code, the code is wrong.

use super::*;

/// Version 2, VRID 51, every 2 s, 192.168.139.150, password `K8SHA_KA_AUTH`.
pub(super) const V2_PRIORITY_100: [u8; 20] = [
    0x21, 0x33, 0x64, 0x01, 0x01, 0x02, 0x02, 0x69, 0xc0, 0xa8, 0x8b, 0x96, 0x4b, 0x38, 0x53, 0x48,
    0x41, 0x5f, 0x4b, 0x41,
];
pub(super) const V2_PRIORITY_90: [u8; 20] = [
    0x21, 0x33, 0x5a, 0x01, 0x01, 0x02, 0x0c, 0x69, 0xc0, 0xa8, 0x8b, 0x96, 0x4b, 0x38, 0x53, 0x48,
    0x41, 0x5f, 0x4b, 0x41,
];
/// The same router, ended.
pub(super) const V2_PRIORITY_0: [u8; 20] = [
    0x21, 0x33, 0x00, 0x01, 0x01, 0x02, 0x66, 0x69, 0xc0, 0xa8, 0x8b, 0x96, 0x4b, 0x38, 0x53, 0x48,
    0x41, 0x5f, 0x4b, 0x41,
];
/// Without a password.
pub(super) const V2_WITHOUT_PASSWORD: [u8; 20] = [
    0x21, 0x33, 0x64, 0x01, 0x00, 0x02, 0x2e, 0x8a, 0xc0, 0xa8, 0x8b, 0x96, 0, 0, 0, 0, 0, 0, 0, 0,
];
/// Version 3, to the group.
pub(super) const V3_PRIORITY_100: [u8; 12] =
    [0x31, 0x33, 0x64, 0x01, 0x00, 0xc8, 0xf1, 0x06, 0xc0, 0xa8, 0x8b, 0x96];
pub(super) const V3_PRIORITY_0: [u8; 12] =
    [0x31, 0x33, 0x00, 0x01, 0x00, 0xc8, 0x55, 0x07, 0xc0, 0xa8, 0x8b, 0x96];
/// To a unicast peer.
pub(super) const V3_UNICAST: [u8; 12] =
    [0x31, 0x33, 0x64, 0x01, 0x00, 0xc8, 0x84, 0xea, 0xc0, 0xa8, 0x8b, 0x96];
/// Every 0.5 s, fe80::150 and 2001:db8::150.
pub(super) const V3_IPV6: [u8; 40] = [
    0x31, 0x33, 0x64, 0x02, 0x00, 0x32, 0xce, 0x1e, 0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0x01, 0x50, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x01, 0x50,
];
pub(super) const V3_IPV6_PRIORITY_0: [u8; 40] = [
    0x31, 0x33, 0x00, 0x02, 0x00, 0x32, 0x32, 0x1f, 0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0x01, 0x50, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x01, 0x50,
];

pub(super) fn said(priority: u8, authentication: Authentication) -> Advertisement {
    Advertisement {
        router_id: RouterId::new(51).expect("51 is not 0"),
        priority: Priority(priority),
        interval: Duration::from_secs(2),
        addresses: vec![[192, 168, 139, 150].into()],
        authentication,
    }
}

fn said_over_ipv6(priority: u8) -> Advertisement {
    let addresses = ["fe80::150", "2001:db8::150"].map(|a| a.parse().expect("an address"));
    Advertisement {
        interval: Duration::from_millis(500),
        addresses: addresses.to_vec(),
        ..said(priority, Authentication::None)
    }
}

/// Read, the bytes say it; written, it is the bytes.
fn agree(version: Version, ends: (IpAddr, IpAddr), said: &Advertisement, bytes: &[u8]) {
    assert_eq!(parse_between(ends, bytes), Ok((version, said.clone())));
    let built = said.build(version, ends.0, ends.1, Checksum::PseudoHeader);
    assert_eq!(built.as_deref(), Ok(bytes));
}

#[test]
fn version_2_with_a_password_is_as_keepalived_sends_it() {
    let password = Authentication::password("K8SHA_KA_AUTH");
    let packets = [(100, V2_PRIORITY_100), (90, V2_PRIORITY_90), (0, V2_PRIORITY_0)];
    for (priority, bytes) in packets {
        agree(Version::V2, (NODE, GROUP), &said(priority, password), &bytes);
    }
}

#[test]
fn version_2_without_a_password_has_its_trailer_nevertheless() {
    let said = said(100, Authentication::None);
    agree(Version::V2, (NODE, GROUP), &said, &V2_WITHOUT_PASSWORD);
}

#[test]
fn version_3_is_as_keepalived_sends_it_with_the_real_destination_in_the_pseudo_header() {
    let said = |priority| said(priority, Authentication::None);
    agree(Version::V3, (NODE, GROUP), &said(100), &V3_PRIORITY_100);
    agree(Version::V3, (NODE, GROUP), &said(0), &V3_PRIORITY_0);
    agree(Version::V3, (NODE, PEER), &said(100), &V3_UNICAST);
}

#[test]
fn version_3_over_ipv6_is_as_keepalived_sends_it() {
    agree(Version::V3, (NODE_V6, GROUP_V6), &said_over_ipv6(100), &V3_IPV6);
    agree(Version::V3, (NODE_V6, GROUP_V6), &said_over_ipv6(0), &V3_IPV6_PRIORITY_0);
}

#[test]
fn version_3_over_ipv4_is_heard_with_the_checksum_of_the_rfc_as_well() {
    let said = said(100, Authentication::None);
    let plain = said.build(Version::V3, NODE, GROUP, Checksum::Plain).expect("it fits");
    let mut expected = V3_PRIORITY_100;
    repair(&mut expected, None);
    assert_eq!(plain, expected);
    assert_ne!(plain, V3_PRIORITY_100);
    assert_eq!(parse_between((NODE, GROUP), &plain), Ok((Version::V3, said)));
}
