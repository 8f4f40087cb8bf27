//! The node's network as a value: links, addresses, routes, neighbours, and the questions that
//! the agent asks about them. No I/O: `snapshot` fills it, tests write it down.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub type Mac = [u8; 6];

/// As people write it: `aa:bb:cc:dd:ee:ff`.
pub fn mac_text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// `None` for a link without Ethernet addresses (tun, loopback's is all zero and left out).
    pub mac: Option<Mac>,
    /// Administratively up.
    pub up: bool,
    /// Operational: it has a carrier and its queue works (IFF_RUNNING).
    pub running: bool,
    pub loopback: bool,
    /// One of a pair: what is sent at the other end, by a stack of this machine, comes in here.
    pub veth: bool,
    pub mtu: u32,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InterfaceAddress {
    pub ifindex: u32,
    pub address: IpAddr,
    pub prefix_len: u8,
    /// Duplicate address detection has not finished, or found a duplicate.
    pub usable: bool,
    /// Without a lifetime: configured, rather than leased to this node for a while.
    pub permanent: bool,
}

impl InterfaceAddress {
    /// Whether an address is on this one's network.
    pub fn covers(&self, other: IpAddr) -> bool {
        self.address.is_ipv4() == other.is_ipv4()
            && masked(self.address, self.prefix_len) == masked(other, self.prefix_len)
    }
}

/// One way of a route.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hop {
    pub ifindex: u32,
    /// `None`: the destination is on the link. May be IPv6 for an IPv4 route (RFC 5549).
    pub gateway: Option<IpAddr>,
    /// Neither dead nor without a carrier.
    pub usable: bool,
}

/// A route of the main table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    /// The network, host bits zero.
    pub destination: IpAddr,
    pub prefix_len: u8,
    /// Lower wins.
    pub metric: u32,
    /// Empty for blackhole, unreachable and prohibit.
    pub hops: Vec<Hop>,
}

/// How far the kernel got with a neighbour (NUD_*), as far as it matters here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NeighbourState {
    /// Confirmed lately, or entered by hand.
    Reachable,
    /// Its address was valid once and is used until a probe fails.
    Stale,
    /// Being asked for; no answer yet.
    Incomplete,
    /// Asked for in vain.
    Failed,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Neighbour {
    pub ifindex: u32,
    pub address: IpAddr,
    /// Present in the states [`Reachable`](NeighbourState::Reachable) and
    /// [`Stale`](NeighbourState::Stale) only.
    pub mac: Option<Mac>,
    pub state: NeighbourState,
}

/// Where frames for a destination go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NextHop {
    pub ifindex: u32,
    /// The gateway, or the destination itself where it is on the link: whom to resolve.
    pub neighbour: IpAddr,
    /// `None` while the neighbour is not resolved.
    pub mac: Option<Mac>,
    /// The link's own.
    pub source_mac: Mac,
}

/// Why there is no next hop for a destination.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unreachable {
    #[error("{0} is an address of this node")]
    Own(IpAddr),
    #[error("no route to {0}")]
    NoRoute(IpAddr),
    #[error("the route to {0} refuses packets (blackhole, unreachable or prohibit)")]
    Refused(IpAddr),
    #[error("every way to {destination} is down (interface {interface})")]
    Down { destination: IpAddr, interface: String },
    #[error("the route to {destination} leaves by {interface}, which has no MAC address")]
    NotEthernet { destination: IpAddr, interface: String },
}

/// A snapshot. Two are equal when nothing changed that the agent could notice.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Network {
    links: BTreeMap<u32, Link>,
    addresses: Vec<InterfaceAddress>,
    own: BTreeSet<IpAddr>,
    /// By network; the routes of one network by metric.
    routes: HashMap<(IpAddr, u8), Vec<Route>>,
    /// The prefix lengths in use, longest first, for IPv4 and IPv6.
    lengths: [Vec<u8>; 2],
    neighbours: HashMap<(u32, IpAddr), Neighbour>,
}

