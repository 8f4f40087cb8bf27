//! What the maps should hold: worked out from the configuration, the network and the backends'
//! health. Pure, so that every decision about delivery can be tested without a kernel.

mod delivery;
pub(crate) mod lists;
mod protection;
mod tables;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use lb_common::Address;
use lb_common::backend::{ACCEPTS, ALIVE, Backend, Delivery};
use lb_common::filter::AddressFilter;
use lb_common::hash::mix;
use lb_common::interface::Interface;
use lb_common::service::{
    HAS_LOCAL, HAS_NAT, HASH_PORT, NOTED, PROTECTED, STAYS, Service, ServiceKey,
};
use lb_common::settings::{
    DROP_UNKNOWN_PORTS, HOST_PREFERS_LOCAL, LOCAL_UDP, PeerKey, SYN_COOKIES, SYN_GUARD, Settings,
    VIRTUAL_MAC, peer_bit,
};
use lb_common::virtual_mac::lease_key;

pub use lists::{Conflict, List, Lists};
pub use protection::PlannedProtection;

use crate::config::{self, Config, Hash, Protocol, UnknownPorts};
use crate::netlink::{Mac, Network, NextHop};
use crate::standing::Usable;

pub use tables::{SharedTable, Tables, TablesError};

/// What the maps should hold.
#[derive(Clone, Debug)]
pub struct Plan {
    pub settings: Settings,
    pub filter: AddressFilter,
    pub vips: Vec<IpAddr>,
    pub peers: Vec<PeerKey>,
    /// Attached interfaces, for their slots.
    pub interfaces: Vec<Interface>,
    pub services: Vec<PlannedService>,
    /// Neighbours that must be resolved: interface and address.
    pub unresolved: Vec<(u32, IpAddr)>,
}

#[derive(Clone, Debug)]
pub struct PlannedService {
    /// Index in the configuration.
    pub configured: usize,
    pub address: IpAddr,
    pub key: ServiceKey,
    pub seed: u64,
    pub flags: u32,
    pub table: Arc<SharedTable>,
    /// With the flag [`PROTECTED`].
    pub protection: Option<PlannedProtection>,
    /// In the table's canonical order.
    pub backends: Vec<PlannedBackend>,
}

#[derive(Clone, Debug)]
pub struct PlannedBackend {
    pub address: SocketAddr,
    /// Among the configured service's backends.
    pub place: usize,
    pub weight: u16,
    /// What the map gets.
    pub entry: Backend,
    /// How it is reached if it can be.
    pub intended: Delivery,
    /// What its connection ids name it by.
    pub server_id: Option<u64>,
    /// Why it is delivered so, or why it can't be. All backends of an address share it.
    pub reason: Arc<str>,
    /// Fraction of the buckets in which it comes first.
    pub share: f64,
}

/// The key of a service at one of its addresses.
pub fn key(address: IpAddr, service: &config::Service) -> ServiceKey {
    ServiceKey {
        address: address.into(),
        port_be: service.port.to_be(),
        protocol: match service.protocol {
            Protocol::Tcp => lb_common::service::TCP,
            Protocol::Udp => lb_common::service::UDP,
        },
        padding: 0,
    }
}

/// What a plan is made from.
pub struct Inputs<'a> {
    pub config: &'a Config,
    /// This node's name.
    pub node: &'a str,
    pub tables: &'a Tables,
    pub lists: &'a Lists,
    pub network: &'a Network,
    /// The last MAC that each neighbour answered with: one that is silent now keeps it, since a
    /// node that is only thought dead must stay reachable.
    pub known_macs: &'a HashMap<(u32, IpAddr), Mac>,
    /// Whether this node's kernel takes every SYN cookie that comes back.
    pub syn_cookies: bool,
    /// Indexes of the attached interfaces.
    pub attached: &'a [u32],
    /// By the places of a service in the configuration and of a backend in the service.
    pub usable: &'a dyn Fn(usize, usize) -> Usable,
}

impl Inputs<'_> {
    /// The MAC of a next hop, as the kernel knows it or as it was.
    fn mac(&self, hop: &NextHop) -> Option<Mac> {
        hop.mac.or_else(|| self.known_macs.get(&(hop.ifindex, hop.neighbour)).copied())
    }
}

