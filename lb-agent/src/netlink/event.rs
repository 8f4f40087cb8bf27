//! What a message of the kernel's means to the agent. Pure: decides which notices are worth
//! waking for, and drops the echo of the agent's own doing.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::ops::BitOrAssign;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::RouteMessage;

use super::network::Mac;
use super::snapshot::{address_of, destination_of, neighbour, table_of};

/// What changed since the last notice. Says where to look, not what is there now: read a
/// snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Change {
    pub links: bool,
    pub addresses: bool,
    pub routes: bool,
    pub neighbours: bool,
    /// A VIP's address or local route was removed, by its lifetime, by this agent or by somebody
    /// else.
    pub vip_removed: bool,
}

impl Change {
    pub const NONE: Self = Self {
        links: false,
        addresses: false,
        routes: false,
        neighbours: false,
        vip_removed: false,
    };

    /// Anything may have changed: at the start, after an overrun, and now and then.
    pub const ALL: Self =
        Self { links: true, addresses: true, routes: true, neighbours: true, vip_removed: true };

    pub fn is_none(self) -> bool {
        self == Self::NONE
    }
}

impl BitOrAssign for Change {
    fn bitor_assign(&mut self, other: Self) {
        self.links |= other.links;
        self.addresses |= other.addresses;
        self.routes |= other.routes;
        self.neighbours |= other.neighbours;
        self.vip_removed |= other.vip_removed;
    }
}

/// Neighbours whose MAC is remembered, so that a notice which doesn't change it is dropped. Beyond
/// this many all are forgotten, and the next notice of each is passed on again.
const REMEMBERED: usize = 4096;

/// RT_TABLE_MAIN, RT_TABLE_LOCAL.
const MAIN: u32 = 254;
const LOCAL: u32 = 255;

/// Sorts the kernel's messages.
#[derive(Debug, Default)]
pub(super) struct Filter {
    /// The VIPs, whose refreshes are this agent's own doing.
    own: BTreeSet<IpAddr>,
    /// Last seen MACs. Neighbours go through reachable, stale and probe all the time; only another
    /// MAC, or none, matters.
    macs: HashMap<(u32, IpAddr), Option<Mac>>,
}

impl Filter {
    pub(super) fn set_own(&mut self, vips: BTreeSet<IpAddr>) {
        self.own = vips;
    }

    /// After an overrun nothing that is remembered can be trusted.
    pub(super) fn forget(&mut self) {
        self.macs.clear();
    }

    pub(super) fn classify(&mut self, message: &RouteNetlinkMessage) -> Change {
        use RouteNetlinkMessage as M;
        match message {
            M::NewLink(_) | M::DelLink(_) => Change { links: true, ..Change::NONE },
            M::NewAddress(m) => {
                let own = address_of(m).is_some_and(|a| self.own.contains(&a));
                Change { addresses: !own, ..Change::NONE }
            }
            M::DelAddress(m) => {
                let own = address_of(m).is_some_and(|a| self.own.contains(&a));
                Change { addresses: true, vip_removed: own, ..Change::NONE }
            }
            M::NewRoute(m) => Change { routes: table_of(m) == MAIN, ..Change::NONE },
            M::DelRoute(m) => Change {
                routes: table_of(m) == MAIN,
                vip_removed: self.is_own_local(m),
                ..Change::NONE
            },
            M::NewNeighbour(_) | M::DelNeighbour(_) => {
                Change { neighbours: self.mac_changed(message), ..Change::NONE }
            }
            _ => Change::NONE,
        }
    }

    fn is_own_local(&self, route: &RouteMessage) -> bool {
        table_of(route) == LOCAL && destination_of(route).is_some_and(|d| self.own.contains(&d))
    }

    fn mac_changed(&mut self, message: &RouteNetlinkMessage) -> bool {
        let (m, gone) = match message {
            RouteNetlinkMessage::NewNeighbour(m) => (m, false),
            RouteNetlinkMessage::DelNeighbour(m) => (m, true),
            _ => return false,
        };
        // Bridges' forwarding entries come by the same group, and have no address.
        let Some(now) = neighbour(m) else { return false };
        let mac = now.mac.filter(|_| !gone);
        if self.macs.len() >= REMEMBERED {
            self.macs.clear();
        }
        self.macs.insert((now.ifindex, now.address), mac) != Some(mac)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_route::address::{AddressAttribute, AddressMessage};
    use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState};
    use netlink_packet_route::route::RouteAttribute;

    fn filter() -> Filter {
        let mut filter = Filter::default();
        filter.set_own(BTreeSet::from(["192.0.2.150".parse().unwrap()]));
        filter
    }

    fn address(text: &str) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.attributes.push(AddressAttribute::Local(text.parse().unwrap()));
        message
    }

    fn entry(state: NeighbourState, mac: Option<u8>) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.state = state;
        let ip: IpAddr = "192.0.2.1".parse().unwrap();
        message.attributes.push(NeighbourAttribute::Destination(ip.into()));
        let mac = mac.map(|last| NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, last]));
        message.attributes.extend(mac);
        message
    }

    fn local_route(text: &str) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.table = 255;
        let ip: IpAddr = text.parse().unwrap();
        message.attributes.push(RouteAttribute::Destination(ip.into()));
        message
    }

    #[test]
    fn the_refresh_of_a_vip_wakes_nobody() {
        let message = RouteNetlinkMessage::NewAddress(address("192.0.2.150"));
        assert!(filter().classify(&message).is_none());
        let message = RouteNetlinkMessage::NewAddress(address("192.0.2.7"));
        assert!(filter().classify(&message).addresses);
    }

    #[test]
    fn the_removal_of_a_vip_is_told() {
        let message = RouteNetlinkMessage::DelAddress(address("192.0.2.150"));
        assert!(filter().classify(&message).vip_removed);
        let message = RouteNetlinkMessage::DelAddress(address("192.0.2.7"));
        assert!(!filter().classify(&message).vip_removed);
        let message = RouteNetlinkMessage::DelRoute(local_route("192.0.2.150"));
        assert!(filter().classify(&message).vip_removed);
        let message = RouteNetlinkMessage::DelRoute(local_route("192.0.2.7"));
        assert!(filter().classify(&message).is_none());
    }

    #[test]
    fn a_neighbour_is_news_only_when_its_mac_is_another() {
        use NeighbourState::{Failed, Probe, Reachable, Stale};
        let mut filter = filter();
        let mut news = |state, mac| {
            filter.classify(&RouteNetlinkMessage::NewNeighbour(entry(state, mac))).neighbours
        };
        assert!(news(Reachable, Some(1)));
        assert!(!news(Stale, Some(1)));
        assert!(!news(Probe, Some(1)));
        assert!(news(Reachable, Some(2)));
        assert!(news(Failed, None));
        assert!(!news(Failed, None));
        assert!(news(Reachable, Some(2)));
        let gone = RouteNetlinkMessage::DelNeighbour(entry(Reachable, Some(2)));
        assert!(filter.classify(&gone).neighbours);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut filter = filter();
        for i in 0..10_000u32 {
            let mut message = entry(NeighbourState::Reachable, Some(1));
            message.header.ifindex = i;
            assert!(filter.classify(&RouteNetlinkMessage::NewNeighbour(message)).neighbours);
        }
        assert!(filter.macs.len() <= REMEMBERED);
    }
}
