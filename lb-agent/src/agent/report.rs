//! What the agent tells: its state in the control API's types.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{SystemTime, UNIX_EPOCH};

use lb_common::backend::{ACCEPTS, Delivery};
use lb_common::counter::Verdict;
use lb_common::layout::TABLE_VERSION;
use lb_common::virtual_mac::virtual_mac;

use super::core::{Agent, Health};
use super::election::Election;
use super::standings::{api_state, taken};
use crate::config::{BUILT_IN, Watched};
use crate::control::api;
use crate::control::server::Refusal;
use crate::dataplane::{Attached, BackendFailures, BackendTotals, DataPlaneError, monotonic_ns};
use crate::health;
use crate::metrics;
use crate::netlink::mac_text;
use crate::plan::PlannedService;
use crate::role::{Holding, Role};
use crate::standing::Admin;
use crate::track::{Board, Kind, Tracked};
use crate::vrrp::identity::Version;
use crate::vrrp::machine::State;
use crate::vrrp::{RouterStatus, Trouble};

/// Services that warnings name of those none of whose backends accepts.
const SERVICES_WARNED_OF: usize = 20;

/// Backends in one answer: some tens of megabytes, and some tenths of a second of the agent's loop.
const BACKENDS_PER_ANSWER: usize = 65_536;

