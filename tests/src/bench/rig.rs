//! The load balancer's programs with maps for one node and a service of each kind, in a namespace.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use lb_agent::config::{Family, Prefix};
use lb_agent::dataplane::{Capacity, DataPlane, Pins};
use lb_agent::plan::{List, Plan, PlannedBackend, PlannedProtection, PlannedService, SharedTable};
use lb_common::Address;
use lb_common::backend::{ACCEPTS, ALIVE, Backend, Delivery};
use lb_common::bucket::{Bucket, NONE, RANKS};
use lb_common::filter::AddressFilter;
use lb_common::hash::service_seed;
use lb_common::interface::Interface;
use lb_common::protection::{CONNECTION_LIMITED, LISTED as LISTED_RULE, Protection, RATE_LIMITED};
use lb_common::service::{HAS_LOCAL, HAS_NAT, HASH_PORT, NOTED, PROTECTED, ServiceKey, TCP};
use lb_common::settings::{SYN_COOKIES, SYN_GUARD, Settings};

use super::frames::Mac;

pub(super) const VIP: [u8; 4] = [192, 168, 139, 150];
pub(super) const NODE: [u8; 4] = [192, 168, 139, 133];
pub(super) const NODE_MAC: Mac = [2, 0, 0, 0, 0, 0x33];
pub(super) const CLIENT_MAC: Mac = [2, 0, 0, 0, 0, 0x10];
const PEER_MAC: Mac = [2, 0, 0, 0, 0, 0x34];
/// BPF_PROG_TEST_RUN without a context runs on the namespace's loopback interface.
const LOOPBACK: u32 = 1;

/// Where a backend on the node itself listens.
pub(super) const BACKEND_PORT: u16 = 6443;
/// The service's ports, by how its only backend is delivered.
pub(super) const DIRECT: u16 = 8443;
pub(super) const LOCAL: u16 = 8444;
pub(super) const NAT: u16 = 8445;
/// As [`DIRECT`], with a list of ten prefixes, and of a million; with a rate that is never reached, and
/// one that always is; with a limit of connections that is never reached, and one that always is.
pub(super) const LISTED: u16 = 8446;
pub(super) const MILLION: u16 = 8447;
pub(super) const RATED: u16 = 8448;
pub(super) const REFUSED: u16 = 8449;
pub(super) const LIMITED: u16 = 8450;
pub(super) const FULL: u16 = 8451;
/// As [`DIRECT`], with its connections noted.
pub(super) const NOTING: u16 = 8452;
pub(super) const PREFIXES: u32 = 1_000_000;
const NAT_FLOWS: u32 = 262_144;

/// What is protected, beside the services that never are: [`DIRECT`], [`LOCAL`] and [`NAT`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Protected {
    Nothing,
    /// Each other service by its own, and the node against a flood that never comes.
    Services,
    /// The node, in a flood that never ends.
    Flooded,
}

pub(super) fn open(directory: &Path, protected: Protected) -> Result<DataPlane> {
    let capacity = Capacity { nat_flows: NAT_FLOWS, ..Capacity::default() };
    let mut data_path =
        DataPlane::open(Pins::new(directory), capacity).context("loading the programs")?;
    data_path.apply(&plan(protected)?).context("filling the maps")?;
    Ok(data_path)
}

fn plan(protected: Protected) -> Result<Plan> {
    let vip = IpAddr::from(VIP);
    let mut filter = AddressFilter::EMPTY;
    filter.insert(&vip.into());
    let guard = SYN_GUARD | SYN_COOKIES;
    let (flags, syn_interval_ns) = match protected {
        Protected::Nothing => (0, 0),
        Protected::Services => (guard, 1),
        Protected::Flooded => (guard, u32::MAX),
    };
    let mut services = vec![
        service(DIRECT, Delivery::Direct, [192, 168, 139, 134]),
        service(LOCAL, Delivery::Local, NODE),
        service(NAT, Delivery::Nat, [192, 168, 139, 9]),
    ];
    if protected == Protected::Services {
        let mut noted = service(NOTING, Delivery::Direct, [192, 168, 139, 134]);
        noted.flags |= NOTED;
        services.extend([
            noted,
            refusing(LISTED, listed(10)?),
            refusing(MILLION, listed(PREFIXES)?),
            refusing(RATED, rated(1, 1 << 40)),
            refusing(REFUSED, rated(1 << 40, 1)),
            refusing(LIMITED, limited(u64::MAX)),
            refusing(FULL, limited(0)),
        ]);
    }
    Ok(Plan {
        settings: Settings {
            nat_key: 1,
            nat_port_first: 20_000,
            nat_port_count: 40_000,
            flags,
            syn_interval_ns,
            ..Settings::default()
        },
        filter,
        vips: vec![vip],
        peers: Vec::new(),
        interfaces: vec![Interface { ifindex: LOOPBACK, mac: NODE_MAC, ..Interface::default() }],
        services,
        unresolved: Vec::new(),
    })
}

