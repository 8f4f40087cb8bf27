//! A node in memory: maps and sockets as plain values, and the programs on it.

use std::cell::{Cell, OnceCell};
use std::convert::Infallible;

use lb_common::Address;
use lb_common::affinity::Affinity;
use lb_common::backend::{ACCEPTS, ALIVE, Backend, Delivery};
use lb_common::bucket::{Bucket, NONE, RANKS};
use lb_common::connection::Connection;
use lb_common::counter::{Outcome, Verdict};
use lb_common::filter::AddressFilter;
use lb_common::flow::{Endpoint, FlowKey};
use lb_common::fragment::{Fragment, FragmentKey};
use lb_common::hash::service_seed;
use lb_common::interface::Interface;
use lb_common::layout::stage;
use lb_common::nat::NatEntry;
use lb_common::protection::{Protection, SourceKey};
use lb_common::quic::ServerId;
use lb_common::service::{HAS_LOCAL, HAS_NAT, HASH_PORT, Service, ServiceKey, TCP, UDP};
use lb_common::settings::{DROP_UNKNOWN_PORTS, LOCAL_UDP, Settings, peer_bit};
use lb_common::vip::Vip;
use lb_ebpf::answer::{QUOTED, answer};
use lb_ebpf::deep::DEPTH;
use lb_ebpf::deliver::{deliver, deliver_rare};
use lb_ebpf::egress::{Leaving, is_dropped, leave, leave_rare};
use lb_ebpf::environment::{Assign, InsertError, Node, Owner};
use lb_ebpf::parse::{Packet, Parsed, parse, parse_network};
use lb_ebpf::rare::{Rare, steer_deep, steer_rare};
use lb_ebpf::stay::steer_datagram;
use lb_ebpf::steer::steer;
use lb_ebpf::wire::Mac;

use super::frame::{Bytes, INTERFACE, Kind};
use crate::made_up::setting::{
    BACKEND_PORT, Backing, CLIENT, CLIENT_PORT, NAT_PORT, NODE, PEERS, PORT, STAYING, Setting, VIP,
};
use crate::made_up::story::{End, Place, Programs};

/// More than a story makes.
const ENTRIES: usize = 64;

/// A map whose values stay where they are, since the programs hold on to them.
struct Entries<K, V> {
    slots: Vec<(OnceCell<(K, V)>, Cell<bool>)>,
}

impl<K: PartialEq, V> Entries<K, V> {
    fn new(room: usize) -> Self {
        Self { slots: (0..room).map(|_| (OnceCell::new(), Cell::new(false))).collect() }
    }

    fn find(&self, key: &K) -> Option<&V> {
        let present = self.slots.iter().filter(|(_, gone)| !gone.get());
        let mut present = present.filter_map(|(slot, _)| slot.get());
        present.find(|(at, _)| at == key).map(|(_, value)| value)
    }

    fn remove(&self, key: &K) {
        for (slot, gone) in &self.slots {
            if slot.get().is_some_and(|(at, _)| at == key) {
                gone.set(true);
            }
        }
    }

    /// Whether there was room.
    fn add(&self, key: K, value: V) -> bool {
        let free = self.slots.iter().find(|(slot, _)| slot.get().is_none());
        free.is_some_and(|(slot, _)| slot.set((key, value)).is_ok())
    }
}

/// The node of a setting, with steering at tc or else at XDP.
pub struct Plain<const TC: bool> {
    setting: Setting,
    settings: Settings,
    filter: AddressFilter,
    interface: Interface,
    vip: Vip,
    services: Vec<(ServiceKey, Service)>,
    bucket: Bucket,
    backends: Vec<Backend>,
    nat: Entries<FlowKey, NatEntry>,
    replies: Entries<FlowKey, Endpoint>,
    affinities: Entries<FlowKey, Affinity>,
    fragments: Entries<FragmentKey, Fragment>,
}

impl<const TC: bool> Plain<TC> {
    const KIND: Kind = if TC { Kind::Tc } else { Kind::Xdp };

