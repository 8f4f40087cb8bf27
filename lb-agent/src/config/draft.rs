//! From the document's tables to a [`Draft`]: every value is right by itself and knows its place,
//! but nothing is known yet about values together. Defaults and ranges stand here.

mod check;
mod datagram;
mod discover;
mod notify;
mod passive;
mod peers;
mod protection;
mod rebalance;
mod track;
mod vrrp;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lb_common::layout::size;
use toml::de::DeTable;

pub(super) use self::vrrp::{DraftRouter, DraftVrrp};
use super::datagram::{Quic, ServerId};
use super::document::{Item, Placed, Section};
use super::error::{Faults, Span};
use super::problem::Problem;
use super::{
    ConnectionLimit, Control, DataPath, DeliverySetting, Discover, Hash, Health, Host, Lease,
    Limits, Metrics, Mode, Nat, Node, OnStop, Passive, Paths, Peers, Protocol, RateLimit,
    Rebalance, ResetClients, SynFlood, UnknownPorts, UpgradeMode, schema, value,
};

pub(super) use notify::DraftNotify;
pub(super) use protection::DraftLists;
pub(super) use track::DraftTrack;

const HOUR: Duration = Duration::from_secs(3600);
const NODE_ADDRESS_EXAMPLE: &str = "address = \"192.168.139.133\"";
const BACKENDS_EXAMPLE: &str = "backends = [\"192.168.139.133:6443\", \"192.168.139.134:6443\"]";

/// The largest table: 2^22 buckets of 16 bytes are 64 MiB, and there are two of them during a
/// change.
const TABLE_SIZE_MAX: u32 = 1 << 22;
/// Of all tables together: 1 GiB, and as much as 2^30 slots take, 16 GiB.
const TABLE_SLOTS: u64 = 1 << 26;
const TABLE_SLOTS_MAX: u64 = 1 << 30;
/// Nine series for each backend of that many are a scrape of about 15 MiB.
const BACKEND_SERIES: u32 = 16_384;
/// The shortest lease: a quarter of it, the refresh, is still well above a scheduling delay.
const LEASE_MIN: Duration = Duration::from_millis(200);

/// A file whose values are each right.
pub(super) struct Draft {
    pub(super) interfaces: Vec<Placed<String>>,
    pub(super) virtual_addresses: Vec<Placed<IpAddr>>,
    pub(super) active: Option<Placed<String>>,
    pub(super) nodes: Vec<DraftNode>,
    /// Every virtual address and node could be read: rules about what is in them can be judged.
    pub(super) places_complete: bool,
    pub(super) services: Vec<DraftService>,
    pub(super) vrrp: Option<DraftVrrp>,
    pub(super) notify: Vec<DraftNotify>,
    pub(super) tracks: Vec<DraftTrack>,
    pub(super) lease: Lease,
    pub(super) nat: Nat,
    pub(super) peers: Option<Peers>,
    pub(super) host: Host,
    pub(super) data_path: DataPath,
    pub(super) modes: Vec<Placed<Mode>>,
    pub(super) syn_flood: Option<SynFlood>,
    pub(super) metrics: Metrics,
    pub(super) control: Control,
    pub(super) paths: Paths,
    pub(super) limits: Limits,
}

pub(super) struct DraftNode {
    pub(super) name: Placed<String>,
    pub(super) addresses: Vec<Placed<IpAddr>>,
    pub(super) priority: u8,
}

pub(super) struct DraftService {
    pub(super) span: Span,
    pub(super) name: Placed<String>,
    /// None: all that fit the backends.
    pub(super) addresses: Option<Vec<Placed<IpAddr>>>,
    pub(super) port: Placed<u16>,
    pub(super) protocol: Protocol,
    pub(super) hash: Hash,
    pub(super) backends: Vec<DraftBackend>,
    pub(super) backends_span: Span,
    /// Without what is fixed.
    pub(super) discover: Option<Discover>,
    pub(super) table_size: Option<Placed<u32>>,
    pub(super) health: Health,
    pub(super) passive: Passive,
    pub(super) rebalance: Rebalance,
    /// Where `minimum_healthy` stands.
    pub(super) minimum_span: Span,
    pub(super) lists: DraftLists,
    pub(super) rate_limit: Option<RateLimit>,
    pub(super) connection_limit: Option<ConnectionLimit>,
    pub(super) affinity: Option<Duration>,
    pub(super) quic: Option<Quic>,
    /// All of it could be read: what seems to be missing is.
    pub(super) complete: bool,
}

