//! Prometheus metrics: what the maps count and what the agent knows, in OpenMetrics text.
//!
//! Every series exists from the first scrape on. Names and labels are promises to users; they are
//! listed in docs/metrics.md.

mod discovery;
mod memory;
mod nat_sync;
mod notify;
mod rebalance;
mod track;
mod vrrp;

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use lb_common::counter::Verdict;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

pub use rebalance::Rebalanced;

use crate::control::api;

type FloatGauge = Gauge<f64, AtomicU64>;

/// What a scrape shows.
#[derive(Debug)]
pub struct Snapshot<'a> {
    pub status: &'a api::Status,
    /// In the order of `Verdict::ALL`.
    pub verdicts: &'a [u64],
    pub services: &'a [api::Service],
    /// None where there are too many to show.
    pub backends: &'a [api::Backend],
    pub backends_shown: bool,
    pub routers: &'a [api::VirtualRouter],
    pub hooks: &'a [api::NotifyHook],
    pub tracks: &'a [api::Track],
    pub rebalanced: &'a [Rebalanced],
    pub nodes: &'a [api::Node],
    pub nat_sync_strangers: u64,
    pub nat_flows: u64,
    /// Made anew in their middle, by their first port and by another one.
    pub nat_anew: u64,
    pub nat_anew_elsewhere: u64,
    pub nat_flows_limit: u64,
    pub connections: u64,
    pub connections_limit: u64,
    /// How long counting them took.
    pub nat_sweep: Duration,
    pub netlink_overruns: u64,
    pub plans_failed: u64,
    pub reloads_applied: u64,
    pub reloads_refused: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerdictLabels {
    verdict: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BackendLabels {
    service: String,
    backend: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServiceLabels {
    service: String,
    vip: String,
    port: u16,
    protocol: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InterfaceLabels {
    interface: String,
    mode: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VipLabels {
    vip: String,
}

/// Renders a scrape.
///
/// # Errors
///
/// Only if writing to a string fails.
pub fn render(snapshot: &Snapshot<'_>) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("lb");
    agent(&mut registry, snapshot);
    packets(&mut registry, snapshot.verdicts);
    services(&mut registry, snapshot.services);
    backends(&mut registry, snapshot);
    discovery::register(&mut registry, snapshot.services);
    memory::register(&mut registry, snapshot.status.memory.as_ref());
    vrrp::register(&mut registry, snapshot.routers);
    notify::register(&mut registry, snapshot.hooks);
    track::register(&mut registry, snapshot.tracks);
    rebalance::register(&mut registry, snapshot.rebalanced);
    nat_sync::register(&mut registry, snapshot.nodes, snapshot.nat_sync_strangers);
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: f64) {
    let gauge = FloatGauge::default();
    gauge.set(value);
    registry.register(name, help, gauge);
}

fn counter(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let counter = Counter::<u64>::default();
    counter.inc_by(value);
    registry.register(name, help, counter);
}

fn agent(registry: &mut Registry, snapshot: &Snapshot<'_>) {
    let status = snapshot.status;
    let build = Info::new(vec![
        ("version".to_owned(), status.version.clone()),
        ("layout_version".to_owned(), status.layout_version.to_string()),
        ("table_version".to_owned(), status.table_version.to_string()),
    ]);
    registry.register("build", "The agent's version and that of what it shares", build);
    let active = f64::from(u8::from(status.role == api::Role::Active));
    gauge(registry, "active", "Whether this node holds the VIPs: 1 for Active", active);
    gauge(registry, "uptime_seconds", "Since the agent's start", status.uptime_seconds);
    let hooks = f64::from(u8::from(status.host_hooks.enabled));
    gauge(registry, "host_hooks", "Whether the node's own processes are redirected", hooks);
    gauge(registry, "nat_flows", "Flows with NAT entries", snapshot.nat_flows as f64);
    gauge(
        registry,
        "nat_flows_limit",
        "Flows that the NAT map has room for",
        snapshot.nat_flows_limit as f64,
    );
    gauge(
        registry,
        "nat_flows_anew",
        "Flows over TCP whose entries were made in their middle, by the port that they had",
        snapshot.nat_anew as f64,
    );
    gauge(
        registry,
        "nat_flows_anew_elsewhere",
        "The same by another port: these connections break",
        snapshot.nat_anew_elsewhere as f64,
    );
    gauge(
        registry,
        "connections",
        "Open connections to services that limit them",
        snapshot.connections as f64,
    );
    gauge(
        registry,
        "connections_limit",
        "Connections that the map of those has room for",
        snapshot.connections_limit as f64,
    );
    gauge(
        registry,
        "nat_sweep_seconds",
        "How long the last count of flows with NAT entries took",
        snapshot.nat_sweep.as_secs_f64(),
    );
    counter(
        registry,
        "netlink_overruns",
        "Times that the kernel dropped network events and all was read anew",
        snapshot.netlink_overruns,
    );
    counter(
        registry,
        "map_failures",
        "Times that the maps could not be brought up to date",
        snapshot.plans_failed,
    );
    counter(
        registry,
        "reloads",
        "Times that the configuration was read anew and taken over",
        snapshot.reloads_applied,
    );
    counter(
        registry,
        "reloads_refused",
        "Times that it was read anew and refused",
        snapshot.reloads_refused,
    );
    gauge(
        registry,
        "config_since_seconds",
        "When the configuration was last taken over",
        status.config_since,
    );
    let leases = Family::<VipLabels, FloatGauge>::default();
    for vip in &status.virtual_addresses {
        let seconds = vip.lease_remaining_ms.map_or(0.0, |ms| ms as f64 / 1000.0);
        leases.get_or_create(&VipLabels { vip: vip.address.to_string() }).set(seconds);
    }
    registry.register(
        "lease_remaining_seconds",
        "Until this node stops to answer for the VIP unless it renews; 0 where it is not held",
        leases,
    );
    let interfaces = Family::<InterfaceLabels, Gauge>::default();
    for interface in &status.interfaces {
        let labels = InterfaceLabels {
            interface: interface.name.clone(),
            mode: match interface.mode {
                api::Mode::Native => "native",
                api::Mode::Generic => "generic",
                api::Mode::Tc => "tc",
            },
        };
        interfaces.get_or_create(&labels).set(1);
    }
    registry.register("attached", "Interfaces that the programs are attached to", interfaces);
}

fn packets(registry: &mut Registry, verdicts: &[u64]) {
    let packets = Family::<VerdictLabels, Counter>::default();
    for (verdict, &count) in Verdict::ALL.iter().zip(verdicts) {
        let labels = VerdictLabels { verdict: verdict.name(), outcome: verdict.outcome().name() };
        packets.get_or_create(&labels).inc_by(count);
    }
    registry.register("packets", "Packets, and calls of own processes, by verdict", packets);
}

fn services(registry: &mut Registry, services: &[api::Service]) {
    let all = Family::<ServiceLabels, Gauge>::default();
    let accepting = Family::<ServiceLabels, Gauge>::default();
    let healthy = Family::<ServiceLabels, Gauge>::default();
    let uses = Family::<ServiceLabels, Gauge>::default();
    let connections = Family::<ServiceLabels, Counter>::default();
    let packets = Family::<ServiceLabels, Counter>::default();
    let bytes = Family::<ServiceLabels, Counter>::default();
    for service in services {
        let labels = ServiceLabels {
            service: service.name.clone(),
            vip: IpAddr::to_string(&service.address),
            port: service.port,
            protocol: match service.protocol {
                api::Protocol::Tcp => "tcp",
                api::Protocol::Udp => "udp",
            },
        };
        all.get_or_create(&labels).set(i64::from(service.backends));
        accepting.get_or_create(&labels).set(i64::from(service.accepting));
        healthy.get_or_create(&labels).set(i64::from(service.healthy));
        uses.get_or_create(&labels).set(match service.uses {
            api::Uses::Primaries => 0,
            api::Uses::Backups => 1,
            api::Uses::Everybody => 2,
        });
        connections.get_or_create(&labels).inc_by(service.connections);
        packets.get_or_create(&labels).inc_by(service.packets);
        bytes.get_or_create(&labels).inc_by(service.bytes);
    }
    registry.register("service_backends", "Configured backends", all);
    registry.register("service_backends_accepting", "Backends for new connections", accepting);
    registry.register(
        "service_backends_healthy",
        "Backends that are enabled and not down",
        healthy,
    );
    registry.register(
        "service_uses",
        "0 healthy backends, 1 only its backups are healthy, 2 all, since too few are healthy",
        uses,
    );
    registry.register("service_connections", "New connections steered here", connections);
    registry.register("service_packets", "Packets steered here", packets);
    registry.register("service_bytes", "Bytes steered here", bytes);
}

fn backends(registry: &mut Registry, snapshot: &Snapshot<'_>) {
    gauge(
        registry,
        "backend_series_shown",
        "Whether each backend has its series: 0 beyond metrics.backend_series",
        f64::from(u8::from(snapshot.backends_shown)),
    );
    if !snapshot.backends_shown {
        return;
    }
    let up = Family::<BackendLabels, Gauge>::default();
    let state = Family::<BackendLabels, Gauge>::default();
    let since = Family::<BackendLabels, FloatGauge>::default();
    let transitions = Family::<BackendLabels, Counter>::default();
    let accepting = Family::<BackendLabels, Gauge>::default();
    let gone = Family::<BackendLabels, Gauge>::default();
    let path_fails = Family::<BackendLabels, Gauge>::default();
    let told = Family::<BackendLabels, Counter>::default();
    let share = Family::<BackendLabels, FloatGauge>::default();
    let connections = Family::<BackendLabels, Counter>::default();
    let packets = Family::<BackendLabels, Counter>::default();
    let bytes = Family::<BackendLabels, Counter>::default();
    let refused = Family::<BackendLabels, Counter>::default();
    let unanswered = Family::<BackendLabels, Counter>::default();
    let untold = Family::<BackendLabels, Counter>::default();
    for backend in snapshot.backends {
        let labels = BackendLabels {
            service: backend.service.clone(),
            backend: backend.address.to_string(),
        };
        let down = backend.state == api::BackendState::Down;
        up.get_or_create(&labels).set(i64::from(!down));
        state.get_or_create(&labels).set(match backend.state {
            api::BackendState::Unknown => 0,
            api::BackendState::Healthy => 1,
            api::BackendState::Down => 2,
            api::BackendState::Draining => 3,
            api::BackendState::Backup => 4,
            api::BackendState::Disabled => 5,
            api::BackendState::SlowStarting => 6,
        });
        since.get_or_create(&labels).set(backend.since);
        // The same at each of the service's addresses.
        let counted = transitions.get_or_create(&labels).get();
        transitions.get_or_create(&labels).inc_by(backend.transitions.saturating_sub(counted));
        accepting.get_or_create(&labels).set(i64::from(backend.accepting));
        gone.get_or_create(&labels).set(i64::from(backend.gone));
        let fails = backend.path == Some(api::PathState::Fails);
        path_fails.get_or_create(&labels).set(i64::from(fails));
        told.get_or_create(&labels).inc_by(backend.clients_told);
        share.get_or_create(&labels).set(backend.share);
        connections.get_or_create(&labels).inc_by(backend.connections);
        packets.get_or_create(&labels).inc_by(backend.packets);
        bytes.get_or_create(&labels).inc_by(backend.bytes);
        refused.get_or_create(&labels).inc_by(backend.refused);
        unanswered.get_or_create(&labels).inc_by(backend.unanswered);
        untold.get_or_create(&labels).inc_by(backend.untold);
    }
    registry.register("backend_up", "0 once checks or its clients have found it down", up);
    registry.register(
        "backend_state",
        "0 unknown, 1 healthy, 2 down, 3 draining, 4 backup, 5 disabled, 6 slow-starting",
        state,
    );
    registry.register("backend_state_since_seconds", "When it came into that state", since);
    registry.register("backend_transitions", "Times that its state changed", transitions);
    registry.register("backend_accepting", "Whether it takes new connections", accepting);
    registry.register(
        "backend_gone",
        "Whether its connections end in resets, since nothing of it is left",
        gone,
    );
    registry.register(
        "backend_path_fails",
        "Whether its node does not serve what is carried to it",
        path_fails,
    );
    registry.register(
        "backend_clients_told",
        "Connections ended by telling their clients so",
        told,
    );
    registry.register("backend_share_ratio", "Buckets in which it comes first", share);
    registry.register("backend_connections", "New connections steered to it here", connections);
    registry.register("backend_packets", "Packets steered to it here", packets);
    registry.register("backend_bytes", "Bytes steered to it here", bytes);
    registry.register("backend_refused", "New connections that it refused, as seen here", refused);
    registry.register("backend_unanswered", "SYNs that came again, unanswered", unanswered);
    registry.register("backend_untold", "Of both, those that could not wake the agent", untold);
}
