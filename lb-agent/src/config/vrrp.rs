//! What `[vrrp]` says, as types: who holds the VIPs is elected. Not the protocol: that is the
//! module `vrrp`, which this one does not know.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use lb_common::virtual_mac::virtual_mac;

use super::Node;

/// Bytes of a password that version 2 has room for (RFC 2338, 5.3.10).
const AUTH_PASS_BYTES: usize = 8;

/// VRRP between the nodes, and with whatever else speaks it on their link.
#[derive(Clone, Debug, PartialEq)]
pub struct Vrrp {
    /// At least one; each virtual address belongs to one of them, and their numbers differ.
    pub routers: Vec<VirtualRouter>,
    pub version: VrrpVersion,
    /// Between advertisements. Version 3: whole hundredths of a second, 1 to 4095; version 2: whole
    /// seconds, 1 to 255.
    pub advertisement_interval: Duration,
    /// Whether a node takes the VIPs from an Active one of lower priority.
    pub preempt: bool,
    /// For how long it lets that one be first. Zero unless `preempt`.
    pub preempt_delay: Duration,
    /// Advertisements go to the other nodes' addresses instead of to the multicast group; every
    /// node has an address of each family of VIP.
    pub unicast: bool,
    /// Version 2 only.
    pub auth_pass: Option<AuthPass>,
    /// Matters for version 3 over IPv4 only.
    pub checksum: VrrpChecksum,
    /// Whether an Active router answers a lower priority with an advertisement at once.
    pub answer_rivals: bool,
    /// Whether advertisements that list other virtual addresses are refused.
    pub check_addresses: bool,
    /// Whether the link is asked for another machine with a VIP before a takeover that was not
    /// planned.
    pub check_duplicates: bool,
    /// Each virtual router has a MAC of its own, which moves with its addresses (RFC 9568, 7.3).
    /// Not with `unicast`.
    pub virtual_mac: bool,
}

/// Virtual addresses that move together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualRouter {
    /// The VRID, not 0: the same on every router of the group.
    pub router_id: u8,
    /// At least one.
    pub virtual_addresses: Vec<IpAddr>,
    /// By the node's name, where it is not the node's own.
    pub priorities: BTreeMap<String, u8>,
}

impl Vrrp {
    /// The virtual MACs that are in use, one for each family that a virtual router has addresses of.
    pub fn virtual_macs(&self) -> impl Iterator<Item = [u8; 6]> {
        let routers = self.routers.iter().filter(|_| self.virtual_mac);
        routers.flat_map(move |router| {
            let families = [true, false].into_iter().filter(move |&v4| {
                router.virtual_addresses.iter().any(|address| address.is_ipv4() == v4)
            });
            families.map(move |v4| virtual_mac(router.router_id, v4))
        })
    }
}

impl VirtualRouter {
    /// The priority of a node in it.
    pub fn priority_of(&self, node: &Node) -> u8 {
        self.priorities.get(&node.name).copied().unwrap_or(node.priority)
    }
}

/// The protocol's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VrrpVersion {
    /// RFC 3768, with the passwords of RFC 2338. All VIPs are IPv4.
    V2,
    /// RFC 9568.
    V3,
}

/// What the checksum of version 3 covers over IPv4. Over IPv6 it has the pseudo-header always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VrrpChecksum {
    /// With the pseudo-header, as keepalived and FRR send it.
    PseudoHeader,
    /// The message alone (RFC 9568, 5.2.8).
    Plain,
}

/// The password of version 2, as the file says it. Not empty. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthPass(String);

impl VrrpVersion {
    /// Version 3: a tenth of what the RFC proposes, so that a dead node is noticed after some 0.4
    /// s. Version 2: the shortest, and the RFC's own.
    pub(super) fn default_interval(self) -> Duration {
        match self {
            Self::V2 => Duration::from_secs(1),
            Self::V3 => Duration::from_millis(100),
        }
    }

    /// Whether an advertisement can carry it: 8 bits of seconds (RFC 3768, 5.3.7), or 12 bits of
    /// hundredths (RFC 9568, 5.2.7).
    pub(super) fn can_carry(self, interval: Duration) -> bool {
        let (unit_ms, most) = match self {
            Self::V2 => (1000, u128::from(u8::MAX)),
            Self::V3 => (10, 0xfff),
        };
        let interval_ms = interval.as_millis();
        interval_ms.is_multiple_of(unit_ms) && (1..=most).contains(&(interval_ms / unit_ms))
    }
}

impl AuthPass {
    pub(super) fn new(text: String) -> Self {
        Self(text)
    }