pub(super) struct DraftBackend {
    pub(super) address: Placed<SocketAddr>,
    pub(super) weight: u16,
    pub(super) delivery: Placed<DeliverySetting>,
    pub(super) server_id: Option<Placed<ServerId>>,
    pub(super) backup: Placed<bool>,
}

impl Draft {
    pub(super) fn read(document: &DeTable<'_>, faults: &mut Faults<'_>) -> Self {
        let root = Section::new(&schema::ROOT, document, 0..0, faults);
        let interfaces = interfaces(&root, faults);
        let before = faults.count();
        let virtual_addresses = virtual_addresses(&root, faults);
        let nodes = nodes(&root, faults);
        let there = root.has("virtual_addresses") && root.has("node");
        let places_complete = there && faults.count() == before;
        let active = root.optional("active", faults, |item| item.not_empty("active = \"master1\""));
        let services = services(&root, faults);
        let (data_path, modes) = data_path(&root, faults);
        Self {
            interfaces,
            virtual_addresses,
            active,
            nodes,
            places_complete,
            services,
            vrrp: vrrp::read(&root, faults),
            notify: notify::hooks(&root, faults),
            tracks: track::tracks(&root, faults),
            lease: lease(&root, faults),
            nat: nat(&root, faults),
            peers: peers::read(&root, faults),
            host: host(&root, faults),
            data_path,
            modes,
            syn_flood: protection::syn_flood(&root, faults),
            metrics: metrics(&root, faults),
            control: control(&root, faults),
            paths: paths(&root, faults),
            limits: limits(&root, faults),
        }
    }
}

fn interfaces(root: &Section<'_>, faults: &mut Faults<'_>) -> Vec<Placed<String>> {
    if root.has("interface") && root.has("interfaces") {
        let problem = Problem::Both { first: "interface", second: "interfaces" };
        faults.add(&root.span_of("interfaces"), problem);
    }
    let read = |item: Item<'_>| item.parsed(value::interface_name);
    let mut names: Vec<_> = root.optional("interface", faults, read).into_iter().collect();
    names.extend(root.list("interfaces", "interfaces = [\"ens33\"]", faults, read));
    names
}

fn virtual_addresses(root: &Section<'_>, faults: &mut Faults<'_>) -> Vec<Placed<IpAddr>> {
    const EXAMPLE: &str = "virtual_addresses = [\"192.168.139.150\"]";
    root.demand("virtual_addresses", EXAMPLE, faults);
    root.list("virtual_addresses", EXAMPLE, faults, Item::unicast_address)
}

fn nodes(root: &Section<'_>, faults: &mut Faults<'_>) -> Vec<DraftNode> {
    const EXAMPLE: &str = "[[node]] with name = \"master1\" and address = \"192.168.139.133\"";
    root.demand("node", EXAMPLE, faults);
    let items = root.elements("node", "a list of tables, each headed [[node]]", EXAMPLE, faults);
    items.filter_map(|item| node(&item.section(&schema::NODE, faults)?, faults)).collect()
}

fn node(section: &Section<'_>, faults: &mut Faults<'_>) -> Option<DraftNode> {
    let name =
        section.required("name", "name = \"master1\"", faults, |item| item.parsed(value::name));
    if !section.has("addresses") {
        section.demand("address", NODE_ADDRESS_EXAMPLE, faults);
    }
    let first = section.optional("address", faults, Item::unicast_address);
    let mut addresses: Vec<_> = first.into_iter().collect();
    addresses.extend(section.list(
        "addresses",
        NODE_ADDRESS_EXAMPLE,
        faults,
        Item::unicast_address,
    ));
    // 255 is the address owner's (RFC 9568, 5.2.4), which nobody is of a VIP; 0 resigns.
    let priority =
        section.or("priority", Node::DEFAULT_PRIORITY, faults, |item| item.number(1..=254));
    Some(DraftNode { name: name?, addresses, priority })
}