    pub fn new(setting: &Setting) -> Self {
        let mut filter = AddressFilter::EMPTY;
        let mut services = Vec::new();
        let mut backends = Vec::new();
        for family in [4, 6] {
            let vip = Address::from(VIP.address(family));
            filter.insert(&vip);
            for protocol in [TCP, UDP] {
                services.push(service(setting, vip, protocol, backends.len() as u32));
            }
            backends.extend(setting.backends.iter().map(|backing| backend(backing, family)));
        }
        let mut ranks = [NONE; RANKS];
        for (rank, slot) in ranks.iter_mut().enumerate().take(setting.backends.len()) {
            *slot = rank as u16;
        }
        let own = |family| Address::from(NODE.address(family));
        Self {
            setting: setting.clone(),
            settings: settings(setting),
            filter,
            interface: Interface {
                ifindex: INTERFACE,
                mac: NODE.mac,
                address_v4_be: if setting.no_address { 0 } else { own(4).v4_word() },
                address_v6: own(6),
                mtu: 1500,
            },
            vip: Vip { lease_until_ns: if setting.lease { u64::MAX } else { 0 } },
            services,
            bucket: Bucket { ranks },
            backends,
            nat: Entries::new(setting.nat_room.unwrap_or(ENTRIES).min(ENTRIES)),
            replies: Entries::new(ENTRIES),
            affinities: Entries::new(ENTRIES),
            fragments: Entries::new(ENTRIES),
        }
    }

    fn own(&self, local: &Backend) -> bool {
        NODE.has(local.address.into()) && u16::from_be(local.port_be) == BACKEND_PORT
    }
}

fn settings(setting: &Setting) -> Settings {
    let unknown = if setting.drop_unknown_ports { DROP_UNKNOWN_PORTS } else { 0 };
    let local = if setting.has(Delivery::Local) { LOCAL_UDP } else { 0 };
    Settings {
        peers: PEERS.iter().fold(0, |bits, peer| bits | peer_bit(&peer.mac)),
        nat_key: 7,
        nat_port_first: NAT_PORT,
        nat_port_count: setting.nat_ports,
        flags: unknown | local,
        syn_interval_ns: 0,
        reserved: 0,
    }
}

fn service(setting: &Setting, vip: Address, protocol: u8, base: u32) -> (ServiceKey, Service) {
    let port_be = PORT.to_be();
    let flag = |delivery, flag| if setting.has(delivery) { flag } else { 0 };
    let service = Service {
        seed: service_seed(&vip, port_be, protocol),
        table: 0,
        slots: 1,
        backends: base,
        flags: HASH_PORT
            | flag(Delivery::Local, HAS_LOCAL)
            | flag(Delivery::Nat, HAS_NAT)
            | if setting.stays { STAYING } else { 0 },
        backend_count: setting.backends.len() as u32,
        protection: 0,
    };
    (ServiceKey { address: vip, port_be, protocol, padding: 0 }, service)
}

fn backend(backing: &Backing, family: u8) -> Backend {
    let bit = |is, bit| if is { bit } else { 0 };
    Backend {
        address: backing.machine.address(family).into(),
        mac: backing.machine.mac,
        delivery: backing.delivery as u8,
        // The agent writes no backend that accepts and is down.
        state: bit(backing.alive || backing.accepts, ALIVE) | bit(backing.accepts, ACCEPTS),
        port_be: BACKEND_PORT.to_be(),
        source_mac: NODE.mac,
        ifindex: INTERFACE + u32::from(backing.elsewhere),
        ..Backend::EMPTY
    }
}

impl<const TC: bool> Programs for Plain<TC> {
    type Error = Infallible;
    // XDP cannot tell such a frame (docs/packet-path.md, known limits).
    const OPEN: bool = TC;