    /// What counts of it, and is sent: its first 8 bytes, with zeros after a shorter one.
    pub fn bytes(&self) -> [u8; AUTH_PASS_BYTES] {
        let mut bytes = [0; AUTH_PASS_BYTES];
        for (byte, said) in bytes.iter_mut().zip(self.0.bytes()) {
            *byte = said;
        }
        bytes
    }

    /// Whether some of it does not count.
    pub fn is_cut(&self) -> bool {
        self.0.len() > AUTH_PASS_BYTES
    }
}

impl fmt::Debug for AuthPass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthPass(..)")
    }
}

impl fmt::Display for VrrpVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V2 => "2",
            Self::V3 => "3",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn vrrp(keys: &str) -> Vrrp {
        let text = format!(
            "virtual_addresses = [\"192.0.2.1\"]\n\
             [[node]]\nname = \"a\"\naddress = \"192.0.2.2\"\n\
             [[service]]\nname = \"s\"\nport = 80\nbackends = [\"192.0.2.2:8080\"]\n\
             [vrrp]\nrouter_id = 51\n{keys}\n"
        );
        let config = Config::parse(&text).unwrap_or_else(|error| panic!("{}", error.report("x")));
        config.vrrp.expect("the table is there")
    }

    #[test]
    fn the_defaults_are_those_of_version_3() {
        let router = VirtualRouter {
            router_id: 51,
            virtual_addresses: vec![IpAddr::from([192, 0, 2, 1])],
            priorities: BTreeMap::new(),
        };
        let defaults = Vrrp {
            routers: vec![router],
            version: VrrpVersion::V3,
            advertisement_interval: Duration::from_millis(100),
            preempt: false,
            preempt_delay: Duration::ZERO,
            unicast: false,
            auth_pass: None,
            checksum: VrrpChecksum::PseudoHeader,
            answer_rivals: true,
            check_addresses: false,
            check_duplicates: false,
            virtual_mac: false,
        };
        assert_eq!(vrrp(""), defaults);
        assert_eq!(vrrp("version = 3"), defaults);
    }

    #[test]
    fn a_virtual_router_has_a_mac_in_each_of_its_families_if_it_is_to() {
        let router = |router_id, addresses: &[&str]| VirtualRouter {
            router_id,
            virtual_addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            priorities: BTreeMap::new(),
        };
        let routers = vec![
            router(51, &["192.0.2.1", "192.0.2.2", "2001:db8::1"]),
            router(52, &["2001:db8::2"]),
        ];
        let with = Vrrp { routers, virtual_mac: true, ..vrrp("") };
        let macs: Vec<_> = with.virtual_macs().map(|[.., family, id]| (family, id)).collect();
        assert_eq!(macs, [(1, 51), (2, 51), (2, 52)]);
        assert_eq!(Vrrp { virtual_mac: false, ..with }.virtual_macs().count(), 0);
    }

    #[test]
    fn version_2_has_two_other_defaults() {
        let expected = Vrrp {
            version: VrrpVersion::V2,
            advertisement_interval: Duration::from_secs(1),
            answer_rivals: false,
            ..vrrp("")
        };
        assert_eq!(vrrp("version = 2"), expected);
        let set = vrrp("version = 2\nadvertisement_interval = \"255s\"\nanswer_rivals = true");
        assert_eq!((set.advertisement_interval.as_secs(), set.answer_rivals), (255, true));
    }

    #[test]
    fn an_interval_is_one_that_an_advertisement_can_carry() {
        let ms = Duration::from_millis;
        for (version, fits, does_not) in [
            (VrrpVersion::V3, [10, 100, 1010, 40_950], [0, 9, 105, 40_960]),
            (VrrpVersion::V2, [1000, 2000, 60_000, 255_000], [0, 100, 1500, 256_000]),
        ] {
            for interval_ms in fits {
                assert!(version.can_carry(ms(interval_ms)), "{version}: {interval_ms}");
            }
            for interval_ms in does_not {
                assert!(!version.can_carry(ms(interval_ms)), "{version}: {interval_ms}");
            }
            assert!(version.can_carry(version.default_interval()), "{version}");
            assert!(!version.can_carry(Duration::MAX), "{version}");
        }
    }

    #[test]
    fn eight_bytes_of_a_password_count() {
        for (text, bytes, is_cut) in [
            ("x", *b"x\0\0\0\0\0\0\0", false),
            ("K8SHA_KA", *b"K8SHA_KA", false),
            ("K8SHA_KA_AUTH", *b"K8SHA_KA", true),
            ("1234567é", *b"1234567\xc3", true),
        ] {
            let pass = AuthPass::new(text.to_owned());
            assert_eq!((pass.bytes(), pass.is_cut()), (bytes, is_cut), "{text}");
        }
    }
}