/// Seconds since the Unix epoch.
pub(super) fn unix(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

impl Agent {
    pub(super) fn status(&self) -> api::Status {
        let held = self.seats.holding();
        let now_ns = monotonic_ns();
        let hooks = self.dataplane.hooks();
        api::Status {
            version: self.edition.version.to_owned(),
            layout_version: self.edition.layout.version,
            table_version: TABLE_VERSION,
            node: self.node.clone(),
            role: api_role(held.role),
            role_reason: held.reason.clone(),
            role_since: unix(held.since),
            config: self.options.config.clone(),
            config_since: unix(self.reloads.last),
            interfaces: self.interfaces(),
            virtual_addresses: self
                .config
                .virtual_addresses
                .iter()
                .map(|&address| virtual_address(address, &held, now_ns))
                .collect(),
            host_hooks: api::HostHooks {
                enabled: hooks.is_ok(),
                reason: match hooks {
                    Ok(path) => format!("on the cgroup {}", path.display()),
                    Err(reason) => reason.clone(),
                },
            },
            counters: self.counters(),
            warnings: self.warnings(),
            uptime_seconds: self.started.elapsed().as_secs_f64(),
            memory: self.memory().ok(),
        }
    }

    fn counters(&self) -> BTreeMap<String, u64> {
        let values = self.dataplane.verdicts().unwrap_or_default();
        Verdict::ALL.iter().map(|verdict| verdict.name().to_owned()).zip(values).collect()
    }

    /// What a person should look at.
    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.dataplane.attached().is_empty() {
            warnings.push("no interface is attached: lbctl attach IFACE".to_owned());
        }
        if self.config.host.enabled
            && let Err(reason) = self.dataplane.hooks()
        {
            warnings.push(format!("host hooks are off: {reason}"));
        }
        warnings.extend(self.failures.values().cloned());
        warnings.extend(self.notify_warnings());
        warnings.extend(self.sync_warnings());
        warnings.extend(self.discovery_warnings());
        warnings.extend(self.broken_warning());
        let held = self.seats.holding();
        warnings.extend(held.refusal);
        warnings.extend(held.vips.into_iter().filter_map(|vip| vip.trouble));
        warnings.extend(self.manner_warnings().take(SERVICES_WARNED_OF));
        warnings.extend(self.unchecked_warning());
        let idle = |s: &&PlannedService| s.backends.iter().all(|b| b.entry.state & ACCEPTS == 0);
        let idle: Vec<&PlannedService> = self.services.iter().filter(idle).collect();
        warnings.extend(idle.iter().take(SERVICES_WARNED_OF).map(|service| {
            let name = &self.config.services[service.configured].name;
            format!("service {name} at {}: no backend accepts", service.address)
        }));
        if let Some(more @ 1..) = idle.len().checked_sub(SERVICES_WARNED_OF) {
            warnings.push(format!("{more} more services: no backend accepts (lbctl services)"));
        }
        warnings
    }

    /// Backends whose checks cannot be made: their states are from before.
    fn unchecked_warning(&self) -> Option<String> {
        let unchecked = self
            .health
            .iter()
            .filter_map(|(target, health)| Some((target.address, health.unchecked.as_ref()?)));
        let (address, why) = unchecked.clone().min_by_key(|(address, _)| *address)?;
        Some(match unchecked.count() {
            1 => format!("{address} cannot be checked: {why}"),
            more => format!("{more} backends cannot be checked, {address} among them: {why}"),
        })
    }

    pub(super) fn interfaces(&self) -> Vec<api::Interface> {
        self.dataplane.attached().iter().map(|attached| self.interface(attached)).collect()
    }

    pub(super) fn interface(&self, attached: &Attached) -> api::Interface {
        let mac = self.network.link(attached.index).and_then(|link| link.mac);
        let since = self.attached_since.get(&attached.index).copied();
        api::Interface {
            name: attached.name.clone(),
            index: attached.index,
            mode: attached.mode,
            reason: attached.reason.clone(),
            mac: mac.map_or_else(String::new, mac_text),
            attached_since: since.map_or(0.0, unix),
        }
    }

    pub(super) fn api_services(&self) -> Result<Vec<api::Service>, DataPlaneError> {
        let each = self.each_bytes()?;
        let sharing = self.table_users();
        self.services
            .iter()
            .map(|service| {
                let configured = &self.config.services[service.configured];
                let manner = self.standings[service.configured].manner;
                let totals = self.dataplane.backend_totals(&service.key)?;
                let sum = |of: fn(&BackendTotals) -> u64| totals.iter().map(of).sum();
                let (table, table_bytes) =
                    self.dataplane.table_of(&service.key).unwrap_or_default();
                let backends = service.backends.len() as u64;
                Ok(api::Service {
                    name: configured.name.clone(),
                    address: service.address,
                    port: configured.port,
                    protocol: configured.protocol,
                    hash: configured.hash,
                    slots: service.table.slots(),
                    backends: service.backends.len() as u32,
                    accepting: accepting(service),
                    healthy: manner.healthy,
                    uses: manner.uses,
                    connections: sum(|t| t.connections),
                    packets: sum(|t| t.packets),
                    bytes: sum(|t| t.bytes),
                    table_services: sharing.get(&table).copied().unwrap_or(0),
                    table_bytes,
                    own_bytes: each.service + backends * each.backend,
                    discovery: self.discovery_of(configured),
                })
            })
            .collect()
    }

    /// The backends of a service, or all; refused where they are too many for one answer.
    pub(super) fn backends_asked(
        &self,
        service: Option<&str>,
    ) -> Result<Vec<api::Backend>, Refusal> {
        let found = self.backends_of(service);
        if found > BACKENDS_PER_ANSWER {
            let sentence = format!(
                "{found} backends are more than one answer holds, {BACKENDS_PER_ANSWER}: ask for \
                 those of one service (lbctl backends SERVICE, /v1/backends?service=NAME)"
            );
            return Err(Refusal { callers: true, sentence });
        }
        self.api_backends(service)
            .map_err(|error| Refusal { callers: false, sentence: error.to_string() })
    }

    /// How many backends a service has, or all of them, at all their addresses.
    fn backends_of(&self, service: Option<&str>) -> usize {
        self.named(service).map(|planned| planned.backends.len()).sum()
    }

    fn named(&self, service: Option<&str>) -> impl Iterator<Item = &PlannedService> {
        let name = |planned: &PlannedService| &self.config.services[planned.configured].name;
        self.services
            .iter()
            .filter(move |planned| service.is_none_or(|service| name(planned) == service))
    }

    fn api_backends(&self, service: Option<&str>) -> Result<Vec<api::Backend>, DataPlaneError> {
        let mut all = Vec::new();
        for service in self.named(service) {
            self.add_backends(service, |_| true, &mut all)?;
        }
        Ok(all)
    }

    /// Those at these places of configured services, at each of the services' addresses.
    pub(super) fn backends_at(
        &self,
        places: &[(usize, usize)],
    ) -> Result<Vec<api::Backend>, DataPlaneError> {
        let places: HashSet<(usize, usize)> = places.iter().copied().collect();
        let mut all = Vec::new();
        for service in &self.services {
            let is_meant = |place| places.contains(&(service.configured, place));
            self.add_backends(service, is_meant, &mut all)?;
        }
        Ok(all)
    }

    fn add_backends(
        &self,
        service: &PlannedService,
        is_meant: impl Fn(usize) -> bool,
        all: &mut Vec<api::Backend>,
    ) -> Result<(), DataPlaneError> {
        let totals = self.dataplane.backend_totals(&service.key)?;
        let failures = self.dataplane.failures(&service.key)?;
        for (at, backend) in service.backends.iter().enumerate() {
            if is_meant(backend.place) {
                let total = totals.get(at).copied().unwrap_or_default();
                let failures = failures.get(at).copied().unwrap_or_default();
                all.push(self.api_backend(service, backend, total, failures));
            }
        }
        Ok(())
    }

    /// With the words for it.
    pub(super) fn health_of(&self, configured: usize, address: SocketAddr) -> Health {
        let service = &self.config.services[configured];
        let target = Self::target(service, address);
        let checked = self.health.get(&target).cloned().unwrap_or_else(|| Health {
            state: health::State::Unknown,
            reason: "not checked".to_owned(),
            unchecked: None,
            silence: health::Silence::None,
        });
        match self.passive.reason(&service.name, address) {
            // What its checks say matters once they say the same.
            Some(out) if checked.state != health::State::Down => {
                Health { state: health::State::Down, reason: out.to_owned(), ..checked }
            }
            Some(out) => Health { reason: format!("{out}; {}", checked.reason), ..checked },
            None => self.with_path(service, address, checked),
        }
    }

    fn api_backend(
        &self,
        service: &PlannedService,
        backend: &crate::plan::PlannedBackend,
        total: BackendTotals,
        failures: BackendFailures,
    ) -> api::Backend {
        let health = self.health_of(service.configured, backend.address);
        let standing = &self.standings[service.configured].backends[backend.place];
        let said = self.said_of(service.configured, backend.address);
        let why = self.why_so(service.configured, backend.place);
        let unchecked = health.unchecked.map(|why| format!("cannot be checked now: {why}"));
        let reasons = [why, unchecked, Some(health.reason), Some((*backend.reason).to_owned())];
        let reasons: Vec<String> = reasons.into_iter().flatten().collect();
        let node = self.config.node_of(backend.address.ip());
        let configured = &self.config.services[service.configured];
        let place = (service.key, backend.address);
        let gone = standing.usable.gone;
        let used = if gone { backend.intended as u8 } else { backend.entry.delivery };
        let delivery = match used {
            d if d == Delivery::Local as u8 => api::Delivery::Local,
            d if d == Delivery::Direct as u8 => api::Delivery::Direct,
            d if d == Delivery::Nat as u8 => api::Delivery::Nat,
            _ => api::Delivery::Unresolved,
        };
        api::Backend {
            service: self.config.services[service.configured].name.clone(),
            address: backend.address,
            node: node.map(|node| node.name.clone()),
            delivery,
            weight: backend.weight,
            state: api_state(standing.standing),
            admin: said.map_or(Admin::Enabled, |said| said.admin),
            source: self.source_of(configured),
            leaving_since: self.leaving_since(configured, backend.address),
            backup: self.config.services[service.configured].backends[backend.place].backup,
            accepting: backend.entry.state & ACCEPTS != 0,
            takes: taken(backend.entry.reluctance),
            reason: reasons.join("; "),
            since: unix(standing.since),
            transitions: standing.transitions,
            connections_left: self.connections_left.get(&place).copied(),
            gone,
            path: self.path_state(service, backend),
            clients_told: self.teller.told(&place),
            next_hop_mac: (backend.entry.mac != [0; 6]).then(|| mac_text(backend.entry.mac)),
            share: backend.share,
            connections: total.connections,
            packets: total.packets,
            bytes: total.bytes,
            refused: failures.refused,
            unanswered: failures.unanswered,
            untold: failures.untold,
        }
    }

    pub(super) fn nodes(&self) -> Vec<api::Node> {
        let role = api_role(self.seats.holding().role);
        let peers = self.sync_peers();
        self.config
            .nodes
            .iter()
            .map(|node| {
                let this = node.name == self.node;
                let hop = node.addresses.iter().find_map(|&a| self.network.resolve(a).ok());
                let mac = hop.and_then(|hop| hop.mac).map(mac_text);
                api::Node {
                    name: node.name.clone(),
                    addresses: node.addresses.clone(),
                    this,
                    role: this.then_some(role),
                    reachable: if this { Some(true) } else { hop.map(|hop| hop.mac.is_some()) },
                    mac,
                    nat_sync: self.nat_sync(&peers, &node.name),
                }
            })
            .collect()
    }

    /// The virtual routers; none without VRRP, or as long as it has not begun.
    pub(super) fn api_vrrp(&self) -> Vec<api::VirtualRouter> {
        let Election::Vrrp(elected) = &self.election else { return Vec::new() };
        let with_mac = self.config.vrrp.as_ref().is_some_and(|vrrp| vrrp.virtual_mac);
        elected.vrrp.status().into_iter().map(|router| virtual_router(router, with_mac)).collect()
    }

    /// What is tracked; none without VRRP.
    pub(super) fn api_tracks(&self) -> Vec<api::Track> {
        if self.config.vrrp.is_none() {
            return Vec::new();
        }
        self.board.tracked().iter().map(track).collect()
    }

    pub(super) fn metrics(&self) -> Result<String, DataPlaneError> {
        let shown = self.backends_of(None) <= self.config.metrics.backend_series as usize;
        let backends = if shown { self.api_backends(None)? } else { Vec::new() };
        let snapshot = metrics::Snapshot {
            status: &self.status(),
            verdicts: &self.dataplane.verdicts()?,
            services: &self.api_services()?,
            backends: &backends,
            backends_shown: shown,
            routers: &self.api_vrrp(),
            hooks: &self.api_notify(),
            tracks: &self.api_tracks(),
            rebalanced: &self.rebalanced(),
            nodes: &self.nodes(),
            nat_sync_strangers: self.sync_strangers(),
            nat_flows: self.swept.flows,
            nat_anew: self.swept.anew,
            nat_anew_elsewhere: self.swept.anew_elsewhere,
            nat_sweep: self.swept.took,
            nat_flows_limit: u64::from(self.config.nat.flows),
            connections: self.swept.connections,
            connections_limit: u64::from(self.config.limits.connections),
            netlink_overruns: self.netlink_overruns,
            plans_failed: self.plans_failed,
            reloads_applied: self.reloads.applied,
            reloads_refused: self.reloads.refused,
        };
        Ok(metrics::render(&snapshot).expect("writing to a string does not fail"))
    }
}