impl Plan {
    pub fn make(inputs: &Inputs<'_>) -> Self {
        let mut ways = Ways::new(inputs);
        let mut services = Vec::new();
        for (configured, service) in inputs.config.services.iter().enumerate() {
            for &address in &service.addresses {
                services.extend(plan_service(inputs, configured, address, &mut ways));
            }
        }
        let mut unresolved = ways.unresolved;
        let peers = peers(inputs, &mut unresolved);
        let mut filter = AddressFilter::EMPTY;
        for &vip in &inputs.config.virtual_addresses {
            filter.insert(&vip.into());
        }
        let mut unresolved: Vec<_> = unresolved.into_iter().collect();
        unresolved.sort_unstable();
        Self {
            settings: settings(inputs, &peers, &services),
            filter,
            vips: leased(inputs.config).collect(),
            peers,
            interfaces: interfaces(inputs),
            services,
            unresolved,
        }
    }
}

/// The ways to the backends' addresses, each decided once: a thousand services may have the same
/// thousand machines behind them.
struct Ways<'a> {
    inputs: &'a Inputs<'a>,
    known: HashMap<(IpAddr, config::DeliverySetting), delivery::Way>,
    unresolved: HashSet<(u32, IpAddr)>,
}

impl<'a> Ways<'a> {
    fn new(inputs: &'a Inputs<'a>) -> Self {
        Self { inputs, known: HashMap::new(), unresolved: HashSet::new() }
    }

    fn to(&mut self, address: IpAddr, setting: config::DeliverySetting) -> &delivery::Way {
        let Self { inputs, known, unresolved } = self;
        known.entry((address, setting)).or_insert_with(|| {
            let way = delivery::decide(inputs, address, setting);
            unresolved.extend(way.unresolved);
            way
        })
    }
}

fn plan_service(
    inputs: &Inputs<'_>,
    configured: usize,
    address: IpAddr,
    ways: &mut Ways<'_>,
) -> Option<PlannedService> {
    let service = &inputs.config.services[configured];
    let key = key(address, service);
    let built = inputs.tables.of(&key)?;
    let mut flags = if service.hash == Hash::SourcePort { HASH_PORT } else { 0 };
    let mut backends = Vec::with_capacity(built.order.len());
    for (&place, &share) in built.order.iter().zip(built.table.shares()) {
        let place = usize::from(place);
        let backend = service.backends.get(place)?;
        let at = backend.address;
        let way = ways.to(at.ip(), backend.delivery);
        match way.intended {
            Delivery::Local => flags |= HAS_LOCAL,
            Delivery::Nat => flags |= HAS_NAT,
            _ => {}
        }
        let usable = (inputs.usable)(configured, place);
        backends.push(PlannedBackend {
            address: at,
            place,
            weight: backend.weight,
            entry: entry(backend, way, usable),
            intended: way.intended,
            server_id: backend.server_id.map(|id| id.number),
            reason: Arc::clone(&way.reason),
            share,
        });
    }
    let protection = PlannedProtection::of(service, inputs.lists.of(configured));
    if protection.is_some() {
        flags |= PROTECTED;
    }
    flags |= staying(service);
    if tells_clients(service) {
        flags |= NOTED;
    }
    Some(PlannedService {
        configured,
        address,
        key,
        seed: built.seed,
        flags,
        table: Arc::clone(&built.table),
        protection,
        backends,
    })
}

/// Whether clients of a service may have to be told of a backend's end. A datagram waits for nothing.
fn tells_clients(service: &config::Service) -> bool {
    let health = &service.health;
    service.protocol == Protocol::Tcp
        && health.enabled
        && health.reset_clients != config::ResetClients::Never
}

/// What keeps a service's datagrams with their backends, as flags.
fn staying(service: &config::Service) -> u32 {
    // A part of a second counts as a whole one.
    let seconds = |time: Duration| time.as_secs() + u64::from(time.subsec_nanos() > 0);
    let seconds = service.affinity.map_or(0, seconds);
    let affinity = Service::affinity_flags(u16::try_from(seconds).unwrap_or(u16::MAX));
    let scheme = service.quic.map_or(0, |quic| quic.scheme().flags());
    if affinity | scheme == 0 { 0 } else { affinity | scheme | STAYS }
}

fn entry(backend: &config::Backend, way: &delivery::Way, usable: Usable) -> Backend {
    let mut state = 0;
    // What an entry leads to is found by that alone: where new ones are made they are not to be doubted.
    if usable.alive || usable.accepts && way.intended == Delivery::Nat {
        state |= ALIVE;
    }
    if usable.accepts {
        state |= ACCEPTS;
    }
    Backend {
        address: backend.address.ip().into(),
        port_be: backend.address.port().to_be(),
        mac: way.mac,
        source_mac: way.source_mac,
        ifindex: way.ifindex,
        delivery: if usable.gone { Delivery::None } else { way.delivery } as u8,
        state,
        reluctance: usable.reluctance,
        ..Backend::EMPTY
    }
}

