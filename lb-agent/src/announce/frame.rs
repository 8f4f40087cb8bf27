//! The frames that speak about a VIP on its link, built and read. Pure bytes.
//!
//! ```text
//! ARP (RFC 826)                        neighbour discovery (RFC 4861, 4.3 and 4.4)
//!  0 destination   6 source             0 destination   6 source
//! 12 0806                              12 86dd
//! 14 0001 0800 06 04                   14 IPv6 header: length, 58, hop limit 255
//! 20 operation                         22 source  38 destination
//! 22 sender MAC   28 sender IP         54 type, code, checksum, flags  62 target
//! 32 target MAC   38 target IP         78 option: type, length in 8 bytes, MAC
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::netlink::Mac;

const BROADCAST: Mac = [0xff; 6];

pub(super) const ETHERTYPE_ARP: u16 = 0x0806;
pub(super) const ETHERTYPE_IPV6: u16 = 0x86dd;

const ARP_REQUEST: u16 = 1;
const ARP_REPLY: u16 = 2;

const ICMPV6: u8 = 58;
const ND_SOLICITATION: u8 = 135;
const ND_ADVERTISEMENT: u8 = 136;
/// The override flag of an advertisement (RFC 4861, 4.4).
const OVERRIDE: u8 = 0x20;
const OPTION_TARGET_MAC: u8 = 2;

/// ff02::1
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// The frames that announce a VIP once, from the interface with this MAC.
///
/// IPv4: a gratuitous request, as keepalived sends it, and a gratuitous reply; some stacks update
/// their cache only from the one, some only from the other (RFC 5227, 3). IPv6: an advertisement
/// to all nodes that overrides what they know (RFC 4861, 7.2.6).
pub fn announcements(vip: IpAddr, mac: Mac) -> Vec<Vec<u8>> {
    match vip {
        IpAddr::V4(vip) => {
            vec![arp(ARP_REQUEST, mac, vip, [0; 6], vip), arp(ARP_REPLY, mac, vip, BROADCAST, vip)]
        }
        IpAddr::V6(vip) => {
            let mut body = vec![ND_ADVERTISEMENT, 0, 0, 0, OVERRIDE, 0, 0, 0];
            body.extend(vip.octets());
            body.extend([OPTION_TARGET_MAC, 1]);
            body.extend(mac);
            vec![discovery(mac, vip, ALL_NODES, body)]
        }
    }
}

