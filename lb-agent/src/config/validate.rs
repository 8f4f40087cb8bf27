//! Rules between values: what cannot be seen from one value alone. From a [`Draft`] to a
//! [`Config`], which is meant only if no fault was added.

mod tables;
mod vrrp;

use std::collections::HashMap;
use std::hash::Hash as Key;
use std::net::IpAddr;
use std::sync::Arc;

use lb_common::bucket::RANKS;
use lb_common::layout::size;

use super::document::Placed;
use super::draft::{Draft, DraftBackend, DraftLists, DraftNode, DraftService, DraftTrack};
use super::error::{Faults, Span};
use super::problem::{Family, Problem};
use super::{
    Backend, Check, Config, DeliverySetting, Discover, Health, Lists, Node, Prefix, Service, Track,
    schema, value,
};

/// Most backends of a service: a bucket names them by u16 and keeps one value for "none".
const BACKENDS_PER_SERVICE: usize = u16::MAX as usize;

/// Each has a task, a directory and a queue.
const NOTIFY_HOOKS: usize = 16;

/// Most tracked things: each script is a process now and then.
const TRACKS: usize = 64;

pub(super) fn config(draft: Draft, faults: &mut Faults<'_>) -> Config {
    places(&draft, faults);
    active(&draft, faults);
    let vrrp = vrrp::complete(&draft, faults);
    notify(&draft, faults);
    service_keys(&draft, faults);
    let services: Vec<Service> =
        draft.services.iter().map(|service| complete(service, &draft, faults)).collect();
    fits_the_limits(&draft, &services, faults);
    tables::fit_the_limit(&draft, &services, faults);
    tracks(&draft, faults);
    Config {
        interfaces: draft.interfaces.into_iter().map(|placed| placed.value).collect(),
        virtual_addresses: values(&draft.virtual_addresses),
        active: draft.active.map(|placed| placed.value),
        nodes: draft.nodes.into_iter().map(node).collect(),
        services,
        vrrp,
        notify: draft.notify.into_iter().map(|draft| draft.hook).collect(),
        tracks: draft.tracks.into_iter().map(track).collect(),
        lease: draft.lease,
        nat: draft.nat,
        peers: draft.peers,
        host: draft.host,
        data_path: draft.data_path,
        syn_flood: draft.syn_flood,
        metrics: draft.metrics,
        control: draft.control,
        paths: draft.paths,
        limits: draft.limits,
    }
}

fn node(draft: DraftNode) -> Node {
    Node { name: draft.name.value, addresses: values(&draft.addresses), priority: draft.priority }
}

fn track(draft: DraftTrack) -> Track {
    let DraftTrack { name, watched, weight, rise, fall, .. } = draft;
    Track { name: name.value, watched, weight, rise, fall }
}

fn values(placed: &[Placed<IpAddr>]) -> Vec<IpAddr> {
    placed.iter().map(|placed| placed.value).collect()
}

/// Reports every value that is there before.
fn unique<T: Key + Eq + Clone>(
    what: &'static str,
    all: impl IntoIterator<Item = (T, Span)>,
    show: impl Fn(&T) -> String,
    faults: &mut Faults<'_>,
) {
    let mut seen: HashMap<T, Span> = HashMap::new();
    for (value, span) in all {
        if let Some(first) = seen.get(&value) {
            let first_line = faults.line_of(first);
            faults.add(&span, Problem::Duplicate { what, value: show(&value), first_line });
        } else {
            seen.insert(value, span);
        }
    }
}

fn unique_placed<'p, T: Key + Eq + Clone + ToString + 'p>(
    what: &'static str,
    all: impl IntoIterator<Item = &'p Placed<T>>,
    faults: &mut Faults<'_>,
) {
    let pairs = all.into_iter().map(|placed| (placed.value.clone(), placed.span.clone()));
    unique(what, pairs, T::to_string, faults);
}