fn services(root: &Section<'_>, faults: &mut Faults<'_>) -> Vec<DraftService> {
    const EXAMPLE: &str = "[[service]] with name = \"kube-apiserver\", port = 8443 and backends";
    root.demand("service", EXAMPLE, faults);
    let items =
        root.elements("service", "a list of tables, each headed [[service]]", EXAMPLE, faults);
    items.filter_map(|item| service(item, faults)).collect()
}

fn service(item: Item<'_>, faults: &mut Faults<'_>) -> Option<DraftService> {
    let before = faults.count();
    let section = &item.section(&schema::SERVICE, faults)?;
    let name = section
        .required("name", "name = \"kube-apiserver\"", faults, |item| item.parsed(value::name));
    let port = section.required("port", "port = 8443", faults, |item| item.number(1..=u16::MAX));
    let protocol = section.or("protocol", Protocol::Tcp, faults, |item| {
        item.choice(&[("tcp", Protocol::Tcp), ("udp", Protocol::Udp)])
    });
    let hash = section.or("hash", Hash::Source, faults, |item| {
        item.choice(&[("source", Hash::Source), ("source-port", Hash::SourcePort)])
    });
    let addresses = service_addresses(section, faults);
    let backends = backends(section, faults);
    let discover = discover::read(section, faults);
    let table_size = section.optional("table_size", faults, |item| item.number(2..=TABLE_SIZE_MAX));
    let (health, minimum_span) = health(section, protocol, faults);
    let passive = passive::read(section, protocol, faults);
    let rebalance = rebalance::read(section, protocol, faults);
    let lists = protection::lists(section, faults);
    let rate_limit = protection::rate_limit(section, faults);
    let connection_limit = protection::connection_limit(section, protocol, faults);
    let affinity = datagram::affinity(section, protocol, faults);
    let quic = datagram::quic(section, protocol, faults);
    Some(DraftService {
        span: section.span.clone(),
        name: name?,
        addresses,
        port: port?,
        protocol,
        hash,
        backends,
        backends_span: section.span_of("backends"),
        discover,
        table_size,
        health,
        minimum_span,
        passive,
        rebalance,
        lists,
        rate_limit,
        connection_limit,
        affinity,
        quic,
        complete: faults.count() == before,
    })
}

fn service_addresses(
    section: &Section<'_>,
    faults: &mut Faults<'_>,
) -> Option<Vec<Placed<IpAddr>>> {
    const EXAMPLE: &str = "one of `virtual_addresses`, or leave the key out for all of them";
    if section.has("address") && section.has("addresses") {
        let problem = Problem::Both { first: "address", second: "addresses" };
        faults.add(&section.span_of("addresses"), problem);
    }
    let mut addresses: Vec<_> =
        section.optional("address", faults, Item::unicast_address).into_iter().collect();
    addresses.extend(section.list("addresses", EXAMPLE, faults, Item::unicast_address));
    // Where they were named but are wrong, nothing else is to be put in their place.
    (section.has("address") || section.has("addresses")).then_some(addresses)
}

fn backends(section: &Section<'_>, faults: &mut Faults<'_>) -> Vec<DraftBackend> {
    section.demand("backends", BACKENDS_EXAMPLE, faults);
    let items = section.elements("backends", "a list in [brackets]", BACKENDS_EXAMPLE, faults);
    items.filter_map(|item| backend(item, faults)).collect()
}

/// `"192.168.139.133:6443"`, or a table with more to say.
fn backend(item: Item<'_>, faults: &mut Faults<'_>) -> Option<DraftBackend> {
    const AUTO: DeliverySetting = DeliverySetting::Auto;
    if !item.is_table() {
        let read = |item: Item<'_>| {
            item.text("\"ADDRESS:PORT\" or a table { address = .. }").and_then(value::endpoint)
        };
        let address = item.placed(faults, read)?;
        let delivery = Placed { value: AUTO, span: address.span.clone() };
        let backup = Placed { value: false, span: address.span.clone() };
        return Some(DraftBackend { address, weight: 1, delivery, server_id: None, backup });
    }
    let section = item.section(&schema::BACKEND, faults)?;
    let address =
        section.required("address", "address = \"192.168.139.133:6443\"", faults, |item| {
            item.parsed(value::endpoint)
        });
    let weight = section.or("weight", 1, faults, |item| item.number(0..=u16::MAX));
    let delivery = section.optional("delivery", faults, |item| {
        item.choice(&[
            ("auto", AUTO),
            ("direct", DeliverySetting::Direct),
            ("nat", DeliverySetting::Nat),
        ])
    });
    let delivery = delivery.unwrap_or(Placed { value: AUTO, span: section.span.clone() });
    let server_id = section.optional("server_id", faults, datagram::server_id);
    let backup = section.optional("backup", faults, |item| item.boolean());
    let backup = backup.unwrap_or(Placed { value: false, span: section.span.clone() });
    Some(DraftBackend { address: address?, weight, delivery, server_id, backup })
}