impl Network {
    pub fn new(
        links: Vec<Link>,
        mut addresses: Vec<InterfaceAddress>,
        routes: Vec<Route>,
        neighbours: Vec<Neighbour>,
    ) -> Self {
        addresses.sort_by_key(|a| (a.ifindex, a.address));
        let own = addresses.iter().map(|a| a.address).collect();
        let mut by_network: HashMap<_, Vec<Route>> = HashMap::new();
        let mut lengths = [BTreeSet::new(), BTreeSet::new()];
        for route in routes {
            let network = masked(route.destination, route.prefix_len);
            lengths[family(network)].insert(route.prefix_len);
            by_network.entry((network, route.prefix_len)).or_default().push(route);
        }
        for same in by_network.values_mut() {
            same.sort_by_key(|r| r.metric);
        }
        Self {
            links: links.into_iter().map(|l| (l.index, l)).collect(),
            addresses,
            own,
            routes: by_network,
            lengths: lengths.map(|set| set.into_iter().rev().collect()),
            neighbours: neighbours.into_iter().map(|n| ((n.ifindex, n.address), n)).collect(),
        }
    }

    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.values()
    }

    pub fn link(&self, index: u32) -> Option<&Link> {
        self.links.get(&index)
    }

    pub fn link_by_name(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|l| l.name == name)
    }

    /// The name of a link for messages; its index where it is gone.
    pub fn link_name(&self, index: u32) -> String {
        self.link(index).map_or_else(|| format!("with index {index}"), |l| l.name.clone())
    }

    /// Every address of the node, whatever the link; a VIP that it holds is among them.
    pub fn own_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.own.iter().copied()
    }

    pub fn is_own(&self, address: IpAddr) -> bool {
        self.own.contains(&address)
    }

    /// In order of interface and address.
    pub fn addresses(&self) -> &[InterfaceAddress] {
        &self.addresses
    }

    pub fn addresses_of(&self, ifindex: u32) -> impl Iterator<Item = &InterfaceAddress> {
        self.addresses.iter().filter(move |a| a.ifindex == ifindex)
    }

    pub fn neighbour(&self, ifindex: u32, address: IpAddr) -> Option<&Neighbour> {
        self.neighbours.get(&(ifindex, address))
    }

    /// The interfaces that default routes of a family leave by, the preferred one first.
    pub fn default_ways(&self, v4: bool) -> Vec<u32> {
        let any = if v4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let routes = self.routes.get(&(any, 0)).into_iter().flatten();
        routes.flat_map(|route| route.hops.iter().map(|hop| hop.ifindex)).collect()
    }

    /// Where frames for `destination` go: the longest prefix, then the lowest metric, then the
    /// first way that is up. Policy rules and tables other than main are not looked at.
    pub fn resolve(&self, destination: IpAddr) -> Result<NextHop, Unreachable> {
        let (hop, carries) = self.find(destination)?;
        if carries {
            return self.next_hop(destination, hop);
        }
        let interface = self.link_name(hop.ifindex);
        Err(Unreachable::Down { destination, interface })
    }

    /// As [`resolve`](Self::resolve), and where every way is down the first of them: frames will go
    /// there from the moment when it is up again.
    pub fn resolve_once_up(&self, destination: IpAddr) -> Result<NextHop, Unreachable> {
        let (hop, _) = self.find(destination)?;
        self.next_hop(destination, hop)
    }

    /// The way, and whether it is up.
    fn find(&self, destination: IpAddr) -> Result<(&Hop, bool), Unreachable> {
        if self.is_own(destination) {
            return Err(Unreachable::Own(destination));
        }
        let mut down = None;
        for &length in &self.lengths[family(destination)] {
            let network = (masked(destination, length), length);
            for route in self.routes.get(&network).into_iter().flatten() {
                if route.hops.is_empty() {
                    return Err(Unreachable::Refused(destination));
                }
                if let Some(hop) = route.hops.iter().find(|h| self.carries(h)) {
                    return Ok((hop, true));
                }
                down = down.or(route.hops.first());
            }
        }
        down.map(|hop| (hop, false)).ok_or(Unreachable::NoRoute(destination))
    }

    fn carries(&self, hop: &Hop) -> bool {
        hop.usable && self.link(hop.ifindex).is_some_and(|l| l.up && l.running)
    }

    fn next_hop(&self, destination: IpAddr, hop: &Hop) -> Result<NextHop, Unreachable> {
        let Some(source_mac) = self.link(hop.ifindex).and_then(|l| l.mac) else {
            let interface = self.link_name(hop.ifindex);
            return Err(Unreachable::NotEthernet { destination, interface });
        };
        let neighbour = hop.gateway.unwrap_or(destination);
        let mac = self.neighbour(hop.ifindex, neighbour).and_then(|n| n.mac);
        Ok(NextHop { ifindex: hop.ifindex, neighbour, mac, source_mac })
    }
}

