//! Reads the kernel's configuration into a [`Network`]. Translation only; no decisions.

use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState as Nud,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHop,
    RouteNextHopFlags, RouteType, RouteVia,
};

use super::network::{Hop, InterfaceAddress, Link, Mac, Neighbour, NeighbourState, Network, Route};
use super::{Netlink, NetlinkError};

/// RT_TABLE_MAIN.
const MAIN: u32 = RouteHeader::RT_TABLE_MAIN as u32;

impl Netlink {
    /// The whole configuration as it is now: links, addresses, the main table's routes of both
    /// families, neighbours.
    pub async fn snapshot(&self) -> Result<Network, NetlinkError> {
        use RouteNetlinkMessage as M;
        let links = self.dump("list links", M::GetLink(LinkMessage::default())).await?;
        let links = links.iter().filter_map(|m| match m {
            M::NewLink(m) => Some(link(m)),
            _ => None,
        });
        let links = links.collect();
        let request = M::GetAddress(AddressMessage::default());
        let addresses = self.dump("list addresses", request).await?;
        let addresses = addresses.iter().filter_map(|m| match m {
            M::NewAddress(m) => address(m),
            _ => None,
        });
        let addresses = addresses.collect();
        let mut request = RouteMessage::default();
        request.header.table = RouteHeader::RT_TABLE_MAIN;
        let routes = self.dump("list routes", M::GetRoute(request)).await?;
        let routes = routes.iter().filter_map(|m| match m {
            M::NewRoute(m) => route(m),
            _ => None,
        });
        let routes = routes.collect();
        let request = M::GetNeighbour(NeighbourMessage::default());
        let neighbours = self.dump("list neighbours", request).await?;
        let neighbours = neighbours.iter().filter_map(|m| match m {
            M::NewNeighbour(m) => neighbour(m),
            _ => None,
        });
        Ok(Network::new(links, addresses, routes, neighbours.collect()))
    }
}

fn link(message: &LinkMessage) -> Link {
    let flags = message.header.flags;
    let ethernet = message.header.link_layer_type == LinkLayerType::Ether;
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mac: None,
        up: flags.contains(LinkFlags::Up),
        // The operational state rather than the carrier: between the two the queue still drops.
        running: flags.contains(LinkFlags::Running),
        loopback: flags.contains(LinkFlags::Loopback),
        veth: false,
        mtu: 0,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(bytes) if ethernet => link.mac = mac(bytes),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::LinkInfo(info) => {
                link.veth = info.contains(&LinkInfo::Kind(InfoKind::Veth));
            }
            _ => {}
        }
    }
    link
}

/// IFA_LOCAL where present: on a point-to-point link IFA_ADDRESS is the other end.
pub(super) fn address_of(message: &AddressMessage) -> Option<IpAddr> {
    let mut found = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => return Some(*ip),
            AddressAttribute::Address(ip) => found = Some(*ip),
            _ => {}
        }
    }
    found
}

fn address(message: &AddressMessage) -> Option<InterfaceAddress> {
    let flags = message.attributes.iter().find_map(|a| match a {
        AddressAttribute::Flags(flags) => Some(*flags),
        _ => None,
    });
    let header = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    let flags = flags.unwrap_or(header);
    Some(InterfaceAddress {
        ifindex: message.header.index,
        address: address_of(message)?,
        prefix_len: message.header.prefix_len,
        usable: !flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed),
        permanent: flags.contains(AddressFlags::Permanent),
    })
}

/// The table of a route; the attribute holds it where the header's byte is too small.
pub(super) fn table_of(message: &RouteMessage) -> u32 {
    let attribute = message.attributes.iter().find_map(|a| match a {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    attribute.unwrap_or(u32::from(message.header.table))
}

/// The destination of a route; the family's unspecified address for a default route.
pub(super) fn destination_of(message: &RouteMessage) -> Option<IpAddr> {
    let attribute = message.attributes.iter().find_map(|a| match a {
        RouteAttribute::Destination(address) => ip(address),
        _ => None,
    });
    attribute.or(match message.header.address_family {
        netlink_packet_route::AddressFamily::Inet => Some([0; 4].into()),
        netlink_packet_route::AddressFamily::Inet6 => Some([0; 16].into()),
        _ => None,
    })
}

fn route(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    let plain = header.tos == 0 && header.source_prefix_length == 0;
    if table_of(message) != MAIN || !plain || header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let mut route = Route {
        destination: destination_of(message)?,
        prefix_len: header.destination_prefix_length,
        metric: 0,
        hops: Vec::new(),
    };
    let down = RouteFlags::Dead | RouteFlags::Linkdown;
    let mut hop = Hop { ifindex: 0, gateway: None, usable: !header.flags.intersects(down) };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::Oif(ifindex) => hop.ifindex = *ifindex,
            RouteAttribute::MultiPath(hops) => route.hops = hops.iter().map(multipath).collect(),
            _ => hop.gateway = hop.gateway.or(gateway(attribute)),
        }
    }
    match header.kind {
        RouteType::Unicast if route.hops.is_empty() => route.hops.push(hop),
        RouteType::Unicast => {}
        RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit => route.hops.clear(),
        _ => return None,
    }
    Some(route)
}

fn multipath(next: &RouteNextHop) -> Hop {
    let down = RouteNextHopFlags::Dead | RouteNextHopFlags::Linkdown;
    Hop {
        ifindex: next.interface_index,
        gateway: next.attributes.iter().find_map(gateway),
        usable: !next.flags.intersects(down),
    }
}

fn gateway(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(address) => ip(address),
        RouteAttribute::Via(RouteVia::Inet(v4)) => Some((*v4).into()),
        RouteAttribute::Via(RouteVia::Inet6(v6)) => Some((*v6).into()),
        _ => None,
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

pub(super) fn neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    let (mut address, mut lladdr) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                address = Some(IpAddr::V4(*v4));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                address = Some(IpAddr::V6(*v6));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => lladdr = mac(bytes),
            _ => {}
        }
    }
    let state = match message.header.state {
        Nud::Reachable | Nud::Permanent | Nud::Noarp => NeighbourState::Reachable,
        Nud::Stale | Nud::Delay | Nud::Probe => NeighbourState::Stale,
        Nud::Failed => NeighbourState::Failed,
        _ => NeighbourState::Incomplete,
    };
    let valid = matches!(state, NeighbourState::Reachable | NeighbourState::Stale);
    Some(Neighbour {
        ifindex: message.header.ifindex,
        address: address?,
        mac: lladdr.filter(|_| valid),
        state,
    })
}

fn mac(bytes: &[u8]) -> Option<Mac> {
    Mac::try_from(bytes).ok()
}