/// The frame that asks whether anybody has a VIP, without claiming it: an ARP probe (RFC 5227,
/// 2.1.1) or the solicitation of duplicate address detection (RFC 4862, 5.4.2).
pub fn probe(vip: IpAddr, mac: Mac) -> Vec<u8> {
    match vip {
        IpAddr::V4(vip) => arp(ARP_REQUEST, mac, Ipv4Addr::UNSPECIFIED, [0; 6], vip),
        IpAddr::V6(vip) => {
            let mut body = vec![ND_SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
            body.extend(vip.octets());
            discovery(mac, Ipv6Addr::UNSPECIFIED, solicited_node(vip), body)
        }
    }
}

/// The MAC that a received frame shows to claim the VIP, if it does and is not `own`.
///
/// Any ARP packet with the VIP as its sender counts, request or reply (RFC 5227, 2.1.1), and any
/// valid advertisement of it. Probes by others don't: two nodes that ask at the same time must not
/// refuse each other for ever.
pub(super) fn claimant(frame: &[u8], vip: IpAddr, own: Mac) -> Option<Mac> {
    let mac = match vip {
        IpAddr::V4(vip) => arp_claimant(frame, vip),
        IpAddr::V6(vip) => discovery_claimant(frame, vip),
    };
    mac.filter(|mac| *mac != own)
}

fn arp_claimant(frame: &[u8], vip: Ipv4Addr) -> Option<Mac> {
    let arp = frame.get(12..42)?;
    let ipv4_over_ethernet = [0x08, 0x06, 0, 1, 8, 0, 6, 4];
    let claims = arp.starts_with(&ipv4_over_ethernet) && arp.get(16..20)? == vip.octets();
    claims.then(|| arp.get(10..16)?.try_into().ok()).flatten()
}

fn discovery_claimant(frame: &[u8], vip: Ipv6Addr) -> Option<Mac> {
    let packet = frame.get(12..)?;
    let ethertype = packet.get(..2)? == ETHERTYPE_IPV6.to_be_bytes();
    // Next header, and a hop limit that proves that no router has forwarded it (RFC 4861, 7.1.2).
    let valid = ethertype && packet.get(8..10)? == [ICMPV6, 255];
    let body = packet.get(42..)?;
    if !valid || *body.first()? != ND_ADVERTISEMENT || body.get(8..24)? != vip.octets() {
        return None;
    }
    let option = target_mac(body.get(24..)?);
    option.or_else(|| frame.get(6..12)?.try_into().ok())
}

/// The target link-layer address among an advertisement's options.
fn target_mac(mut options: &[u8]) -> Option<Mac> {
    while let [kind, units, ..] = *options {
        if units == 0 {
            return None;
        }
        let length = usize::from(units) * 8;
        if kind == OPTION_TARGET_MAC {
            return options.get(2..8)?.try_into().ok();
        }
        options = options.get(length..)?;
    }
    None
}

fn arp(
    operation: u16,
    sender: Mac,
    sender_ip: Ipv4Addr,
    target: Mac,
    target_ip: Ipv4Addr,
) -> Vec<u8> {
    let mut frame = Vec::with_capacity(42);
    frame.extend(BROADCAST);
    frame.extend(sender);
    frame.extend(ETHERTYPE_ARP.to_be_bytes());
    frame.extend([0, 1, 8, 0, 6, 4]);
    frame.extend(operation.to_be_bytes());
    frame.extend(sender);
    frame.extend(sender_ip.octets());
    frame.extend(target);
    frame.extend(target_ip.octets());
    frame
}

/// An ICMPv6 message to a multicast address, its checksum filled in.
fn discovery(mac: Mac, source: Ipv6Addr, destination: Ipv6Addr, mut body: Vec<u8>) -> Vec<u8> {
    let checksum = icmpv6_checksum(source, destination, &body);
    body[2..4].copy_from_slice(&checksum.to_be_bytes());
    let group = destination.octets();
    let mut frame = Vec::with_capacity(54 + body.len());
    // RFC 2464, 7: 33:33 and the group's last four bytes.
    frame.extend([0x33, 0x33, group[12], group[13], group[14], group[15]]);
    frame.extend(mac);
    frame.extend(ETHERTYPE_IPV6.to_be_bytes());
    frame.extend([0x60, 0, 0, 0]);
    // At most 32 bytes of body.
    frame.extend((body.len() as u16).to_be_bytes());
    frame.extend([ICMPV6, 255]);
    frame.extend(source.octets());
    frame.extend(destination.octets());
    frame.extend(body);
    frame
}

/// RFC 4861's solicited-node multicast address: ff02::1:ff and the last three bytes.
fn solicited_node(ip: Ipv6Addr) -> Ipv6Addr {
    let o = ip.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, o[13], o[14], o[15]])
}