/// Interfaces, modes, virtual addresses and nodes: each once, and not one as the other.
fn places(draft: &Draft, faults: &mut Faults<'_>) {
    unique_placed("interface", &draft.interfaces, faults);
    unique_placed("mode", &draft.modes, faults);
    unique_placed("virtual address", &draft.virtual_addresses, faults);
    unique_placed("node", draft.nodes.iter().map(|node| &node.name), faults);
    unique_placed("node address", draft.nodes.iter().flat_map(|node| &node.addresses), faults);
    for node in &draft.nodes {
        for address in &node.addresses {
            if is_virtual(draft, address.value) {
                let node = node.name.value.clone();
                faults.add(&address.span, Problem::VipIsNode { address: address.value, node });
            }
        }
    }
    at_most("virtual addresses", &draft.virtual_addresses, size::VIPS, |vip| &vip.span, faults);
    at_most("nodes", &draft.nodes, size::PEERS, |node| &node.name.span, faults);
}

fn at_most<T>(
    what: &'static str,
    all: &[T],
    most: usize,
    span: impl Fn(&T) -> &Span,
    faults: &mut Faults<'_>,
) {
    if let Some(first_too_many) = all.get(most) {
        let problem = Problem::TooMany { what, found: all.len(), most, advice: "remove some" };
        faults.add(span(first_too_many), problem);
    }
}

fn is_virtual(draft: &Draft, address: IpAddr) -> bool {
    draft.virtual_addresses.iter().any(|vip| vip.value == address)
}

fn is_node(draft: &Draft, address: IpAddr) -> bool {
    draft.nodes.iter().flat_map(|node| &node.addresses).any(|own| own.value == address)
}

fn active(draft: &Draft, faults: &mut Faults<'_>) {
    let Some(active) = &draft.active else { return };
    known_node("active", active, draft, faults);
}

/// Reports a name that no node has.
fn known_node(key: &'static str, name: &Placed<String>, draft: &Draft, faults: &mut Faults<'_>) {
    let known: Vec<String> = draft.nodes.iter().map(|node| node.name.value.clone()).collect();
    if known.contains(&name.value) || !draft.places_complete {
        return;
    }
    let nearest = schema::nearest(&name.value, known.iter().map(String::as_str));
    let nearest = nearest.map(str::to_owned);
    let problem = Problem::UnknownNode { key, name: name.value.clone(), nearest, known };
    faults.add(&name.span, problem);
}

fn notify(draft: &Draft, faults: &mut Faults<'_>) {
    unique_placed("notify hook", draft.notify.iter().map(|hook| &hook.name), faults);
    at_most("notify hooks", &draft.notify, NOTIFY_HOOKS, |hook| &hook.name.span, faults);
}

/// Names are unique, and services have the backends that are asked of them.
fn tracks(draft: &Draft, faults: &mut Faults<'_>) {
    unique_placed("track", draft.tracks.iter().map(|track| &track.name), faults);
    at_most("tracks", &draft.tracks, TRACKS, |track| &track.name.span, faults);
    if !draft.services.iter().all(|service| service.complete) {
        return;
    }
    for track in &draft.tracks {
        let Some(wanted) = &track.backends else { continue };
        let named = track.service.as_ref();
        let of_name =
            |service: &&DraftService| named.is_none_or(|named| named.value == service.name.value);
        let services: Vec<&DraftService> = draft.services.iter().filter(of_name).collect();
        if let Some(named) = named
            && services.is_empty()
        {
            let known: Vec<String> = draft.services.iter().map(|s| s.name.value.clone()).collect();
            let nearest = schema::nearest(&named.value, known.iter().map(String::as_str));
            let nearest = nearest.map(str::to_owned);
            let problem = Problem::UnknownService { name: named.value.clone(), nearest, known };
            faults.add(&named.span, problem);
        }
        let too_small =
            services.iter().find(|s| (s.backends.len() as u64) < u64::from(wanted.value));
        if let Some(service) = too_small {
            let problem = Problem::NeverSoManyBackends {
                wanted: wanted.value,
                service: service.name.value.clone(),
                backends: service.backends.len(),
            };
            faults.add(&wanted.span, problem);
        }
    }
}