/// With the place of `minimum_healthy`.
fn health(service: &Section<'_>, protocol: Protocol, faults: &mut Faults<'_>) -> (Health, Span) {
    let asked_for = service.has("health");
    let section = service.section("health", &schema::HEALTH, faults);
    let before = faults.count();
    let millis = Duration::from_millis;
    let interval = section
        .or("interval", Duration::from_secs(2), faults, |item| item.duration(millis(10)..=HOUR));
    let timeout = section
        .or("timeout", millis(1000).min(interval), faults, |item| item.duration(millis(1)..=HOUR));
    if timeout > interval && faults.count() == before {
        let problem = Problem::TimeoutAboveInterval { timeout, interval };
        faults.add(&section.span_of("timeout"), problem);
    }
    // A server of UDP seldom accepts TCP on the same port: it is checked only if asked for.
    let by_default = asked_for || protocol == Protocol::Tcp;
    let health = Health {
        enabled: section.or("enabled", by_default, faults, Item::boolean),
        check: Arc::new(check::check(&section, faults)),
        interval,
        timeout,
        rise: section.or("rise", 2, faults, |item| item.number(1..=100)),
        fall: section.or("fall", 3, faults, |item| item.number(1..=100)),
        minimum_healthy: section
            .or("minimum_healthy", 1, faults, |item| item.number(0..=u32::from(u16::MAX))),
        slow_start: section
            .or("slow_start", Duration::ZERO, faults, |item| item.duration(Duration::ZERO..=HOUR)),
        reset_clients: section.or("reset_clients", ResetClients::Unreachable, faults, |item| {
            item.choice(&[
                ("unreachable", ResetClients::Unreachable),
                ("silent", ResetClients::Silent),
                ("down", ResetClients::Down),
                ("never", ResetClients::Never),
            ])
        }),
        probe_path: section.or("probe_path", true, faults, Item::boolean),
    };
    (health, section.span_of("minimum_healthy"))
}

fn lease(root: &Section<'_>, faults: &mut Faults<'_>) -> Lease {
    let section = root.section("lease", &schema::LEASE, faults);
    let duration = section.or("duration", Duration::from_secs(2), faults, |item| {
        item.duration(LEASE_MIN..=Duration::from_secs(60))
    });
    Lease { duration }
}

fn nat(root: &Section<'_>, faults: &mut Faults<'_>) -> Nat {
    let section = root.section("nat", &schema::NAT, faults);
    let timeout = |key, default_s, faults: &mut Faults<'_>| {
        section.or(key, Duration::from_secs(default_s), faults, |item| {
            item.duration(Duration::from_secs(1)..=HOUR * 24 * 30)
        })
    };
    Nat {
        ports: section.or("ports", 61000..=64999, faults, |item| item.parsed(value::port_range)),
        flows: section.or("flows", 65_536, faults, |item| item.number(1..=1 << 24)),
        key: section
            .optional("key", faults, |item| item.not_empty("key = \"thirty-two random letters\""))
            .map(|placed| placed.value),
        tcp_opening_timeout: timeout("tcp_opening_timeout", 30, faults),
        // RFC 5382, REQ-5: not less than 2 hours and 4 minutes.
        tcp_established_timeout: timeout("tcp_established_timeout", 7440, faults),
        tcp_closing_timeout: timeout("tcp_closing_timeout", 60, faults),
        // RFC 4787, REQ-5: not less than 2 minutes.
        udp_timeout: timeout("udp_timeout", 120, faults),
    }
}

fn host(root: &Section<'_>, faults: &mut Faults<'_>) -> Host {
    let section = root.section("host", &schema::HOST, faults);
    Host {
        enabled: section.or("enabled", true, faults, Item::boolean),
        prefer_local: section.or("prefer_local", false, faults, Item::boolean),
        cgroup: section
            .optional("cgroup", faults, |item| item.parsed(value::path))
            .map(|placed| placed.value),
    }
}