fn accepting(service: &PlannedService) -> u32 {
    service.backends.iter().filter(|b| b.entry.state & ACCEPTS != 0).count() as u32
}

const fn api_role(role: Role) -> api::Role {
    match role {
        Role::Active => api::Role::Active,
        Role::Backup => api::Role::Backup,
    }
}

fn virtual_router(router: RouterStatus, with_mac: bool) -> api::VirtualRouter {
    let figures = router.figures;
    let virtual_mac = virtual_mac(router.router_id.number(), router.address.is_ipv4());
    api::VirtualRouter {
        router_id: router.router_id.number(),
        version: match router.version {
            Version::V2 => 2,
            Version::V3 => 3,
        },
        interface: router.interface,
        virtual_mac: with_mac.then(|| mac_text(virtual_mac)),
        address: router.address,
        priority: router.priority.0,
        interval_seconds: router.interval.as_secs_f64(),
        state: match router.state {
            State::Initialize => api::VrrpState::Initialize,
            State::Backup => api::VrrpState::Backup,
            State::Active => api::VrrpState::Active,
        },
        holds: router.holds,
        held_back: router.held_back,
        reason: router.reason,
        since: unix(router.since),
        heard: router.heard.map(|heard| api::HeardRouter {
            address: heard.from,
            priority: heard.priority.0,
            at: unix(heard.at),
            age_seconds: heard.age().as_secs_f64(),
        }),
        sent: figures.sent,
        send_failures: figures.send_failures,
        received: figures.received,
        refused: figures.refused.into_iter().map(|(name, n)| (name.to_owned(), n)).collect(),
        transitions: figures.transitions,
        lateness_max_seconds: figures.lateness_max.as_secs_f64(),
        events_lost: figures.events_lost,
        noticed: figures.noticed.into_iter().map(|(name, n)| (name.to_owned(), n)).collect(),
        troubles: router.troubles.into_iter().map(trouble).collect(),
        trouble: router.obstacle,
    }
}