/// Names, and what clients see of a service, are unique.
fn service_keys(draft: &Draft, faults: &mut Faults<'_>) {
    unique_placed("service", draft.services.iter().map(|service| &service.name), faults);
    let complete = draft.services.iter().filter(|service| service.complete);
    let keys = complete.flat_map(|service| {
        addresses(service, draft).into_iter().map(|address| {
            ((address, service.port.value, service.protocol), service.port.span.clone())
        })
    });
    let show = |(address, port, protocol): &(IpAddr, u16, _)| {
        format!("{protocol} {}", std::net::SocketAddr::new(*address, *port))
    };
    unique("service at", keys, show, faults);
}

fn family(service: &DraftService) -> Option<Family> {
    service.backends.first().map(|first| Family::of(first.address.value.ip()))
}

/// Those that the service names, or all that fit its backends; each once.
fn addresses(service: &DraftService, draft: &Draft) -> Vec<IpAddr> {
    let all = service.addresses.as_ref().unwrap_or(&draft.virtual_addresses);
    let by_family = service.addresses.is_none();
    let mut addresses = Vec::new();
    for vip in values(all) {
        let fits = !by_family || family(service).is_none_or(|family| Family::of(vip) == family);
        if fits && !addresses.contains(&vip) {
            addresses.push(vip);
        }
    }
    addresses
}

fn complete(service: &DraftService, draft: &Draft, faults: &mut Faults<'_>) -> Service {
    service_addresses(service, draft, faults);
    backends(service, draft, faults);
    backups(service, faults);
    discover(service, faults);
    minimum_healthy(service, faults);
    table_size(service, faults);
    prefixes(service, faults);
    server_ids(service, faults);
    let ports = &draft.nat.ports;
    if ports.contains(&service.port.value) {
        let problem = Problem::PortInNatRange {
            service: service.name.value.clone(),
            port: service.port.value,
            first: *ports.start(),
            last: *ports.end(),
        };
        faults.add(&service.port.span, problem);
    }
    Service {
        name: service.name.value.clone(),
        addresses: addresses(service, draft),
        port: service.port.value,
        protocol: service.protocol,
        hash: service.hash,
        backends: service.backends.iter().map(backend).collect(),
        discover: discovering(service),
        table_size: service.table_size.as_ref().map(|placed| placed.value),
        health: health(service, draft),
        passive: service.passive,
        rebalance: service.rebalance,
        lists: lists(&service.lists),
        rate_limit: service.rate_limit,
        connection_limit: service.connection_limit,
        affinity: service.affinity,
        quic: service.quic,
    }
}

/// A script is told whose backends it checks.
fn health(service: &DraftService, draft: &Draft) -> Health {
    let mut health = service.health.clone();
    if let Check::Script(script) = Arc::make_mut(&mut health.check) {
        script.service.clone_from(&service.name.value);
        script.addresses = addresses(service, draft);
    }
    health
}

fn lists(draft: &DraftLists) -> Lists {
    let prefixes = |placed: &[Placed<Prefix>]| placed.iter().map(|placed| placed.value).collect();
    Lists {
        allow: prefixes(&draft.allow),
        deny: prefixes(&draft.deny),
        allow_file: draft.allow_file.clone(),
        deny_file: draft.deny_file.clone(),
    }
}

/// Each prefix stands once, on one of the lists, and some source of the service has it.
fn prefixes(service: &DraftService, faults: &mut Faults<'_>) {
    let DraftLists { allow, deny, .. } = &service.lists;
    unique_placed("prefix", allow.iter().chain(deny), faults);
    let Some(family) = family(service) else { return };
    for prefix in allow.iter().chain(deny) {
        if Family::of(prefix.value.address()) != family {
            let problem = Problem::PrefixOfOtherFamily { prefix: prefix.value, service: family };
            faults.add(&prefix.span, problem);
        }
    }
}

