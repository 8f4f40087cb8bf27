//! What this node makes of a flow that another one tells of: both entries, by its own ways. Pure.

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use lb_common::Address;
use lb_common::backend::{Backend, Delivery};
use lb_common::nat::{FROM_BACKEND, FROM_CLIENT, NatEntry};
use lb_common::service::ServiceKey;

use super::board::Refusal;
use super::record::Record;
use crate::dataplane::{Told, Translation};
use crate::netlink::{Mac, Network};

/// This node's end of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinkEnd {
    pub ifindex: u32,
    pub mac: Mac,
}

/// The ways that a flow can take from this node.
#[derive(Clone, Debug)]
pub struct Ways {
    /// Backends behind NAT, by service, address and port (big-endian): their index, and how they are reached.
    pub backends: HashMap<(ServiceKey, Address, u16), (u32, Backend)>,
    /// The links that VIPs are on.
    pub vips: HashMap<Address, LinkEnd>,
    pub ports: RangeInclusive<u16>,
    /// For clients that are reached by another link than the VIP's.
    pub network: Network,
    /// For so long a flow may be silent.
    pub udp_timeout: Duration,
    pub tcp_timeout: Duration,
}

impl Default for Ways {
    fn default() -> Self {
        Self {
            backends: HashMap::new(),
            vips: HashMap::new(),
            ports: 0..=0,
            network: Network::default(),
            udp_timeout: Duration::ZERO,
            tcp_timeout: Duration::ZERO,
        }
    }
}

impl Ways {
    /// The flow with this node's entries, as if it had seen its last packet when the other node did.
    ///
    /// # Errors
    /// Why it cannot go on through this node.
    pub(super) fn adopt(&self, record: &Record, now_ns: u64) -> Result<Translation, Refusal> {
        let Record { client, backend, backend_port_be, nat_port_be, .. } = *record;
        let service = ServiceKey {
            address: client.destination,
            port_be: client.destination_port_be,
            protocol: client.protocol,
            padding: 0,
        };
        let (index, to) = self
            .backends
            .get(&(service, backend, backend_port_be))
            .filter(|(_, to)| to.delivery == Delivery::Nat as u8)
            .ok_or(Refusal::NoBackend)?;
        if !self.ports.contains(&u16::from_be(nat_port_be)) {
            return Err(Refusal::NoPort);
        }
        let (end, hop) = self.way_back(record)?;
        let last_seen_ns = used_ns(record, now_ns);
        let forward = NatEntry {
            source: client.destination,
            destination: backend,
            source_port_be: nat_port_be,
            destination_port_be: backend_port_be,
            ifindex: to.ifindex,
            mac: to.mac,
            source_mac: to.source_mac,
            direction: FROM_CLIENT,
            seen: record.seen[0],
            last_seen_ns,
            backend: *index,
            told: NatEntry::mark(last_seen_ns),
            ..NatEntry::EMPTY
        };
        let back = NatEntry {
            source: client.destination,
            destination: client.source,
            source_port_be: client.destination_port_be,
            destination_port_be: client.source_port_be,
            ifindex: end.ifindex,
            mac: hop,
            source_mac: end.mac,
            direction: FROM_BACKEND,
            seen: record.seen[1],
            ..forward
        };
        Ok(Translation { client, forward, back })
    }

    /// To the client: as the other node does it where both have the VIP on one link, or else by this node's own
    /// routes.
    fn way_back(&self, record: &Record) -> Result<(LinkEnd, Mac), Refusal> {
        let vip = self.vips.get(&record.client.destination).ok_or(Refusal::NoLink)?;
        match record.hop {
            // The client is this very machine, which reaches its VIPs by itself.
            Some(hop) if hop == vip.mac => Err(Refusal::OwnClient),
            Some(hop) => Ok((*vip, hop)),
            None => {
                let client = IpAddr::from(record.client.source);
                let hop = self.network.resolve(client).map_err(|_| Refusal::NoWayBack)?;
                let end = LinkEnd { ifindex: hop.ifindex, mac: hop.source_mac };
                Ok((end, hop.mac.ok_or(Refusal::NoWayBack)?))
            }
        }
    }
}

/// What was told, in this node's clock.
pub(super) fn told(record: &Record, now_ns: u64) -> Told {
    Told { used_ns: used_ns(record, now_ns), seen: record.seen }
}

fn used_ns(record: &Record, now_ns: u64) -> u64 {
    now_ns.saturating_sub(u64::from(record.silent_s) * 1_000_000_000)
}
