//! A flow for all of them.

mod adoption;
mod board;
mod channel;
mod journal;
mod words;

use lb_common::Address;
use lb_common::backend::{Backend, Delivery};
use lb_common::flow::FlowKey;
use lb_common::nat::{FROM_BACKEND, FROM_CLIENT, NatEntry, SEEN_DATA, SEEN_SYN};
use lb_common::service::{ServiceKey, TCP};

use super::adoption::{LinkEnd, Ways};
use super::record::Record;
use crate::dataplane::Translation;
use crate::netlink::Mac;

const SECOND: u64 = 1_000_000_000;
const CLIENT_MAC: Mac = [2, 0, 0, 0, 0, 20];
const OWN_MAC: Mac = [2, 0, 0, 0, 0, 1];
const BACKEND_MAC: Mac = [2, 0, 0, 0, 0, 201];
const VIP_LINK: u32 = 3;
const BACKEND_LINK: u32 = 4;
const INDEX: u32 = 7;

fn client() -> FlowKey {
    FlowKey {
        source: Address::from_v4([192, 168, 139, 20]),
        destination: Address::from_v4([192, 168, 139, 150]),
        source_port_be: 40_000u16.to_be(),
        destination_port_be: 7000u16.to_be(),
        protocol: TCP,
        padding: [0; 3],
    }
}

fn backend() -> Backend {
    Backend {
        address: Address::from_v4([192, 168, 139, 201]),
        port_be: 7007u16.to_be(),
        mac: BACKEND_MAC,
        source_mac: OWN_MAC,
        ifindex: BACKEND_LINK,
        delivery: Delivery::Nat as u8,
        ..Backend::EMPTY
    }
}

fn record() -> Record {
    Record {
        client: client(),
        backend: backend().address,
        backend_port_be: backend().port_be,
        nat_port_be: 61_234u16.to_be(),
        seen: [SEEN_SYN | SEEN_DATA, SEEN_DATA],
        hop: Some(CLIENT_MAC),
        silent_s: 5,
    }
}

fn ways() -> Ways {
    let service = ServiceKey {
        address: client().destination,
        port_be: client().destination_port_be,
        protocol: TCP,
        padding: 0,
    };
    let end = LinkEnd { ifindex: VIP_LINK, mac: OWN_MAC };
    Ways {
        backends: [((service, backend().address, backend().port_be), (INDEX, backend()))].into(),
        vips: [(client().destination, end)].into(),
        ports: 61_000..=64_999,
        ..Ways::default()
    }
}

/// The flow as the programs make it, last used at this second.
fn flow(second: u64) -> Translation {
    let record = record();
    let forward = NatEntry {
        source: record.client.destination,
        destination: record.backend,
        source_port_be: record.nat_port_be,
        destination_port_be: record.backend_port_be,
        ifindex: BACKEND_LINK,
        mac: BACKEND_MAC,
        source_mac: OWN_MAC,
        direction: FROM_CLIENT,
        seen: record.seen[0],
        last_seen_ns: second * SECOND,
        backend: INDEX,
        ..NatEntry::EMPTY
    };
    let back = NatEntry {
        source: record.client.destination,
        destination: record.client.source,
        source_port_be: record.client.destination_port_be,
        destination_port_be: record.client.source_port_be,
        ifindex: VIP_LINK,
        mac: CLIENT_MAC,
        direction: FROM_BACKEND,
        seen: record.seen[1],
        ..forward
    };
    Translation { client: record.client, forward, back }
}