/// With [service.quic] each backend has an id of its own, of the length that it says; without it none.
fn server_ids(service: &DraftService, faults: &mut Faults<'_>) {
    unique_placed(
        "server_id",
        service.backends.iter().filter_map(|b| b.server_id.as_ref()),
        faults,
    );
    for DraftBackend { address, server_id, .. } in &service.backends {
        match (service.quic, server_id) {
            (None, Some(id)) => {
                let problem = Problem::OnlyWith { key: "server_id", with: "[service.quic]" };
                faults.add(&id.span, problem);
            }
            (Some(_), None) if service.complete => {
                faults.add(&address.span, Problem::NoServerId { backend: address.value });
            }
            (Some(quic), Some(id)) if id.value.length != quic.server_id_length => {
                let wanted = quic.server_id_length;
                let problem = Problem::ServerIdLength { id: id.value, wanted };
                faults.add(&id.span, problem);
            }
            _ => {}
        }
    }
}

fn backend(draft: &DraftBackend) -> Backend {
    Backend {
        address: draft.address.value,
        weight: draft.weight,
        delivery: draft.delivery.value,
        server_id: draft.server_id.as_ref().map(|placed| placed.value),
        backup: draft.backup.value,
    }
}

/// They are virtual addresses, and there is at least one.
fn service_addresses(service: &DraftService, draft: &Draft, faults: &mut Faults<'_>) {
    if !draft.places_complete {
        return;
    }
    let name = &service.name.value;
    match &service.addresses {
        Some(named) => {
            unique_placed("address", named, faults);
            for address in named.iter().filter(|address| !is_virtual(draft, address.value)) {
                let problem = Problem::NotVirtual { service: name.clone(), address: address.value };
                faults.add(&address.span, problem);
            }
        }
        None => {
            if let Some(backends) = family(service)
                && addresses(service, draft).is_empty()
            {
                let problem = Problem::NoVipOfFamily { service: name.clone(), backends };
                faults.add(&service.span, problem);
            }
        }
    }
}

fn backends(service: &DraftService, draft: &Draft, faults: &mut Faults<'_>) {
    unique_placed("backend", service.backends.iter().map(|backend| &backend.address), faults);
    for backend in &service.backends {
        backend_fits(backend, service, draft, faults);
    }
    let no_weight = service.backends.iter().all(|backend| backend.weight == 0);
    if no_weight && service.complete {
        let problem = Problem::NoWeight { service: service.name.value.clone() };
        faults.add(&service.backends_span, problem);
    }
    if let Some(first_too_many) = service.backends.get(BACKENDS_PER_SERVICE) {
        let problem = Problem::TooMany {
            what: "backends in one service",
            found: service.backends.len(),
            most: BACKENDS_PER_SERVICE,
            advice: "divide them between several services",
        };
        faults.add(&first_too_many.address.span, problem);
    }
}

fn backend_fits(
    backend: &DraftBackend,
    service: &DraftService,
    draft: &Draft,
    faults: &mut Faults<'_>,
) {
    let address = backend.address.value;
    let span = &backend.address.span;
    let own_family = Family::of(address.ip());
    if family(service).is_some_and(|first| first != own_family) {
        faults.add(span, Problem::MixedFamilies { backend: address });
    } else if let Some(vip) =
        service.addresses.iter().flatten().find(|vip| Family::of(vip.value) != own_family)
    {
        faults.add(span, Problem::FamilyMismatch { backend: address, vip: vip.value });
    }
    if is_virtual(draft, address.ip()) {
        faults.add(span, Problem::BackendIsVip { backend: address });
    }
    let direct = backend.delivery.value == DeliverySetting::Direct;
    if direct && draft.places_complete && !is_node(draft, address.ip()) {
        faults.add(&backend.delivery.span, Problem::DirectToStranger { backend: address });
    }
}