    fn steer(&mut self, frame: &mut Vec<u8>, open: bool) -> Result<End, Infallible> {
        let bytes = std::mem::take(frame);
        let mut bytes = Bytes::new(bytes, Self::KIND, self.setting.linear, open);
        let mut steered = steer(&mut bytes, self);
        let mut deep = None;
        let rare = steered.stage() == Some(stage::RARE);
        if rare {
            bytes.reach(DEPTH as usize);
            steered = match steer_rare(&mut bytes, self) {
                Rare::Steered(steered) => steered,
                Rare::Deep(packet) => {
                    deep = Some(packet);
                    steer_deep(&mut bytes, self, &packet)
                }
            };
        }
        if steered.stage() == Some(stage::STAY) {
            bytes.reach(DEPTH as usize);
            steered = steer_datagram(&mut bytes, self, deep.as_ref());
        }
        if let Some(mtu) = steered.answered()
            && !rare
        {
            bytes.reach(QUOTED as usize);
            steered = answer(&mut bytes, self, mtu).unwrap_or(steered);
        }
        *frame = bytes.bytes;
        Ok(match steered.verdict.outcome() {
            Outcome::Forward => End::Sent,
            Outcome::Drop => End::Dropped,
            Outcome::Pass | Outcome::Deliver => End::Passed,
            Outcome::Host => panic!("a frame is no call of a process"),
        })
    }

    fn deliver(&mut self, frame: &mut Vec<u8>, place: Place) -> Result<(), Infallible> {
        // Behind generic XDP the link header is out of sight where there is no tag.
        let hidden = if place == Place::ArrivesGenerically { 14 } else { 0 };
        let ethertype = u16::from_ne_bytes([frame[12], frame[13]]);
        let linear = self.setting.linear;
        let mut bytes = Bytes::new(frame.split_off(hidden), Kind::Tc, linear, false);
        let ours = |address: &Address| self.may_be_ours(address);
        let parsed = match hidden {
            0 => parse(&bytes, ours),
            _ => parse_network(&bytes, ours, 0, ethertype),
        };
        match parsed {
            Parsed::Deep(network) => {
                bytes.reach(DEPTH as usize);
                deliver_rare(&mut bytes, self, network)
            }
            parsed => deliver(&mut bytes, self, parsed),
        };
        frame.extend(bytes.bytes);
        Ok(())
    }

    fn leave(&mut self, frame: &mut Vec<u8>) -> Result<End, Infallible> {
        let bytes = std::mem::take(frame);
        let mut bytes = Bytes::new(bytes, Kind::Tc, self.setting.linear, false);
        let verdict = match leave(&mut bytes, self) {
            Leaving::Untouched => None,
            Leaving::Decided(verdict) => Some(verdict),
            Leaving::Rare => {
                bytes.reach(DEPTH as usize);
                leave_rare(&mut bytes, self)
            }
        };
        *frame = bytes.bytes;
        Ok(if verdict.is_some_and(is_dropped) { End::Dropped } else { End::Passed })
    }
}

