//! What a node knows when a frame arrives: the maps of docs/packet-path.md ("Maps"), the sockets, and
//! the clock.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use lb_common::Address;
use lb_common::affinity::Affinity;
use lb_common::backend::{Backend, BackendCounters};
use lb_common::bucket::Bucket;
use lb_common::filter::AddressFilter;
use lb_common::flow::{Endpoint, Flow, FlowKey};
use lb_common::fragment::{Fragment, FragmentKey};
use lb_common::interface::Interface;
use lb_common::nat::NatEntry;
use lb_common::protection::{PrefixKey, Protection, SourceKey};
use lb_common::quic::ServerId;
use lb_common::service::{Service, ServiceKey};
use lb_common::settings::{Runtime, Settings, peer_bit};
use lb_common::syn_flood::SynFlood;
use lb_common::vip::Vip;

use super::passive::{Failures, Syn};

/// A MAC as in a frame.
pub type Mac = [u8; 6];

/// An address and port of a socket, in host order.
pub type SocketName = (Address, u16);

#[derive(Clone, Debug)]
pub struct State {
    /// `CLOCK_MONOTONIC`.
    pub now_ns: u64,
    pub settings: Settings,
    pub filter: AddressFilter,
    pub vips: BTreeMap<Address, Vip>,
    /// By index.
    pub interfaces: BTreeMap<u32, Interface>,
    pub peers: BTreeSet<Mac>,
    pub services: HashMap<ServiceKey, Service>,
    pub tables: BTreeMap<u32, Vec<Bucket>>,
    /// By index; an array, so that each index below its length has one.
    pub backends: Vec<Backend>,
    /// By index, as far as a service may name it.
    pub protections: BTreeMap<u32, Protection>,
    /// By index; each prefix once.
    pub lists: BTreeMap<u32, Vec<(PrefixKey, u32)>>,
    /// Places among a service's backends.
    pub server_ids: BTreeMap<ServerId, u32>,
    pub sockets: Sockets,

    // What the programs write.
    pub nat_flows: HashMap<FlowKey, NatEntry>,
    /// Entries that `nat_flows` takes.
    pub nat_capacity: usize,
    pub udp_replies: HashMap<FlowKey, Endpoint>,
    pub affinities: HashMap<FlowKey, Affinity>,
    /// Without times.
    pub flows: HashMap<FlowKey, Flow>,
    pub fragments: HashMap<FragmentKey, Fragment>,
    pub rates: HashMap<SourceKey, u64>,
    pub connections: HashMap<FlowKey, Open>,
    pub syn_flood: SynFlood,
    pub runtime: Runtime,
    pub backend_counters: BTreeMap<u32, BackendCounters>,
    pub failures: BTreeMap<u32, Failures>,
    /// By their place.
    pub syns: HashMap<u32, Syn>,
}

/// A connection to a service that limits them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Open {
    pub source: SourceKey,
    /// As in the map.
    pub stage: u32,
    pub last_seen_ns: u64,
}

/// The sockets of this node, as far as they matter.
#[derive(Clone, Default, Debug)]
pub struct Sockets {
    /// TCP listeners.
    pub listeners: BTreeSet<SocketName>,
    /// UDP sockets.
    pub datagrams: BTreeSet<SocketName>,
    /// TCP connections, from the client's name to this node's.
    pub connections: BTreeSet<(SocketName, SocketName)>,
    /// SYN cookies that listeners sent and that are still valid, as the connection that they offer.
    pub cookies: BTreeSet<(SocketName, SocketName)>,
}

impl Sockets {
    /// "A socket other than a listener has the tuple."
    pub(super) fn has_connection(&self, tuple: &FlowKey) -> bool {
        self.connections.contains(&ends(tuple))
    }

    pub(super) fn has_cookie(&self, tuple: &FlowKey) -> bool {
        self.cookies.contains(&ends(tuple))
    }
}

fn ends(tuple: &FlowKey) -> (SocketName, SocketName) {
    let client = (tuple.source, u16::from_be(tuple.source_port_be));
    let server = (tuple.destination, u16::from_be(tuple.destination_port_be));
    (client, server)
}

impl State {
    /// "ARP request for a VIP, this node has a lease".
    pub(super) fn has_lease(&self, vip: &Address) -> bool {
        self.vips.get(vip).is_some_and(|vip| self.now_ns < vip.lease_until_ns)
    }

    pub(super) fn is_vip(&self, address: &Address) -> bool {
        self.vips.contains_key(address)
    }

    /// "A frame whose source MAC is another node's." The bits in the settings are a filter before
    /// the map: a clear one settles it.
    pub(super) fn is_peer(&self, mac: &Mac) -> bool {
        self.settings.peers & peer_bit(mac) != 0 && self.peers.contains(mac)
    }

    pub(super) fn interface(&self, index: u32) -> Option<&Interface> {
        self.interfaces.get(&index)
    }

    pub(super) fn backend(&self, index: u32) -> Option<&Backend> {
        self.backends.get(index as usize)
    }

    /// Whether it is one of `nat.ports`.
    pub(super) fn is_nat_port(&self, port: u16) -> bool {
        let first = u32::from(self.settings.nat_port_first);
        let end = first + u32::from(self.settings.nat_port_count);
        (first..end).contains(&u32::from(port))
    }

    /// Adds a packet to a backend's counters: "Packets steered to it by this node"; `new` for a SYN,
    /// "or the first datagram of a NAT flow".
    pub(super) fn count_backend(&mut self, index: u32, frame: &[u8], new: bool) {
        let counters = self.backend_counters.entry(index).or_default();
        counters.packets += 1;
        counters.bytes += frame.len() as u64;
        counters.connections += u64::from(new);
    }

    /// Makes an entry where none is.
    pub(super) fn insert_flow(&mut self, key: FlowKey, entry: NatEntry) -> Result<(), NotMade> {
        if self.nat_flows.contains_key(&key) {
            return Err(NotMade::Taken);
        }
        if self.nat_flows.len() >= self.nat_capacity {
            return Err(NotMade::Full);
        }
        self.nat_flows.insert(key, entry);
        Ok(())
    }
}

/// Why an entry was not made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NotMade {
    Taken,
    Full,
}
