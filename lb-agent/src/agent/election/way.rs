//! From file and network to a virtual router: where it sends, and its parameters.

use std::net::IpAddr;

use super::VirtualLink;
use crate::config::{self, Config};
use crate::netlink::Network;
use crate::role::Placement;
use crate::vrrp::Settings;
use crate::vrrp::identity::{Priority, RouterId, Version};
use crate::vrrp::link::Reach;
use crate::vrrp::machine::{Parameters, Rivals};
use crate::vrrp::packet::{Authentication, Checksum};

/// Where a virtual router sends.
pub(super) struct Way {
    interface: String,
    sender: Option<String>,
    address: IpAddr,
    reach: Reach,
}

/// What a virtual router's place and parameters follow from.
pub(super) struct Surroundings<'a> {
    pub(super) config: &'a Config,
    pub(super) settings: &'a config::Vrrp,
    pub(super) node: &'a str,
    pub(super) network: &'a Network,
    pub(super) placements: &'a [Placement],
}

impl Surroundings<'_> {
    pub(super) fn way(&self, vips: &[IpAddr], link: Option<&VirtualLink>) -> Result<Way, String> {
        let Self { config, settings, network, .. } = self;
        let mut placements = self.placements.iter().filter(|p| vips.contains(&p.vip));
        let placement = placements
            .next()
            .ok_or("vrrp waits for an attached interface for the virtual addresses")?;
        let (ifindex, interface) = (placement.interface.index, placement.interface.name.clone());
        if let Some(other) = placements.find(|other| other.interface.index != ifindex) {
            return Err(format!(
                "vrrp cannot begin: one virtual router has {} on {interface} and {} on {}; give \
                 each interface a [[vrrp.router]] of its own",
                placement.vip, other.vip, other.interface.name
            ));
        }
        let v4 = placement.vip.is_ipv4();
        let of_family = |address: IpAddr| address.is_ipv4() == v4;
        let of_node = |node: &config::Node| -> Vec<IpAddr> {
            node.addresses.iter().copied().filter(|&a| of_family(a)).collect()
        };
        let here = || network.addresses_of(ifindex).filter(|a| a.usable).map(|a| a.address);
        let has = |address: IpAddr| here().any(|one| one == address);
        let own = config.nodes.iter().filter(|n| n.name == self.node).flat_map(of_node);
        let link_local = |address: &IpAddr| match address {
            IpAddr::V4(_) => false,
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        let address = if settings.unicast || v4 {
            own.into_iter().find(|&own| has(own)).or_else(|| {
                here().find(|&a| of_family(a) && !config.virtual_addresses.contains(&a))
            })
        } else {
            // RFC 9568, 5.1.2.1: the source is the interface's link-local address.
            here().find(link_local)
        };
        let address = address.ok_or_else(|| {
            format!("vrrp waits for an address of its own on {interface} to send from")
        })?;
        let reach = if settings.unicast {
            let others = config.nodes.iter().filter(|n| n.name != self.node);
            Reach::Unicast(others.filter_map(|node| self.peer(&of_node(node), ifindex)).collect())
        } else {
            Reach::Multicast
        };
        let sender = link.map(|link| match link.interface(network) {
            Some(there) => Ok(there.name),
            None => Err(format!("vrrp waits for the interface {} with its virtual MAC", link.name)),
        });
        Ok(Way { interface, sender: sender.transpose()?, address, reach })
    }

    /// The one of a node's addresses that is in the interface's network, or else the first.
    fn peer(&self, addresses: &[IpAddr], ifindex: u32) -> Option<IpAddr> {
        let near =
            |address: &&IpAddr| self.network.addresses_of(ifindex).any(|own| own.covers(**address));
        addresses.iter().find(near).or_else(|| addresses.first()).copied()
    }

    /// What a virtual router with these addresses is to be, that sends there.
    pub(super) fn settings(
        &self,
        way: Way,
        router: &config::VirtualRouter,
        vips: &[IpAddr],
    ) -> Settings {
        let Self { config, settings, node, .. } = self;
        let node = config.nodes.iter().find(|n| n.name == *node);
        let priority = node.map_or(config::Node::DEFAULT_PRIORITY, |node| router.priority_of(node));
        let version = match settings.version {
            config::VrrpVersion::V2 => Version::V2,
            config::VrrpVersion::V3 => Version::V3,
        };
        let authentication = match &settings.auth_pass {
            Some(password) => Authentication::Password(password.bytes()),
            None => Authentication::None,
        };
        let parameters = Parameters {
            version,
            router_id: RouterId::new(router.router_id).expect("the file's is 1 to 255"),
            priority: Priority(priority),
            interval: settings.advertisement_interval,
            preempt: settings.preempt,
            preempt_delay: settings.preempt_delay,
            address: way.address,
            addresses: vips.to_vec(),
            authentication,
            rivals: if settings.answer_rivals { Rivals::Answer } else { Rivals::Ignore },
            same_addresses: settings.check_addresses,
        };
        let checksum = match settings.checksum {
            config::VrrpChecksum::Plain => Checksum::Plain,
            config::VrrpChecksum::PseudoHeader => Checksum::PseudoHeader,
        };
        Settings {
            parameters,
            interface: way.interface,
            sender: way.sender,
            reach: way.reach,
            checksum,
            members: config.nodes.iter().flat_map(|node| node.addresses.iter().copied()).collect(),
        }
    }
}
