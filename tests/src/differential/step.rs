//! What can happen in a sequence, and what a change does to the maps.

use std::fmt;
use std::net::IpAddr;

use anyhow::{Result, ensure};
use lb_common::Address;
use lb_common::backend::Backend;
use lb_common::bucket::{Bucket, NONE, RANKS};
use lb_common::flow::FlowKey;
use lb_common::hash::{mix, service_seed};
use lb_common::protection::{CONNECTION_LIMITED, LISTED, PrefixKey, Protection, RATE_LIMITED};
use lb_common::quic::{Scheme, ServerId};
use lb_common::service::{
    HAS_LOCAL, HAS_NAT, HASH_PORT, NOTED, PROTECTED, STAYS, Service, ServiceKey,
};
use lb_common::settings::{DROP_UNKNOWN_PORTS, SYN_GUARD, peer_bit};

use super::cast::{
    self, BACKENDS_PER_SERVICE, MISSING_PROTECTION, MISSING_TABLE, SERVICES, TABLE_SLOTS,
};
use crate::model::state::State;
use crate::packet::frame::Frame;
use crate::packet::names;
use crate::packet::scene::{self, BACKEND_PORT, INTERFACE, SceneBackend, Way};

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// A frame arrives: steering, and delivery where steering passes it.
    Arrive(Frame),
    /// A backend answers what the entry of this number got, by a frame like this one.
    Reply(usize, Frame),
    /// A frame leaves.
    Leave(Frame),
    /// A service comes, is another from now on, or goes.
    Service(usize, Option<ServiceChange>),
    /// A backend of a service gets well or ill.
    Health(usize, usize, scene::State),
    /// It is reached in another way.
    Reach(usize, usize, Way),
    /// What a service refuses from now on, or that it refuses nothing.
    Protect(usize, Option<ProtectionChange>),
    /// The lease of a VIP, for so many seconds and a half.
    Lease(usize, Option<u64>),
    Peer(&'static str, bool),
    /// First, and how many.
    NatPorts(u16, u16),
    /// Every SYN is one of a flood, or none, or none is looked at.
    SynGuard(Option<bool>),
    UnknownPorts(Unknown),
    Interface(Card),
    Listener(u8, bool),
    Datagrams(u8, bool),
    /// Family, the client's port, and whether there is a connection.
    Connection(u8, u16, bool),
    /// Seconds.
    Wait(u64),
    /// The agent finds the flow of this entry over: both entries go, or this half of a pair.
    Forget(usize, Forgotten),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ServiceChange {
    /// In the order of their ranks where `shuffle` is 0.
    pub(super) backends: Vec<SceneBackend>,
    /// Many buckets, whose ranks follow from `shuffle`.
    pub(super) many_buckets: bool,
    pub(super) shuffle: u64,
    pub(super) hash_port: bool,
    pub(super) noted: bool,
    /// It names a table that is not there.
    pub(super) no_table: bool,
    /// Its datagrams stay, which those over TCP do not look at.
    pub(super) stays: Option<Stays>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stays {
    /// Seconds; 0 where they go by their connection ids alone.
    pub(super) affinity_s: u16,
    pub(super) scheme: Option<Scheme>,
}

/// The octet that a server's id is made of, by its place among the backends.
pub(super) const fn id_octet(place: u8) -> u8 {
    b'a' + place
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ProtectionChange {
    /// Prefixes with what they say; no list where there is none.
    pub(super) list: Vec<(IpAddr, u32, u32)>,
    /// Seconds for a connection, and how many at once. Whole seconds, so that the real clock decides
    /// nothing.
    pub(super) rate: Option<(u64, u64)>,
    /// Bits of an address by which sources are told apart.
    pub(super) mask: u32,
    /// Connections that a source may have at one time.
    pub(super) connections: Option<u64>,
    /// It names rules that are not there.
    pub(super) missing: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unknown {
    Pass,
    Drop,
}

/// What the map says of the interface that frames come in on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Card {
    Usual,
    NoAddress,
    /// The slot is free.
    Missing,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Forgotten {
    Both,
    This,
}

impl Step {
    /// Does to the state what it does, for all but frames.
    pub(super) fn change(&self, state: &mut State) -> Result<()> {
        match self {
            Self::Arrive(_) | Self::Reply(..) | Self::Leave(_) => {}
            Self::Service(number, change) => set_service(state, *number, change.as_ref())?,
            Self::Health(number, at, health) => {
                backend(state, *number, *at).state = health.flags();
            }
            Self::Reach(number, at, way) => {
                backend(state, *number, *at).delivery = way.delivery() as u8;
                mend_flags(state, *number)?;
            }
            Self::Protect(number, change) => protect(state, *number, change.as_ref())?,
            Self::Lease(vip, seconds) => {
                let (name, family) = cast::VIPS[*vip];
                let address = Address::from(names::address(name, family)?);
                // Never so near to an end that the real clock, which goes on meanwhile, decides.
                let until_ns =
                    seconds.map_or(0, |it| state.now_ns + it * SECOND_NS + SECOND_NS / 2);
                state.vips.entry(address).or_default().lease_until_ns = until_ns;
            }
            Self::Peer(name, known) => {
                let mac = names::mac(name)?;
                if *known {
                    state.peers.insert(mac);
                } else {
                    state.peers.remove(&mac);
                }
                state.settings.peers = state.peers.iter().fold(0, |bits, mac| bits | peer_bit(mac));
            }
            Self::NatPorts(first, count) => {
                state.settings.nat_port_first = *first;
                state.settings.nat_port_count = *count;
            }
            Self::SynGuard(floods) => {
                state.settings.flags &= !SYN_GUARD;
                if let Some(floods) = floods {
                    state.settings.flags |= SYN_GUARD;
                    // Both far from where the real clock would decide.
                    state.settings.syn_interval_ns = if *floods { 4_000_000_000 } else { 1 };
                }
            }
            Self::UnknownPorts(Unknown::Drop) => state.settings.flags |= DROP_UNKNOWN_PORTS,
            Self::UnknownPorts(Unknown::Pass) => state.settings.flags &= !DROP_UNKNOWN_PORTS,
            Self::Interface(card) => set_interface(state, *card)?,
            Self::Listener(family, open) => {
                let name = (names::address("master1", *family)?.into(), BACKEND_PORT);
                toggle(&mut state.sockets.listeners, name, *open);
            }
            Self::Datagrams(family, open) => {
                let name = (names::address("master1", *family)?.into(), BACKEND_PORT);
                toggle(&mut state.sockets.datagrams, name, *open);
            }
            Self::Connection(family, port, open) => {
                let client = (names::address("client", *family)?.into(), *port);
                let server = (names::address("vip", *family)?.into(), scene::PORT);
                toggle(&mut state.sockets.connections, (client, server), *open);
            }
            Self::Wait(seconds) => state.now_ns += seconds * SECOND_NS,
            Self::Forget(number, forgotten) => forget(state, *number, *forgotten),
        }
        Ok(())
    }
}

fn set_interface(state: &mut State, card: Card) -> Result<()> {
    let mut interface = cast::interface()?;
    state.interfaces.remove(&INTERFACE);
    match card {
        Card::Usual => {}
        Card::NoAddress => interface.address_v4_be = 0,
        Card::Missing => return Ok(()),
    }
    state.interfaces.insert(INTERFACE, interface);
    Ok(())
}

fn forget(state: &mut State, number: usize, forgotten: Forgotten) {
    let Some(key) = flow(state, number) else { return };
    let entry = state.nat_flows.remove(&key);
    if let (Some(entry), Forgotten::Both) = (entry, forgotten) {
        state.nat_flows.remove(&FlowKey {
            source: entry.destination,
            destination: entry.source,
            source_port_be: entry.destination_port_be,
            destination_port_be: entry.source_port_be,
            ..key
        });
    }
}

pub(super) const SECOND_NS: u64 = 1_000_000_000;

fn toggle<T: Ord>(set: &mut std::collections::BTreeSet<T>, value: T, present: bool) {
    if present {
        set.insert(value);
    } else {
        set.remove(&value);
    }
}

/// The key of the entry of this number, in an order that both sides know.
pub(super) fn flow(state: &State, number: usize) -> Option<FlowKey> {
    let mut keys: Vec<&FlowKey> = state.nat_flows.keys().collect();
    let order = |key: &FlowKey| {
        (key.source, key.destination, key.source_port_be, key.destination_port_be, key.protocol)
    };
    keys.sort_by_key(|key| order(key));
    if keys.is_empty() { None } else { Some(*keys[number % keys.len()]) }
}

fn backend(state: &mut State, number: usize, at: usize) -> &mut Backend {
    &mut state.backends[number * BACKENDS_PER_SERVICE as usize + at]
}

fn key(number: usize) -> Result<ServiceKey> {
    let place = &SERVICES[number];
    let address = names::address(place.vip, place.family)?.into();
    Ok(ServiceKey { address, port_be: place.port.to_be(), protocol: place.protocol, padding: 0 })
}

fn set_service(state: &mut State, number: usize, change: Option<&ServiceChange>) -> Result<()> {
    let key = key(number)?;
    let Some(change) = change else {
        state.services.remove(&key);
        return Ok(());
    };
    ensure!(change.backends.len() <= RANKS, "a service has {RANKS} backends at most");
    for at in 0..BACKENDS_PER_SERVICE as usize {
        let entry = change.backends.get(at).map(|it| it.entry(SERVICES[number].family));
        *backend(state, number, at) = entry.transpose()?.unwrap_or(Backend::EMPTY);
    }
    let slots = TABLE_SLOTS[usize::from(change.many_buckets)];
    let table = number as u32 * 2 + u32::from(change.many_buckets);
    state.tables.insert(table, (0..slots).map(|slot| change.bucket(slot)).collect());
    let service = Service {
        seed: service_seed(&key.address, key.port_be, key.protocol),
        table: if change.no_table { MISSING_TABLE } else { table },
        slots,
        backends: number as u32 * BACKENDS_PER_SERVICE,
        flags: if change.hash_port { HASH_PORT } else { 0 }
            | if change.noted { NOTED } else { 0 }
            | change.stays.map_or(0, Stays::flags),
        backend_count: change.backends.len() as u32,
        protection: 0,
    };
    state.server_ids.retain(|id, _| id.backends != service.backends);
    if let Some(scheme) = change.stays.and_then(|stays| stays.scheme) {
        for place in 0..change.backends.len() as u8 {
            let octets = [id_octet(place); 8];
            let id = u64::from_be_bytes(octets) >> (64 - 8 * u32::from(scheme.id_bytes));
            let key = ServerId { backends: service.backends, padding: 0, id };
            state.server_ids.insert(key, u32::from(place));
        }
    }
    state.services.insert(key, service);
    mend_flags(state, number)
}

fn protect(state: &mut State, number: usize, change: Option<&ProtectionChange>) -> Result<()> {
    let key = key(number)?;
    let Some(service) = state.services.get_mut(&key) else { return Ok(()) };
    service.flags &= !PROTECTED;
    let Some(change) = change else { return Ok(()) };
    service.flags |= PROTECTED;
    let index = number as u32;
    service.protection = if change.missing { MISSING_PROTECTION } else { index };
    let mut rules = Protection { list: index, ..Protection::NONE };
    if !change.list.is_empty() {
        rules.rules |= LISTED;
        let entry = |(address, length, says): &(IpAddr, u32, u32)| {
            let mapped = if address.is_ipv4() { 96 } else { 0 };
            (PrefixKey { length: mapped + length, address: (*address).into() }, *says)
        };
        state.lists.insert(index, change.list.iter().map(entry).collect());
    }
    if let Some((interval_s, burst)) = change.rate {
        rules.rules |= RATE_LIMITED;
        rules.interval_ns = interval_s * SECOND_NS;
        rules.allowance_ns = burst * rules.interval_ns;
        let mask = u128::MAX.checked_shl(128 - change.mask).unwrap_or(0);
        rules.rate_mask = Address::from_v6(mask.to_be_bytes());
    }
    if let Some(most) = change.connections {
        rules.rules |= CONNECTION_LIMITED;
        rules.connections = most;
        let mask = u128::MAX.checked_shl(128 - change.mask).unwrap_or(0);
        rules.connection_mask = Address::from_v6(mask.to_be_bytes());
    }
    state.protections.insert(index, rules);
    Ok(())
}

/// What the agent says of a service follows from how its backends are reached.
fn mend_flags(state: &mut State, number: usize) -> Result<()> {
    let first = number * BACKENDS_PER_SERVICE as usize;
    let backends = &state.backends[first..first + BACKENDS_PER_SERVICE as usize];
    let has = |way: Way| backends.iter().any(|it| it.delivery == way.delivery() as u8);
    let flag = |way, flag| if has(way) { flag } else { 0 };
    let flags = flag(Way::Local, HAS_LOCAL) | flag(Way::Nat, HAS_NAT);
    if let Some(service) = state.services.get_mut(&key(number)?) {
        service.flags = service.flags & !(HAS_LOCAL | HAS_NAT) | flags;
    }
    Ok(())
}

impl Stays {
    fn flags(self) -> u32 {
        STAYS | Service::affinity_flags(self.affinity_s) | self.scheme.map_or(0, Scheme::flags)
    }
}

impl ServiceChange {
    fn bucket(&self, slot: u32) -> Bucket {
        let mut order: Vec<u16> = (0..self.backends.len() as u16).collect();
        if self.shuffle != 0 {
            order.sort_by_key(|rank| mix(self.shuffle ^ u64::from(slot) << 16 ^ u64::from(*rank)));
        }
        let mut ranks = [NONE; RANKS];
        ranks[..order.len()].copy_from_slice(&order);
        Bucket { ranks }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arrive(frame) => write!(f, "arrives: {}", shown(frame)),
            Self::Reply(number, frame) => write!(f, "reply to entry {number}: {}", shown(frame)),
            Self::Leave(frame) => write!(f, "leaves: {}", shown(frame)),
            Self::Service(number, change) => {
                let place = &SERVICES[*number];
                let (vip, family, port) = (place.vip, place.family, place.port);
                write!(f, "service {number} ({vip}, IPv{family}, {port}/{}): ", place.protocol)?;
                let Some(change) = change else { return write!(f, "gone") };
                for it in &change.backends {
                    let (name, interface) = (&it.name, it.interface);
                    write!(f, "[{name} {:?} {:?} if{interface}] ", it.delivery, it.state)?;
                }
                let ServiceChange { many_buckets, shuffle, hash_port, noted, no_table, .. } =
                    change;
                write!(f, "many_buckets {many_buckets}, shuffle {shuffle}, ")?;
                write!(f, "hash_port {hash_port}, noted {noted}, ")?;
                write!(f, "no_table {no_table}, {:?}", change.stays)
            }
            other => write!(f, "{other:?}"),
        }
    }
}

/// As a fixture writes it.
fn shown(frame: &Frame) -> toml::Value {
    frame.fields().into()
}