impl<const TC: bool> Node for Plain<TC> {
    fn settings(&self) -> Option<&Settings> {
        Some(&self.settings)
    }
    fn may_be_ours(&self, address: &Address) -> bool {
        self.filter.may_contain(address)
    }
    fn interface(&self, index: u32) -> Option<&Interface> {
        Some(&self.interface).filter(|interface| interface.ifindex == index)
    }
    fn vip(&self, address: &Address) -> Option<&Vip> {
        VIP.has((*address).into()).then_some(&self.vip)
    }
    fn is_peer(&self, mac: Mac) -> bool {
        PEERS.iter().any(|peer| peer.mac == mac.bytes())
    }
    fn service(&self, key: &ServiceKey) -> Option<&Service> {
        self.services.iter().find(|(at, _)| at == key).map(|(_, service)| service)
    }
    fn bucket(&self, table: u32, slot: u32) -> Option<&Bucket> {
        (table == 0 && slot == 0).then_some(&self.bucket)
    }
    fn backend(&self, index: u32) -> Option<&Backend> {
        // The kernel's array goes on behind what is in use.
        Some(self.backends.get(index as usize).unwrap_or(const { &Backend::EMPTY }))
    }
    fn protection(&self, _: u32) -> Option<&Protection> {
        None
    }
    fn listed(&self, _: u32, _: &Address) -> u32 {
        0
    }
    fn spend(&self, _: &SourceKey, decide: impl Fn(u64) -> Option<u64>) -> bool {
        decide(0).is_some()
    }
    fn connection(&self, _: &FlowKey) -> Option<&Connection> {
        None
    }
    fn connection_begin(&self, _: &FlowKey, _: &Connection) {}
    fn connection_touch(&self, _: &FlowKey, _: &Connection, _: u32) {}
    fn connection_close(&self, _: &FlowKey, _: &Connection) {}
    fn connection_forget(&self, _: &FlowKey) {}
    fn open_connections(&self, _: [u32; 2]) -> u64 {
        0
    }
    fn syn_flood(&self, _: u32) -> bool {
        false
    }
    fn leave_syn(&self, _: u32) -> bool {
        false
    }
    fn note_refused(&self, _: u32) {}
    fn note_unanswered(&self, _: u32) {}
    fn syn_again(&self, _: u64) -> bool {
        false
    }
    fn tcp_owner(&self, packet: &Packet) -> Owner {
        let flow = &packet.flow;
        let from = CLIENT.has(flow.source.into()) && flow.source_port_be == CLIENT_PORT.to_be();
        let to = VIP.has(flow.destination.into()) && flow.destination_port_be == PORT.to_be();
        match self.setting.connected && from && to {
            false => Owner::Nobody,
            true if self.setting.time_wait => Owner::TimeWait,
            true => Owner::Connection,
        }
    }
    fn tcp_listener(&self, _: &Packet, local: &Backend) -> bool {
        self.setting.listening && self.own(local)
    }
    fn tcp_cookie(&self, packet: &Packet, local: &Backend) -> bool {
        self.setting.cookie_valid && self.tcp_listener(packet, local)
    }
    fn udp_socket(&self, packet: &Packet, local: &Backend) -> bool {
        self.tcp_listener(packet, local)
    }
    fn nat_entry(&self, key: &FlowKey) -> Option<&NatEntry> {
        self.nat.find(key)
    }
    fn nat_insert(&self, key: &FlowKey, entry: &NatEntry) -> Result<(), InsertError> {
        if self.nat.find(key).is_some() {
            return Err(InsertError::Exists);
        }
        if self.nat.add(*key, *entry) { Ok(()) } else { Err(InsertError::Full) }
    }
    fn nat_remove(&self, key: &FlowKey) {
        self.nat.remove(key);
    }
    fn nat_touch(&self, _: &FlowKey, _: &NatEntry, _: u8, _: u64, _: bool) {}
    fn affinity(&self, flow: &FlowKey) -> Option<&Affinity> {
        self.affinities.find(flow)
    }
    fn affinity_note(&self, flow: &FlowKey, affinity: &Affinity) {
        self.affinities.remove(flow);
        self.affinities.add(*flow, *affinity);
    }
    fn affinity_touch(&self, _: &FlowKey, _: &Affinity) {}
    fn flow_touch(&self, _: &FlowKey, _: u32, _: u32) -> bool {
        false
    }
    fn flow_add(&self, _: &FlowKey, _: u32, _: u32, _: u32) {}
    fn flow_forget(&self, _: &FlowKey) {}
    fn server(&self, id: &ServerId) -> Option<u32> {
        let place = u32::try_from(id.id).ok()?;
        (place < self.setting.backends.len() as u32).then_some(place)
    }
    fn udp_reply(&self, reply: &FlowKey) -> Option<&Endpoint> {
        self.replies.find(reply)
    }
    fn udp_remember(&self, reply: &FlowKey, service: &Endpoint) {
        self.replies.remove(reply);
        self.replies.add(*reply, *service);
    }
    fn fragment(&self, key: &FragmentKey) -> Option<&Fragment> {
        self.fragments.find(key)
    }
    fn fragment_remember(&self, key: &FragmentKey, first: &Fragment) {
        self.fragments.remove(key);
        self.fragments.add(*key, *first);
    }
    fn fragment_forget(&self, key: &FragmentKey) {
        self.fragments.remove(key);
    }
    fn may_answer(&self) -> bool {
        true
    }
    fn note_cookie(&self) {}
    fn cookies_about(&self) -> bool {
        self.setting.cookies_about
    }
    fn now_ns(&self) -> u64 {
        1_000_000_000
    }
    fn count(&self, _: Verdict) {}
    fn count_backend(&self, index: u32, bytes: u32, _: bool) {
        assert!((index as usize) < self.backends.len(), "a backend that no service has is counted");
        assert!(bytes >= 14);
    }
}

impl<const TC: bool> Assign for Plain<TC> {
    fn assign_listener(&self, packet: &Packet, local: &Backend) -> bool {
        self.tcp_listener(packet, local)
    }
}