/// Somebody comes before the backups, and each of them has a rank in every bucket.
fn backups(service: &DraftService, faults: &mut Faults<'_>) {
    let backups = service.backends.iter().filter(|backend| backend.backup.value);
    let Some(first) = backups.map(|backend| &backend.backup.span).next() else { return };
    let primary = |backend: &DraftBackend| backend.weight > 0 && !backend.backup.value;
    if service.complete && !service.backends.iter().any(primary) {
        faults.add(first, Problem::OnlyBackups { service: service.name.value.clone() });
    }
    let backends = service.backends.len();
    if backends > RANKS {
        faults.add(first, Problem::BackupOfMany { backends, most: RANKS });
    }
}

/// What the file has is where a service begins.
fn discovering(service: &DraftService) -> Option<Discover> {
    let fixed = service.backends.iter().map(backend).collect();
    Some(Discover { fixed, ..service.discover.clone()? })
}

fn discover(service: &DraftService, faults: &mut Faults<'_>) {
    let Some(discover) = &service.discover else { return };
    if let Some(backup) = service.backends.iter().find(|backend| backend.backup.value) {
        let problem = Problem::BackupWithDiscover { backend: backup.address.value };
        faults.add(&backup.backup.span, problem);
    }
    let most = discover.max_backends as usize;
    if let Some(first_too_many) = service.backends.get(most) {
        let problem = Problem::TooMany {
            what: "backends to begin with",
            found: service.backends.len(),
            most,
            advice: "raise `max_backends` in [service.discover]",
        };
        faults.add(&first_too_many.address.span, problem);
    }
}

/// How many there may be.
fn most_backends(backends: usize, discover: Option<&Discover>) -> usize {
    discover.map_or(backends, |discover| backends.max(discover.max_backends as usize))
}

fn minimum_healthy(service: &DraftService, faults: &mut Faults<'_>) {
    let (wanted, backends) = (service.health.minimum_healthy, service.backends.len());
    if service.complete && (backends as u64) < u64::from(wanted) {
        faults.add(&service.minimum_span, Problem::MinimumOfMore { wanted, backends });
    }
}

fn table_size(service: &DraftService, faults: &mut Faults<'_>) {
    let Some(size) = &service.table_size else { return };
    let backends = most_backends(service.backends.len(), service.discover.as_ref());
    if (size.value as usize) < backends {
        faults.add(&size.span, Problem::TableTooSmall { size: size.value, backends });
    } else if !value::is_prime(size.value) {
        faults.add(&size.span, Problem::NotPrime { size: size.value });
    }
}

/// The maps have room for all services and backends, each counted once for each address.
fn fits_the_limits(draft: &Draft, services: &[Service], faults: &mut Faults<'_>) {
    let limits = [
        ("services (each address counts)", draft.limits.services, "raise `services` in [limits]"),
        ("backends (for each address)", draft.limits.backends, "raise `backends` in [limits]"),
    ];
    let mut found = [0usize; 2];
    let mut first_too_many: [Option<&Span>; 2] = [None; 2];
    for (service, draft) in services.iter().zip(&draft.services) {
        found[0] += service.addresses.len();
        let backends = most_backends(service.backends.len(), service.discover.as_ref());
        found[1] += service.addresses.len() * backends;
        for i in 0..2 {
            if found[i] > limits[i].1 as usize {
                first_too_many[i].get_or_insert(&draft.span);
            }
        }
    }
    for i in 0..2 {
        let (what, most, advice) = limits[i];
        if let Some(span) = first_too_many[i] {
            let most = most as usize;
            faults.add(span, Problem::TooMany { what, found: found[i], most, advice });
        }
    }
}
