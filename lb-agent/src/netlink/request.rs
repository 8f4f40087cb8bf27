//! What the agent changes in the kernel: the VIP's address with its lifetime, the local routes,
//! and neighbours that it wants resolved.

use std::net::IpAddr;
use std::time::Duration;

use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope, CacheInfo,
};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_REPLACE};

use super::snapshot::{destination_of, table_of};
use super::{Netlink, NetlinkError};

/// The protocol number that marks our routes (rtm_protocol; free in iproute2's `rt_protos`), so
/// that a later start finds what a killed one left behind.
pub const ROUTE_PROTOCOL: u8 = 76;

/// RT_TABLE_LOCAL: the kernel replies from an address only if it finds it there.
const LOCAL: u8 = 255;

/// Loopback's index in every network namespace (LOOPBACK_IFINDEX).
const LOOPBACK: u32 = 1;

impl Netlink {
    /// Adds a VIP to an interface for `valid`, or extends its lifetime where it is there already.
    ///
    /// The kernel counts lifetimes in whole seconds, so `valid` is rounded up. The address gets no
    /// prefix route and skips duplicate address detection (the agent has asked before). An IPv6
    /// VIP is deprecated from the start, so that the node never chooses it as a source address
    /// (RFC 6724, rule 3); an IPv4 one is /32, which the kernel doesn't choose by itself.
    pub async fn add_address(
        &self,
        ifindex: u32,
        vip: IpAddr,
        valid: Duration,
    ) -> Result<(), NetlinkError> {
        let seconds = whole_seconds(valid);
        let mut message = address_message(ifindex, vip);
        let mut lifetime = CacheInfo::default();
        lifetime.ifa_valid = seconds;
        lifetime.ifa_preferred = if vip.is_ipv4() { seconds } else { 0 };
        message.attributes.push(AddressAttribute::CacheInfo(lifetime));
        message.header.flags = AddressHeaderFlags::Nodad;
        let flags = AddressFlags::Nodad | AddressFlags::Noprefixroute;
        message.attributes.push(AddressAttribute::Flags(flags));
        self.change(
            || format!("add the address {vip} to the interface with index {ifindex}"),
            RouteNetlinkMessage::NewAddress(message),
            NLM_F_CREATE | NLM_F_REPLACE,
            &[],
        )
        .await
    }

    /// Takes a VIP from an interface; nothing happens where it is not there.
    pub async fn remove_address(&self, ifindex: u32, vip: IpAddr) -> Result<(), NetlinkError> {
        self.change(
            || format!("remove the address {vip} from the interface with index {ifindex}"),
            RouteNetlinkMessage::DelAddress(address_message(ifindex, vip)),
            0,
            &[libc::EADDRNOTAVAIL, libc::ENODEV, libc::ENXIO],
        )
        .await
    }

    /// Makes a VIP locally deliverable (`ip route add local VIP dev lo table local`), whether the
    /// node holds it or not. Nothing happens where that is so already.
    pub async fn add_local_route(&self, vip: IpAddr) -> Result<(), NetlinkError> {
        // Appended rather than created exclusively: while the node holds the VIP the kernel has a
        // local route of its own, which goes when the address goes.
        self.change(
            || format!("add the local route for {vip}"),
            RouteNetlinkMessage::NewRoute(local_route(vip)),
            NLM_F_CREATE | NLM_F_APPEND,
            &[libc::EEXIST],
        )
        .await
    }

    /// The reverse of [`add_local_route`](Self::add_local_route); nothing happens where there is
    /// none.
    pub async fn remove_local_route(&self, vip: IpAddr) -> Result<(), NetlinkError> {
        self.change(
            || format!("remove the local route for {vip}"),
            RouteNetlinkMessage::DelRoute(local_route(vip)),
            0,
            &[libc::ESRCH],
        )
        .await
    }

    /// The VIPs of all local routes that an agent made on this node, also an earlier one.
    pub async fn local_routes(&self) -> Result<Vec<IpAddr>, NetlinkError> {
        let mut request = RouteMessage::default();
        request.header.table = LOCAL;
        let routes = self.dump("list local routes", RouteNetlinkMessage::GetRoute(request)).await?;
        let ours = routes.iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewRoute(route) if is_ours(route) => destination_of(route),
            _ => None,
        });
        let mut vips: Vec<_> = ours.collect();
        vips.sort();
        Ok(vips)
    }

    /// Makes the kernel resolve a neighbour, or confirm a stale one, without sending a byte to
    /// the application (NTF_USE). Returns at once; the monitor tells the outcome.
    pub async fn probe_neighbour(&self, ifindex: u32, ip: IpAddr) -> Result<(), NetlinkError> {
        let mut message = NeighbourMessage::default();
        message.header.family = family(ip);
        message.header.ifindex = ifindex;
        message.header.flags = NeighbourFlags::Use;
        message.header.kind = RouteType::Unicast;
        message.attributes.push(NeighbourAttribute::Destination(ip.into()));
        self.change(
            || format!("resolve the neighbour {ip} on the interface with index {ifindex}"),
            RouteNetlinkMessage::NewNeighbour(message),
            NLM_F_CREATE,
            &[],
        )
        .await
    }
}

const fn family(ip: IpAddr) -> AddressFamily {
    match ip {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

/// /32 or /128.
const fn host_prefix(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// At least 1: the kernel refuses 0.
fn whole_seconds(duration: Duration) -> u32 {
    let seconds = duration.as_nanos().div_ceil(1_000_000_000);
    u32::try_from(seconds).unwrap_or(u32::MAX - 1).max(1)
}

fn address_message(ifindex: u32, ip: IpAddr) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(ip);
    message.header.prefix_len = host_prefix(ip);
    message.header.scope = AddressScope::Universe;
    message.header.index = ifindex;
    message.attributes.push(AddressAttribute::Local(ip));
    message.attributes.push(AddressAttribute::Address(ip));
    message
}

fn local_route(vip: IpAddr) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(vip);
    message.header.destination_prefix_length = host_prefix(vip);
    message.header.table = LOCAL;
    message.header.protocol = RouteProtocol::Other(ROUTE_PROTOCOL);
    message.header.scope = if vip.is_ipv4() { RouteScope::Host } else { RouteScope::Universe };
    message.header.kind = RouteType::Local;
    message.attributes.push(RouteAttribute::Destination(RouteAddress::from(vip)));
    message.attributes.push(RouteAttribute::Oif(LOOPBACK));
    message
}

fn is_ours(route: &RouteMessage) -> bool {
    let RouteHeader { protocol, kind, .. } = &route.header;
    *protocol == RouteProtocol::Other(ROUTE_PROTOCOL)
        && *kind == RouteType::Local
        && table_of(route) == u32::from(LOCAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_is_rounded_up_and_never_zero() {
        assert_eq!(whole_seconds(Duration::ZERO), 1);
        assert_eq!(whole_seconds(Duration::from_millis(2000)), 2);
        assert_eq!(whole_seconds(Duration::from_millis(2001)), 3);
        assert_eq!(whole_seconds(Duration::MAX), u32::MAX - 1);
    }
}
