//! The interface of a virtual router (RFC 9568, 7.3): a macvlan over the one that its frames use. It
//! has the router's MAC and says where the VIPs are, and nothing else.

use std::fs;
use std::path::Path;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage, MacVlanMode};
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::{LinkMacVlan, LinkMessageBuilder, LinkUnspec};

use super::{Mac, Netlink, NetlinkError, mac_text};

const CONF: &str = "/proc/sys/net";

/// Switches of the interface, which is the agent's own, by what they are for one of IPv4.
///
/// `arp_ignore`: it answers for its VIPs, and not for the node's own addresses. `rp_filter`: the way
/// back to who asks by ARP is by the other interface.
const OF_IPV4: &[(&str, &str, &str)] =
    &[("ipv4", "arp_ignore", "1"), ("ipv4", "rp_filter", "0"), ("ipv6", "disable_ipv6", "1")];

/// For one of IPv6. It makes no addresses of its MAC, which other nodes would make as well.
const OF_IPV6: &[(&str, &str, &str)] = &[
    ("ipv4", "arp_ignore", "1"),
    ("ipv6", "addr_gen_mode", "1"),
    ("ipv6", "accept_ra", "0"),
    ("ipv6", "autoconf", "0"),
];

/// Switches for all interfaces that keep an interface whose routes are another's from answering ARP,
/// and which one interface cannot take back: the values that do, and the remedy.
const OBSTACLES: &[(&str, &[&str], &str)] = &[
    ("rp_filter", &["1"], "2, or 0 together with the values that the interfaces need"),
    ("arp_filter", &["1"], "0"),
    ("arp_ignore", &["2", "3", "4", "5", "6", "7", "8"], "1"),
];

/// Why there is no interface for a virtual MAC.
#[derive(Debug, thiserror::Error)]
pub enum VirtualLinkError {
    #[error(
        "{source}; without a macvlan over it there is no virtual MAC: load the kernel's module \
         macvlan, or remove `virtual_mac` from [vrrp]"
    )]
    Make { source: NetlinkError },
    #[error("{0}")]
    Netlink(#[from] NetlinkError),
    #[error("cannot set net.{family}.conf.{interface}.{key} to {value}: {source}")]
    Switch {
        family: &'static str,
        interface: String,
        key: &'static str,
        value: &'static str,
        source: std::io::Error,
    },
    #[error(
        "net.ipv4.conf.all.{key} is {value}, which keeps an interface with a virtual MAC from \
         answering ARP: set it to {remedy}, or remove `virtual_mac` from [vrrp]"
    )]
    Obstacle { key: &'static str, value: String, remedy: &'static str },
}

impl Netlink {
    /// Makes the interface and sets it up. Nothing leaves by it that the program at the parent's
    /// egress does not let out.
    ///
    /// # Errors
    ///
    /// Where the kernel or the parent refuses, or one of that name is there. What was made by then
    /// is removed again.
    pub async fn add_virtual_link(
        &self,
        name: &str,
        parent: u32,
        mac: Mac,
        v4: bool,
    ) -> Result<(), VirtualLinkError> {
        if v4 {
            obstacle()?;
        }
        // Bridge mode: in the others the kernel takes the Active node's advertisements, whose source
        // is this MAC too, for ones of this interface, and VRRP on the parent hears none.
        let message = LinkMacVlan::new(name, parent, MacVlanMode::Bridge).address(mac.to_vec());
        let operation = || {
            let mac = mac_text(mac);
            format!("make {name} with the MAC {mac} over the interface with index {parent}")
        };
        let request = RouteNetlinkMessage::NewLink(message.build());
        let made = self.change(operation, request, NLM_F_CREATE | NLM_F_EXCL, &[]).await;
        made.map_err(|source| VirtualLinkError::Make { source })?;
        let set = set_switches(name, if v4 { OF_IPV4 } else { OF_IPV6 });
        let done = match set {
            Ok(()) => self.set_virtual_link_up(name).await.map_err(Into::into),
            Err(error) => Err(error),
        };
        if done.is_err() {
            // The first failure is the one to tell.
            let _ = self.remove_virtual_link(name).await;
        }
        done
    }

    /// Sets the interface up, where it went down.
    pub async fn set_virtual_link_up(&self, name: &str) -> Result<(), NetlinkError> {
        let up = LinkMessageBuilder::<LinkUnspec>::new().name(name.to_owned()).up().build();
        let operation = || format!("set {name} up");
        self.change(operation, RouteNetlinkMessage::SetLink(up), 0, &[]).await
    }

