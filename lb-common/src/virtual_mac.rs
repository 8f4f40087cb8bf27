//! The MAC of a virtual router (RFC 9568, 7.3), and where its lease stands among those of the VIPs.

use crate::Address;

/// The first five bytes for IPv4 and IPv6; the last one is the virtual router's id.
const IPV4: [u8; 5] = [0x00, 0x00, 0x5e, 0x00, 0x01];
const IPV6: [u8; 5] = [0x00, 0x00, 0x5e, 0x00, 0x02];

/// The MAC of a virtual router for one address family.
pub const fn virtual_mac(router_id: u8, v4: bool) -> [u8; 6] {
    let [a, b, c, d, e] = if v4 { IPV4 } else { IPV6 };
    [a, b, c, d, e, router_id]
}

/// Whether a MAC, as three words as they lie in a frame, is one of a virtual router. Cheap: it is
/// asked for every frame.
#[inline(always)]
pub const fn is_virtual(words: [u16; 3]) -> bool {
    let family = words[2].to_ne_bytes()[0];
    words[0] == 0 && words[1] == u16::from_ne_bytes([0x5e, 0x00]) && (family == 1 || family == 2)
}

/// The key in the map `vips` under which a MAC has a lease: the link-local address that an
/// interface with this MAC makes of it (RFC 4291, appendix A), which is the virtual router's alone.
#[inline(always)]
pub const fn lease_key(mac: [u8; 6]) -> Address {
    let [a, b, c, d, e, f] = mac;
    let first = u32::from_ne_bytes([0xfe, 0x80, 0, 0]);
    Address {
        words: [
            first,
            0,
            u32::from_ne_bytes([a ^ 0x02, b, c, 0xff]),
            u32::from_ne_bytes([0xfe, d, e, f]),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::IpAddr;

    fn words(mac: [u8; 6]) -> [u16; 3] {
        [0, 2, 4].map(|at| u16::from_ne_bytes([mac[at], mac[at + 1]]))
    }

    #[test]
    fn the_macs_are_those_of_the_rfc() {
        assert_eq!(virtual_mac(51, true), [0x00, 0x00, 0x5e, 0x00, 0x01, 0x33]);
        assert_eq!(virtual_mac(255, false), [0x00, 0x00, 0x5e, 0x00, 0x02, 0xff]);
    }

    #[test]
    fn only_the_two_ranges_are_virtual() {
        for (mac, expected) in [
            (virtual_mac(1, true), true),
            (virtual_mac(255, false), true),
            ([0x00, 0x00, 0x5e, 0x00, 0x03, 0x33], false),
            // A multicast group of IPv4.
            ([0x01, 0x00, 0x5e, 0x00, 0x01, 0x33], false),
            ([0x00, 0x00, 0x5e, 0x01, 0x01, 0x33], false),
            ([0x52, 0x54, 0x00, 0x00, 0x01, 0x33], false),
        ] {
            assert_eq!(is_virtual(words(mac)), expected, "{mac:02x?}");
        }
    }

    #[test]
    fn each_mac_has_a_lease_of_its_own() {
        for (v4, text) in [(true, "fe80::200:5eff:fe00:133"), (false, "fe80::200:5eff:fe00:233")] {
            let expected: IpAddr = text.parse().unwrap();
            assert_eq!(IpAddr::from(lease_key(virtual_mac(51, v4))), expected);
        }
    }
}