fn trouble(trouble: Trouble) -> api::Trouble {
    api::Trouble {
        kind: trouble.kind.to_owned(),
        address: trouble.rival,
        mac: trouble.mac.map(mac_text),
        sentence: trouble.sentence,
        count: trouble.count,
        first: unix(trouble.first),
        last: unix(trouble.last),
    }
}

fn track(tracked: &Tracked) -> api::Track {
    let judge = &tracked.judge;
    let (kind, about) = match &tracked.watched {
        None if tracked.name == BUILT_IN[Board::DATA_PATH] => {
            (api::TrackKind::DataPath, "interfaces attached and up, maps written".to_owned())
        }
        None => (api::TrackKind::SyntheticPacket, "a packet passes through the program".to_owned()),
        Some(watched) => {
            let kind = match watched {
                Watched::Interface(_) => api::TrackKind::Interface,
                Watched::Script(_) => api::TrackKind::Script,
                Watched::HealthyBackends { .. } => api::TrackKind::HealthyBackends,
            };
            (kind, watched.to_string())
        }
    };
    let counts = judge.counts();
    api::Track {
        name: tracked.name.clone(),
        kind,
        about,
        state: match judge.state() {
            health::State::Healthy => api::TrackState::Good,
            health::State::Down => api::TrackState::Failing,
            health::State::Unknown => api::TrackState::Unknown,
        },
        since: unix(judge.since()),
        reason: judge.reason().to_owned(),
        weight: tracked.weight,
        looks: counts.looks,
        failures: Kind::ALL.map(|kind| (kind.name().to_owned(), counts.of(kind))).into(),
    }
}

fn virtual_address(address: IpAddr, holding: &Holding, now_ns: u64) -> api::VirtualAddress {
    let vip = holding.vips.iter().find(|vip| vip.vip == address);
    let until_ns = vip.and_then(|vip| vip.lease_until_ns).unwrap_or(0);
    let remaining_ns = until_ns.saturating_sub(now_ns);
    api::VirtualAddress {
        address,
        held: vip.is_some_and(|vip| vip.held),
        lease_remaining_ms: (remaining_ns > 0).then_some(remaining_ns / 1_000_000),
    }
}