fn refusing(port: u16, protection: PlannedProtection) -> PlannedService {
    let mut service = service(port, Delivery::Direct, [192, 168, 139, 134]);
    service.flags |= PROTECTED;
    service.protection = Some(protection);
    service
}

/// An address that the lists deny: they are spread over all of IPv4 (Knuth's multiplicative hash), so that
/// any other source goes deep into the trie before nothing is found.
pub(super) fn denied(number: u32) -> [u8; 4] {
    (number + 1).wrapping_mul(0x9e37_79b1).to_be_bytes()
}

/// Denies so many addresses.
fn listed(count: u32) -> Result<PlannedProtection> {
    let prefix = |number| Ipv4Addr::from(denied(number)).to_string().parse();
    let prefixes: Result<Vec<Prefix>, _> = (0..count).map(prefix).collect();
    let prefixes = prefixes.map_err(|error| anyhow::anyhow!("no prefix: {error:?}"))?;
    let list = List::new(Family::V4, false, &[], &prefixes)
        .map_err(|conflict| anyhow::anyhow!("{conflict:?}"))?;
    Ok(PlannedProtection {
        rules: Protection { rules: LISTED_RULE, ..Protection::NONE },
        list: Some(list),
    })
}

fn rated(interval_ns: u64, allowance_ns: u64) -> PlannedProtection {
    let rules = Protection {
        rules: RATE_LIMITED,
        interval_ns,
        allowance_ns,
        rate_mask: Address { words: [u32::MAX; 4] },
        ..Protection::NONE
    };
    PlannedProtection { rules, list: None }
}

fn limited(connections: u64) -> PlannedProtection {
    let rules = Protection {
        rules: CONNECTION_LIMITED,
        connections,
        connection_mask: Address { words: [u32::MAX; 4] },
        ..Protection::NONE
    };
    PlannedProtection { rules, list: None }
}

fn service(port: u16, delivery: Delivery, address: [u8; 4]) -> PlannedService {
    let vip = IpAddr::from(VIP);
    let key = ServiceKey { address: vip.into(), port_be: port.to_be(), protocol: TCP, padding: 0 };
    let mut bucket = Bucket { ranks: [NONE; RANKS] };
    bucket.ranks[0] = 0;
    let at = SocketAddr::new(address.into(), BACKEND_PORT);
    let entry = Backend {
        address: at.ip().into(),
        port_be: at.port().to_be(),
        mac: PEER_MAC,
        source_mac: NODE_MAC,
        ifindex: LOOPBACK,
        delivery: delivery as u8,
        state: ALIVE | ACCEPTS,
        ..Backend::EMPTY
    };
    let flags = HASH_PORT
        | match delivery {
            Delivery::Local => HAS_LOCAL,
            Delivery::Nat => HAS_NAT,
            _ => 0,
        };
    PlannedService {
        configured: 0,
        address: vip,
        key,
        seed: service_seed(&key.address, key.port_be, key.protocol),
        flags,
        table: Arc::new(SharedTable::of_buckets(Arc::from(vec![bucket; 65_537]))),
        protection: None,
        backends: vec![PlannedBackend {
            address: at,
            place: 0,
            weight: 1,
            entry,
            intended: delivery,
            server_id: None,
            reason: Arc::from(""),
            share: 1.0,
        }],
    }
}