/// The MACs of the other nodes, on every address that they have.
fn peers(inputs: &Inputs<'_>, unresolved: &mut HashSet<(u32, IpAddr)>) -> Vec<PeerKey> {
    let mut peers = Vec::new();
    let others = inputs.config.nodes.iter().filter(|node| node.name != inputs.node);
    for address in others.flat_map(|node| &node.addresses) {
        let Ok(hop) = inputs.network.resolve_once_up(*address) else { continue };
        if hop.neighbour != *address {
            // Behind a router: its frames come from the router's MAC.
            continue;
        }
        match inputs.mac(&hop) {
            Some(mac) => peers.push(PeerKey { mac, padding: [0; 2] }),
            None => {
                unresolved.insert((hop.ifindex, hop.neighbour));
            }
        }
    }
    peers.sort_by_key(|peer| peer.mac);
    peers.dedup();
    peers
}

fn interfaces(inputs: &Inputs<'_>) -> Vec<Interface> {
    let own = inputs.config.nodes.iter().find(|node| node.name == inputs.node);
    let own: &[IpAddr] = own.map_or(&[], |node| &node.addresses);
    let vips = &inputs.config.virtual_addresses;
    let planned = inputs.attached.iter().filter_map(|&index| {
        let link = inputs.network.link(index)?;
        // The node's configured address if it is on this interface, or else any that is no VIP.
        let address = |v4: bool| {
            let here = || {
                inputs
                    .network
                    .addresses_of(index)
                    .map(|a| a.address)
                    .filter(|a| a.is_ipv4() == v4 && !vips.contains(a))
            };
            here().find(|a| own.contains(a)).or_else(|| here().next())
        };
        Some(Interface {
            ifindex: index,
            mac: link.mac?,
            mtu: u16::try_from(link.mtu).unwrap_or(0),
            address_v4_be: address(true).map_or(0, |a| Address::from(a).v4_word()),
            address_v6: address(false).map_or(Address::UNSPECIFIED, Address::from),
        })
    });
    planned.collect()
}

/// What this node can have a lease on: the VIPs, and the virtual routers' MACs.
fn leased(config: &Config) -> impl Iterator<Item = IpAddr> {
    let macs = config.vrrp.iter().flat_map(config::Vrrp::virtual_macs);
    config.virtual_addresses.iter().copied().chain(macs.map(|mac| lease_key(mac).into()))
}

fn settings(inputs: &Inputs<'_>, peers: &[PeerKey], services: &[PlannedService]) -> Settings {
    let config = inputs.config;
    let mut flags = 0;
    if config.data_path.unknown_ports == UnknownPorts::Drop {
        flags |= DROP_UNKNOWN_PORTS;
    }
    if config.host.prefer_local {
        flags |= HOST_PREFERS_LOCAL;
    }
    let udp_here =
        |s: &PlannedService| s.flags & HAS_LOCAL != 0 && s.key.protocol == lb_common::service::UDP;
    if services.iter().any(udp_here) {
        flags |= LOCAL_UDP;
    }
    if config.vrrp.as_ref().is_some_and(|vrrp| vrrp.virtual_mac) {
        flags |= VIRTUAL_MAC;
    }
    let mut syn_interval_ns = 0;
    if let Some(guard) = &config.syn_flood {
        syn_interval_ns = 1_000_000_000 / guard.syns_per_second.max(1);
        flags |= if inputs.syn_cookies { SYN_GUARD | SYN_COOKIES } else { SYN_GUARD };
    }
    let uses_nat = services.iter().any(|service| service.flags & HAS_NAT != 0);
    let ports = &config.nat.ports;
    Settings {
        peers: peers.iter().fold(0, |bits, peer| bits | peer_bit(&peer.mac)),
        nat_key: nat_key(config),
        nat_port_first: *ports.start(),
        nat_port_count: if uses_nat { ports.end() - ports.start() + 1 } else { 0 },
        flags,
        syn_interval_ns,
        reserved: 0,
    }
}

/// The key of the hash that names a NAT port: from the configured secret, or else from the VIPs,
/// so that all nodes agree without being told.
fn nat_key(config: &Config) -> u64 {
    let mut hash = 0x6e61_742d_6b65_7921;
    if let Some(secret) = &config.nat.key {
        for byte in secret.bytes() {
            hash = mix(hash ^ u64::from(byte));
        }
        return hash;
    }
    let mut vips: Vec<IpAddr> = config.virtual_addresses.clone();
    vips.sort_unstable();
    for vip in vips {
        for byte in Address::from(vip).octets() {
            hash = mix(hash ^ u64::from(byte));
        }
    }
    hash
}