    /// Removes the interface with its addresses; nothing happens where there is none.
    pub async fn remove_virtual_link(&self, name: &str) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let request = RouteNetlinkMessage::DelLink(message);
        self.change(|| format!("remove {name}"), request, 0, &[libc::ENODEV]).await
    }
}

fn set_switches(
    name: &str,
    switches: &[(&'static str, &'static str, &'static str)],
) -> Result<(), VirtualLinkError> {
    for &(family, key, value) in switches {
        let conf = Path::new(CONF).join(family).join("conf");
        if family == "ipv6" && !conf.is_dir() {
            continue;
        }
        fs::write(conf.join(name).join(key), value).map_err(|source| {
            let interface = name.to_owned();
            VirtualLinkError::Switch { family, interface, key, value, source }
        })?;
    }
    Ok(())
}

fn obstacle() -> Result<(), VirtualLinkError> {
    for &(key, bad, remedy) in OBSTACLES {
        let path = Path::new(CONF).join("ipv4/conf/all").join(key);
        let value = fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        if bad.contains(&value.as_str()) {
            return Err(VirtualLinkError::Obstacle { key, value, remedy });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::testbed::{isolated, veth};

    const MAC: Mac = [0x00, 0x00, 0x5e, 0x00, 0x01, 0x33];

    fn switch(path: &str) -> String {
        fs::read_to_string(Path::new(CONF).join(path)).unwrap().trim().to_owned()
    }

    #[test]
    fn the_interface_is_up_with_the_mac_and_speaks_for_its_own_addresses_alone() {
        isolated(|| async {
            let netlink = Netlink::connect().unwrap();
            let (left, _) = veth(&netlink).await;
            netlink.add_virtual_link("lb-v51", left.index, MAC, true).await.unwrap();
            let network = netlink.snapshot().await.unwrap();
            let made = network.link_by_name("lb-v51").unwrap();
            assert_eq!((made.mac, made.up), (Some(MAC), true));
            assert_eq!(switch("ipv4/conf/lb-v51/arp_ignore"), "1");
            assert_eq!(network.addresses_of(made.index).count(), 0, "no IPv6 one either");

            let mac = [0x00, 0x00, 0x5e, 0x00, 0x02, 0x33];
            netlink.add_virtual_link("lb-v51-6", left.index, mac, false).await.unwrap();
            let network = netlink.snapshot().await.unwrap();
            let made = network.link_by_name("lb-v51-6").unwrap();
            assert_eq!(network.addresses_of(made.index).count(), 0, "none of its MAC");

            netlink.remove_virtual_link("lb-v51").await.unwrap();
            netlink.remove_virtual_link("lb-v51").await.unwrap();
            assert!(netlink.snapshot().await.unwrap().link_by_name("lb-v51").is_none());
        });
    }

    #[test]
    fn what_cannot_be_made_is_said_in_one_sentence() {
        isolated(|| async {
            let netlink = Netlink::connect().unwrap();
            let error = netlink.add_virtual_link("lb-v51", 4711, MAC, true).await.unwrap_err();
            let text = error.to_string();
            assert!(text.contains("make lb-v51 with the MAC 00:00:5e:00:01:33"), "{text}");
            assert!(text.contains("remove `virtual_mac` from [vrrp]"), "{text}");
        });
    }

    #[test]
    fn a_switch_of_the_whole_node_that_keeps_it_from_answering_is_named() {
        isolated(|| async {
            let netlink = Netlink::connect().unwrap();
            let (left, _) = veth(&netlink).await;
            fs::write(Path::new(CONF).join("ipv4/conf/all/rp_filter"), "1").unwrap();
            let error = netlink.add_virtual_link("lb-v51", left.index, MAC, true).await;
            let text = error.unwrap_err().to_string();
            assert!(text.contains("net.ipv4.conf.all.rp_filter is 1"), "{text}");
            assert!(netlink.snapshot().await.unwrap().link_by_name("lb-v51").is_none());
            fs::write(Path::new(CONF).join("ipv4/conf/all/rp_filter"), "2").unwrap();
            netlink.add_virtual_link("lb-v51", left.index, MAC, true).await.unwrap();
        });
    }
}