/// The modes are returned apart, with their places.
fn data_path(root: &Section<'_>, faults: &mut Faults<'_>) -> (DataPath, Vec<Placed<Mode>>) {
    const EXAMPLE: &str = "modes = [\"native\", \"generic\", \"tc\"]";
    const CHOICES: [(&str, Mode); 3] =
        [("native", Mode::Native), ("generic", Mode::Generic), ("tc", Mode::Tc)];
    let section = root.section("data_path", &schema::DATA_PATH, faults);
    let placed = section.list("modes", EXAMPLE, faults, |item| item.choice(&CHOICES));
    let modes = section.has("modes").then(|| placed.iter().map(|mode| mode.value).collect());
    let unknown_ports = section.or("unknown_ports", UnknownPorts::Pass, faults, |item| {
        item.choice(&[("pass", UnknownPorts::Pass), ("drop", UnknownPorts::Drop)])
    });
    let on_stop = section.or("on_stop", OnStop::Keep, faults, |item| {
        item.choice(&[("keep", OnStop::Keep), ("remove", OnStop::Remove)])
    });
    (DataPath { modes, unknown_ports, on_stop }, placed)
}

fn metrics(root: &Section<'_>, faults: &mut Faults<'_>) -> Metrics {
    const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9633);
    let section = root.section("metrics", &schema::METRICS, faults);
    let enabled = section.or("enabled", true, faults, Item::boolean);
    let listen = section.or("listen", LISTEN, faults, |item| item.parsed(value::socket_address));
    let backend_series =
        section.or("backend_series", BACKEND_SERIES, faults, |item| item.number(0..=1 << 20));
    Metrics { listen: enabled.then_some(listen), backend_series }
}

fn control(root: &Section<'_>, faults: &mut Faults<'_>) -> Control {
    let section = root.section("control", &schema::CONTROL, faults);
    let socket = PathBuf::from("/run/lb/lb.sock");
    Control {
        socket: section.or("socket", socket, faults, |item| item.parsed(value::socket_path)),
        group: section
            .optional("group", faults, |item| item.not_empty("group = \"lb\""))
            .map(|placed| placed.value),
        upgrade: section.or("upgrade", UpgradeMode::InPlace, faults, |item| {
            item.choice(&[("in-place", UpgradeMode::InPlace), ("hand-over", UpgradeMode::HandOver)])
        }),
    }
}

fn paths(root: &Section<'_>, faults: &mut Faults<'_>) -> Paths {
    let section = root.section("paths", &schema::PATHS, faults);
    let mut path = |key, default: &str| {
        section.or(key, PathBuf::from(default), faults, |item| item.parsed(value::path))
    };
    Paths { bpf: path("bpf", "/sys/fs/bpf/lb"), state: path("state", "/var/lib/lb") }
}

fn limits(root: &Section<'_>, faults: &mut Faults<'_>) -> Limits {
    const SERVICES: u32 = size::SERVICES as u32;
    const BACKENDS: u32 = size::BACKENDS as u32;
    const SOURCES: u32 = size::RATES as u32;
    const CONNECTIONS: u32 = size::CONNECTIONS as u32;
    const DATAGRAM_FLOWS: u32 = size::AFFINITIES as u32;
    const FLOWS: u32 = size::FLOWS as u32;
    let section = root.section("limits", &schema::LIMITS, faults);
    Limits {
        services: section.or("services", SERVICES, faults, |item| item.number(1..=65_536)),
        backends: section.or("backends", BACKENDS, faults, |item| item.number(1..=1 << 20)),
        table_slots: section
            .or("table_slots", TABLE_SLOTS, faults, |item| item.number(1..=TABLE_SLOTS_MAX)),
        // Below that the kernel's map forgets before it is full: it keeps some free for each CPU.
        sources: section.or("sources", SOURCES, faults, |item| item.number(4096..=1 << 24)),
        connections: section
            .or("connections", CONNECTIONS, faults, |item| item.number(1..=1 << 24)),
        // As of sources.
        datagram_flows: section
            .or("datagram_flows", DATAGRAM_FLOWS, faults, |item| item.number(4096..=1 << 24)),
        flows: section.or("flows", FLOWS, faults, |item| item.number(4096..=1 << 24)),
    }
}