const fn family(address: IpAddr) -> usize {
    match address {
        IpAddr::V4(_) => 0,
        IpAddr::V6(_) => 1,
    }
}

/// The address with all but its first `length` bits cleared.
fn masked(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length.min(128))).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn link(index: u32, name: &str) -> Link {
        Link {
            index,
            name: name.to_owned(),
            mac: Some([2, 0, 0, 0, 0, index as u8]),
            up: true,
            running: true,
            loopback: false,
            veth: false,
            mtu: 1500,
        }
    }

    fn route(network: &str, length: u8, metric: u32, hops: &[(u32, Option<&str>)]) -> Route {
        let hops = hops
            .iter()
            .map(|&(ifindex, via)| Hop { ifindex, gateway: via.map(ip), usable: true })
            .collect();
        Route { destination: ip(network), prefix_len: length, metric, hops }
    }

    fn neighbour(ifindex: u32, address: &str, last: u8) -> Neighbour {
        Neighbour {
            ifindex,
            address: ip(address),
            mac: Some([6, 0, 0, 0, 0, last]),
            state: NeighbourState::Reachable,
        }
    }

    fn own(ifindex: u32, address: &str, prefix_len: u8) -> InterfaceAddress {
        InterfaceAddress {
            ifindex,
            address: ip(address),
            prefix_len,
            usable: true,
            permanent: true,
        }
    }

    fn network(links: Vec<Link>, routes: Vec<Route>) -> Network {
        Network::new(
            links,
            vec![own(2, "192.0.2.5", 24), own(2, "2001:db8::5", 64)],
            routes,
            vec![
                neighbour(2, "192.0.2.1", 1),
                neighbour(2, "192.0.2.9", 9),
                neighbour(3, "10.0.0.1", 3),
                neighbour(2, "2001:db8::9", 0x69),
                neighbour(2, "fe80::1", 0x61),
            ],
        )
    }

    fn usual() -> Network {
        network(
            vec![link(2, "ens33"), link(3, "ens34")],
            vec![
                route("192.0.2.0", 24, 0, &[(2, None)]),
                route("0.0.0.0", 0, 100, &[(2, Some("192.0.2.1"))]),
                route("10.0.0.0", 8, 20, &[(3, Some("10.0.0.1"))]),
                route("2001:db8::", 64, 256, &[(2, None)]),
                route("::", 0, 1024, &[(2, Some("fe80::1"))]),
            ],
        )
    }

    #[test]
    fn a_destination_on_the_link_is_its_own_neighbour() {
        let hop = usual().resolve(ip("192.0.2.9")).unwrap();
        assert_eq!(hop.ifindex, 2);
        assert_eq!(hop.neighbour, ip("192.0.2.9"));
        assert_eq!(hop.mac, Some([6, 0, 0, 0, 0, 9]));
        assert_eq!(hop.source_mac, [2, 0, 0, 0, 0, 2]);
        assert_eq!(usual().resolve(ip("2001:db8::9")).unwrap().mac, Some([6, 0, 0, 0, 0, 0x69]));
    }

    #[test]
    fn a_destination_behind_a_gateway_gets_the_gateways_mac() {
        let hop = usual().resolve(ip("198.51.100.7")).unwrap();
        assert_eq!((hop.ifindex, hop.neighbour), (2, ip("192.0.2.1")));
        assert_eq!(hop.mac, Some([6, 0, 0, 0, 0, 1]));
        assert_eq!(usual().resolve(ip("2001:db8:1::7")).unwrap().neighbour, ip("fe80::1"));
    }

    #[test]
    fn the_longest_prefix_wins_over_the_default_route() {
        assert_eq!(usual().resolve(ip("10.1.2.3")).unwrap().ifindex, 3);
    }

    #[test]
    fn among_equal_prefixes_the_lowest_metric_wins() {
        let links = vec![link(2, "a"), link(3, "b")];
        let routes =
            vec![route("10.0.0.0", 8, 200, &[(2, None)]), route("10.0.0.0", 8, 50, &[(3, None)])];
        assert_eq!(network(links, routes).resolve(ip("10.9.9.9")).unwrap().ifindex, 3);
    }

    #[test]
    fn a_way_that_is_down_is_passed_over_for_the_next() {
        let mut down = link(3, "ens34");
        down.running = false;
        let routes = vec![
            route("10.0.0.0", 8, 0, &[(3, Some("10.0.0.1")), (2, Some("192.0.2.9"))]),
            route("10.0.0.0", 8, 9, &[(2, Some("192.0.2.1"))]),
        ];
        let hop = network(vec![link(2, "ens33"), down.clone()], routes).resolve(ip("10.1.1.1"));
        assert_eq!(hop.unwrap().neighbour, ip("192.0.2.9"));

        let routes = vec![route("10.0.0.0", 8, 0, &[(3, Some("10.0.0.1"))])];
        let network = network(vec![down], routes);
        let error = network.resolve(ip("10.1.1.1")).unwrap_err();
        assert_eq!(error.to_string(), "every way to 10.1.1.1 is down (interface ens34)");
        let hop = network.resolve_once_up(ip("10.1.1.1")).unwrap();
        assert_eq!((hop.ifindex, hop.neighbour), (3, ip("10.0.0.1")));
    }

    #[test]
    fn an_unresolved_neighbour_is_named_without_a_mac() {
        let hop = usual().resolve(ip("192.0.2.77")).unwrap();
        assert_eq!((hop.neighbour, hop.mac), (ip("192.0.2.77"), None));
    }

    #[test]
    fn the_reason_for_no_next_hop_is_said() {
        let refusing = network(vec![link(2, "ens33")], vec![route("10.0.0.0", 8, 0, &[])]);
        assert_eq!(
            refusing.resolve(ip("10.1.1.1")).unwrap_err(),
            Unreachable::Refused(ip("10.1.1.1"))
        );
        assert_eq!(
            refusing.resolve(ip("11.1.1.1")).unwrap_err(),
            Unreachable::NoRoute(ip("11.1.1.1"))
        );
        assert_eq!(
            usual().resolve(ip("192.0.2.5")).unwrap_err(),
            Unreachable::Own(ip("192.0.2.5"))
        );
        let mut tun = link(4, "tun0");
        tun.mac = None;
        let error = network(vec![tun], vec![route("10.0.0.0", 8, 0, &[(4, None)])])
            .resolve(ip("10.1.1.1"))
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "the route to 10.1.1.1 leaves by tun0, which has no MAC address"
        );
    }

    #[test]
    fn a_prefix_masks_every_bit_behind_it() {
        assert_eq!(masked(ip("255.255.255.255"), 0), ip("0.0.0.0"));
        assert_eq!(masked(ip("255.255.255.255"), 9), ip("255.128.0.0"));
        assert_eq!(masked(ip("255.255.255.255"), 32), ip("255.255.255.255"));
        assert_eq!(masked(ip("ffff::ffff"), 0), ip("::"));
        assert_eq!(masked(ip("ffff::ffff"), 127), ip("ffff::fffe"));
        assert_eq!(masked(ip("ffff::ffff"), 128), ip("ffff::ffff"));
    }
}
