//! Who takes part: a small pool of addresses, ports and services, so that things meet, and the maps
//! before anything happened.

use anyhow::Result;
use lb_common::Address;
use lb_common::backend::Backend;
use lb_common::filter::AddressFilter;
use lb_common::interface::Interface;
use lb_common::protection::Protection;
use lb_common::service::{TCP, UDP};
use lb_common::settings::{LOCAL_UDP, Runtime, Settings, peer_bit};
use lb_common::syn_flood::SynFlood;
use lb_common::vip::Vip;

use crate::model::state::{Sockets, State};
use crate::packet::names;
use crate::packet::scene::{INTERFACE, PORT};

/// A service that a sequence may have.
pub(super) struct Place {
    pub(super) vip: &'static str,
    pub(super) family: u8,
    pub(super) port: u16,
    pub(super) protocol: u8,
}

const fn place(vip: &'static str, family: u8, port: u16, protocol: u8) -> Place {
    Place { vip, family, port, protocol }
}

pub(super) const SERVICES: [Place; 6] = [
    place("vip", 4, PORT, TCP),
    place("vip", 6, PORT, TCP),
    place("vip", 4, PORT, UDP),
    place("vip", 6, PORT, UDP),
    place("vip2", 4, 8444, TCP),
    place("vip2", 6, 53, UDP),
];

/// Of them those over UDP.
pub(super) const DATAGRAM_SERVICES: [usize; 3] = [2, 3, 5];

/// Backends that the maps have room for; the services' begin at multiples of eight.
pub(super) const BACKENDS: u32 = 64;
pub(super) const BACKENDS_PER_SERVICE: u32 = 8;

/// Two tables for each service: a bucket for all clients, and a few.
pub(super) const TABLE_SLOTS: [u32; 2] = [1, 13];

/// One that no service may name.
pub(super) const MISSING_TABLE: u32 = 2 * SERVICES.len() as u32;

/// Rules and lists: one for each service.
pub(super) const PROTECTIONS: u32 = SERVICES.len() as u32;

/// One that no service may name.
pub(super) const MISSING_PROTECTION: u32 = PROTECTIONS;

/// Entries for NAT: few, and an odd number, so that also the second of a flow meets a full map.
pub(super) const NAT_CAPACITY: usize = 11;

pub(super) const VIPS: [(&str, u8); 4] = [("vip", 4), ("vip", 6), ("vip2", 4), ("vip2", 6)];
pub(super) const PEERS: [&str; 2] = ["master2", "master3"];

/// Ports of clients.
pub(super) const CLIENT_PORTS: [u16; 3] = [40000, 40001, 53];

/// What the other interface takes.
const NARROW: u16 = 1400;

/// The model's clock at the start of a sequence. Far from zero, where "never" is.
pub(super) const START_NS: u64 = 1 << 50;

/// The fixed part of every world: no service, no lease, no socket.
pub(super) fn world() -> Result<State> {
    let mut state = State {
        now_ns: START_NS,
        settings: Settings {
            nat_key: 7,
            nat_port_first: 61000,
            nat_port_count: 20,
            flags: LOCAL_UDP,
            ..Settings::default()
        },
        filter: AddressFilter::EMPTY,
        vips: Default::default(),
        interfaces: [(INTERFACE, interface()?), (INTERFACE + 1, narrow()?)].into(),
        peers: Default::default(),
        services: Default::default(),
        tables: Default::default(),
        backends: vec![Backend::EMPTY; BACKENDS as usize],
        protections: (0..PROTECTIONS).map(|index| (index, Protection::NONE)).collect(),
        lists: Default::default(),
        server_ids: Default::default(),
        sockets: Sockets::default(),
        nat_flows: Default::default(),
        nat_capacity: NAT_CAPACITY,
        udp_replies: Default::default(),
        affinities: Default::default(),
        flows: Default::default(),
        fragments: Default::default(),
        rates: Default::default(),
        connections: Default::default(),
        syn_flood: SynFlood::default(),
        runtime: Runtime::default(),
        backend_counters: Default::default(),
        failures: Default::default(),
        syns: Default::default(),
    };
    for (name, family) in VIPS {
        let address = Address::from(names::address(name, family)?);
        state.vips.insert(address, Vip::default());
        state.filter.insert(&address);
    }
    for name in PEERS {
        state.peers.insert(names::mac(name)?);
        state.settings.peers |= peer_bit(&names::mac(name)?);
    }
    Ok(state)
}

/// One that takes less.
fn narrow() -> Result<Interface> {
    Ok(Interface { ifindex: INTERFACE + 1, mtu: NARROW, ..interface()? })
}

pub(super) fn interface() -> Result<Interface> {
    Ok(Interface {
        ifindex: INTERFACE,
        mac: names::mac("master1")?,
        address_v4_be: Address::from(names::address("master1", 4)?).v4_word(),
        address_v6: names::address("master1", 6)?.into(),
        mtu: 9000,
    })
}