/// RFC 4443, 2.3: over the pseudo-header and the message, whose checksum field is zero.
fn icmpv6_checksum(source: Ipv6Addr, destination: Ipv6Addr, body: &[u8]) -> u16 {
    let mut sum = body.len() as u64 + u64::from(ICMPV6);
    for word in source.segments().iter().chain(&destination.segments()) {
        sum += u64::from(*word);
    }
    for pair in body.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u64::from(u16::from_be_bytes([pair[0], low]));
    }
    !lb_common::checksum::fold(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 5];
    const RIVAL: Mac = [2, 0, 0, 0, 0, 9];

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.chars().filter_map(|c| c.to_digit(16)).map(|d| d as u8).collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }

    #[test]
    fn an_ipv4_vip_is_announced_as_request_and_as_reply() {
        let request = bytes(
            "ffffffffffff 020000000005 0806  0001 0800 06 04 0001
             020000000005 c0a88b96  000000000000 c0a88b96",
        );
        let reply = bytes(
            "ffffffffffff 020000000005 0806  0001 0800 06 04 0002
             020000000005 c0a88b96  ffffffffffff c0a88b96",
        );
        assert_eq!(announcements(ip("192.168.139.150"), MAC), [request, reply]);
    }

    #[test]
    fn an_arp_probe_claims_nothing() {
        let expected = bytes(
            "ffffffffffff 020000000005 0806  0001 0800 06 04 0001
             020000000005 00000000  000000000000 c0a88b96",
        );
        assert_eq!(probe(ip("192.168.139.150"), MAC), expected);
    }

    #[test]
    fn an_ipv6_vip_is_advertised_to_all_nodes_with_override() {
        let expected = bytes(
            "333300000001 020000000005 86dd  60000000 0020 3a ff
             fd000000000000000000000000000150 ff020000000000000000000000000001
             88 00 57f9 20000000 fd000000000000000000000000000150  02 01 020000000005",
        );
        assert_eq!(announcements(ip("fd00::150"), MAC), [expected]);
    }

    #[test]
    fn a_duplicate_check_for_ipv6_goes_to_the_solicited_node() {
        let frame = probe(ip("fd00::1:2345:6789"), MAC);
        let expected = bytes(
            "3333ff456789 020000000005 86dd  60000000 0018 3a ff
             00000000000000000000000000000000 ff0200000000000000000001ff456789",
        );
        assert_eq!(frame[..54], expected);
    }

    #[test]
    fn checksums_agree_with_another_implementation() {
        use pnet::packet::icmpv6::{Icmpv6Packet, checksum};
        for vip in ["fd00::150", "2001:db8:ffff:ffff:ffff:ffff:ffff:fffe", "::1:ffff"] {
            let vip = ip(vip);
            let frames = announcements(vip, MAC).into_iter().chain([probe(vip, MAC)]);
            for frame in frames {
                let address =
                    |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&frame[at..at + 16]).unwrap());
                let packet = Icmpv6Packet::new(&frame[54..]).unwrap();
                let expected = checksum(&packet, &address(22), &address(38));
                assert_eq!(u16::from_be_bytes([frame[56], frame[57]]), expected);
            }
        }
    }

    #[test]
    fn a_rival_is_known_by_its_announcement_and_by_any_arp_that_it_sends() {
        for vip in [ip("192.168.139.150"), ip("fd00::150")] {
            for frame in announcements(vip, RIVAL) {
                assert_eq!(claimant(&frame, vip, MAC), Some(RIVAL));
                assert_eq!(claimant(&frame, vip, RIVAL), None, "our own is no rival");
            }
        }
        let question = arp(ARP_REQUEST, RIVAL, [10, 0, 0, 1].into(), [0; 6], [10, 0, 0, 2].into());
        assert_eq!(claimant(&question, ip("10.0.0.1"), MAC), Some(RIVAL));
        assert_eq!(claimant(&question, ip("10.0.0.2"), MAC), None);
    }

    #[test]
    fn a_probe_by_another_node_is_no_claim() {
        for vip in [ip("192.168.139.150"), ip("fd00::150")] {
            assert_eq!(claimant(&probe(vip, RIVAL), vip, MAC), None);
        }
    }

    #[test]
    fn an_advertisement_that_was_routed_is_no_claim() {
        let vip = ip("fd00::150");
        let mut frame = announcements(vip, RIVAL).remove(0);
        frame[21] = 254;
        assert_eq!(claimant(&frame, vip, MAC), None);
    }

    #[test]
    fn an_advertisement_without_its_option_is_known_by_the_frames_source() {
        let vip = ip("fd00::150");
        let mut frame = announcements(vip, RIVAL).remove(0);
        frame[78] = 99;
        assert_eq!(claimant(&frame, vip, MAC), Some(RIVAL));
        frame.truncate(78);
        assert_eq!(claimant(&frame, vip, MAC), Some(RIVAL));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_off_the_wire_panic(frame in proptest::collection::vec(0u8.., 0..120)) {
            claimant(&frame, ip("192.168.139.150"), MAC);
            claimant(&frame, ip("fd00::150"), MAC);
        }

        #[test]
        fn no_damaged_advertisement_panics(at in 0usize..86, byte in 0u8.., cut in 0usize..87) {
            let vip = ip("fd00::150");
            let mut frame = announcements(vip, RIVAL).remove(0);
            frame[at] = byte;
            frame.truncate(cut);
            claimant(&frame, vip, MAC);
        }
    }
}
