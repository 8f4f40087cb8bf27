//! The new `lb.toml` from what the old files say. Every key whose default differs from the old programs' is
//! written, so that the file means what they did.

use std::net::IpAddr;
use std::time::Duration;

use toml::{Table, Value};

use super::cluster::{Cluster, Router, Settings};
use super::directive::Place;
use super::document::Document;
use super::report::{Placed, Report};
use super::stream::{Backend, Service};
use super::tracks::{Notify, Track, Watch, Watched};
use super::value;
use crate::config::{Hash, Prefix, Protocol, duration_text};

const PRIORITY_MAX: i16 = 254;
/// `service.health.interval`, where the file does not say it.
const HEALTH_INTERVAL: Duration = Duration::from_secs(2);

/// What is to be written.
pub(super) struct Draft<'d> {
    pub(super) files: Vec<&'d str>,
    pub(super) cluster: &'d Cluster<'d>,
    pub(super) services: &'d [Service],
    pub(super) tracks: &'d [Track],
    pub(super) hooks: &'d [Notify],
}

pub(super) fn compose(draft: &Draft<'_>, report: &mut Report) -> String {
    let mut out = Document::default();
    out.comment(&format!("Made by `lbctl import` from {}.", draft.files.join(", ")));
    out.comment(
        "Behind each key stands the line that says it, or that of the block that leaves it at the old \
         program's default. Every other key: docs/configuration.md.",
    );
    top(draft.cluster, &mut out);
    let raise = draft.tracks.iter().map(Track::raise).fold(0, i16::saturating_add);
    nodes(draft.cluster, raise, &mut out, report);
    vrrp(draft.cluster, raise, &mut out);
    for track in draft.tracks {
        self::track(track, &mut out);
    }
    for hook in draft.hooks {
        notify(hook, &mut out);
    }
    let mut names = Vec::new();
    for service in draft.services {
        self::service(service, &mut names, &mut out);
    }
    out.into_text()
}

fn top(cluster: &Cluster<'_>, out: &mut Document) {
    match &cluster.interfaces[..] {
        [] => out.comment("interface = \"..\"  # no file says it: `lbctl attach` does"),
        [one] => out.key("interface", one.value.clone(), &[&one.place]),
        several => {
            let names = several.iter().map(|i| (Value::from(i.value.clone()), vec![&i.place]));
            out.list("interfaces", names);
        }
    }
    out.list("virtual_addresses", texts(cluster.virtual_addresses()));
}

fn texts<'p, T: ToString>(
    values: impl IntoIterator<Item = (T, Vec<&'p Place>)>,
) -> impl Iterator<Item = (Value, Vec<&'p Place>)> {
    values.into_iter().map(|(value, places)| (Value::from(value.to_string()), places))
}

fn nodes(cluster: &Cluster<'_>, raise: i16, out: &mut Document, report: &mut Report) {
    for (index, node) in cluster.nodes.iter().enumerate() {
        out.heading("[[node]]");
        match node.name_place {
            Some(place) => out.key("name", node.name.clone(), &[place]),
            None => out.key_because("name", node.name.clone(), &format!("from {}", node.file.file)),
        }
        match &node.addresses[..] {
            [] => out.comment("address = \"..\"  # no file says it: write the node's own address"),
            [first, others @ ..] => {
                out.key("address", first.value.to_string(), &[&first.place]);
                if !others.is_empty() {
                    let others = others.iter().map(|a| (a.value, vec![&a.place]));
                    out.list("addresses", texts(others));
                }
            }
        }
        let of_node = cluster.routers.iter().find_map(|router| router.priority(index));
        if let Some((priority, place)) = of_node {
            out.key("priority", raised(priority, raise, place, report), &[place]);
        }
    }
}

/// With what positive weights add while all is well.
fn raised(priority: u8, raise: i16, place: &Place, report: &mut Report) -> i64 {
    let sum = i16::from(priority).saturating_add(raise);
    if sum > PRIORITY_MAX {
        let text = format!(
            "priority {priority} and the weights above 0 are more than {PRIORITY_MAX}, which it is now: lower the \
             priorities of all nodes"
        );
        report.disagreement(vec![place.clone()], text);
    }
    sum.min(PRIORITY_MAX).into()
}

fn vrrp(cluster: &Cluster<'_>, raise: i16, out: &mut Document) {
    let settings = &cluster.settings;
    out.heading("[vrrp]");
    if let [only] = &cluster.routers[..] {
        router_id(only, out);
    }
    out.key("version", i64::from(settings.version.value), &[&settings.version.place]);
    let interval = duration_text(settings.interval.value);
    out.key("advertisement_interval", interval, &[&settings.interval.place]);
    preemption(settings, out);
    if !settings.unicast.is_empty() {
        out.key("unicast", true, &refs(&settings.unicast));
    }
    if let Some(Placed { value, place }) = &settings.auth_pass {
        out.key("auth_pass", value.clone(), &[place]);
    }
    if !settings.silent_to_rivals.is_empty() {
        out.key("answer_rivals", false, &refs(&settings.silent_to_rivals));
    }
    if !settings.virtual_mac.is_empty() && settings.unicast.is_empty() {
        out.key("virtual_mac", true, &refs(&settings.virtual_mac));
    }
    if cluster.routers.len() > 1 {
        cluster.routers.iter().for_each(|router| self::router(router, cluster, raise, out));
    }
}

fn refs(places: &[Place]) -> Vec<&Place> {
    places.iter().collect()
}

fn preemption(settings: &Settings, out: &mut Document) {
    match &settings.nopreempt[..] {
        [] => out.key_because(
            "preempt",
            settings.preempt,
            "keepalived's, where no file says nopreempt",
        ),
        places => out.key("preempt", settings.preempt, &refs(places)),
    }
    if let (Some(Placed { value, place }), true) = (&settings.preempt_delay, settings.preempt) {
        out.key("preempt_delay", duration_text(*value), &[place]);
    }
}

fn router_id(router: &Router<'_>, out: &mut Document) {
    match &router.router_id {
        Some(id) => {
            let places = router.members.iter().filter_map(|(_, i)| i.router_id.as_ref());
            let places: Vec<&Place> = places.map(|id| &id.place).collect();
            out.key("router_id", i64::from(id.value), &places);
        }
        None => out.comment(
            "router_id = ..  # no file says it: 1 to 255, the same as on keepalived's nodes",
        ),
    }
}

fn router(router: &Router<'_>, cluster: &Cluster<'_>, raise: i16, out: &mut Document) {
    out.heading("[[vrrp.router]]");
    router_id(router, out);
    out.list("virtual_addresses", texts(router.addresses()));
    let differing = cluster.nodes.iter().enumerate().filter_map(|(index, node)| {
        let (own, _) = cluster.routers.iter().find_map(|router| router.priority(index))?;
        let (priority, place) = router.priority(index)?;
        let raised = i16::from(priority).saturating_add(raise).min(PRIORITY_MAX);
        let element =
            table([("node", node.name.clone().into()), ("priority", i64::from(raised).into())]);
        (priority != own).then_some((element, vec![place]))
    });
    let differing: Vec<_> = differing.collect();
    if !differing.is_empty() {
        out.list("priorities", differing);
    }
}

fn table<const N: usize>(keys: [(&str, Value); N]) -> Value {
    Value::Table(keys.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<Table>())
}

fn track(track: &Track, out: &mut Document) {
    out.heading("[[track]]");
    out.key("name", track.name.clone(), &[&track.place]);
    match &track.watched {
        Watched::Interface(name) => out.key("interface", name.clone(), &[&track.place]),
        Watched::Script(watch) => script(watch, out),
    }
    if let Some((penalty, place)) = track.penalty() {
        out.key("weight", i64::from(penalty), &[place]);
    }
}

fn script(watch: &Watch, out: &mut Document) {
    let Watch { command, interval, timeout, rise, fall, user } = watch;
    out.key("script", command.value.clone(), &[&command.place]);
    out.key("interval", duration_text(interval.value), &[&interval.place]);
    if let Some(Placed { value, place }) = timeout {
        out.key("timeout", duration_text((*value).min(interval.value)), &[place]);
    }
    out.key("rise", i64::from(rise.value), &[&rise.place]);
    out.key("fall", i64::from(fall.value), &[&fall.place]);
    out.key("user", user.value.clone(), &[&user.place]);
}

fn notify(hook: &Notify, out: &mut Document) {
    out.heading("[[notify]]");
    out.key("name", hook.name.clone(), &[&hook.command.place]);
    out.key("script", hook.command.value.clone(), &[&hook.command.place]);
    if let Some(Placed { value, place }) = &hook.user {
        out.key("user", value.clone(), &[place]);
    }
    out.key_because("events", vec!["role"], "what keepalived calls it for");
}

fn service(service: &Service, names: &mut Vec<String>, out: &mut Document) {
    let Service { port, protocol, addresses, .. } = service;
    out.heading("[[service]]");
    let base = value::name(&service.name).unwrap_or_else(|| "service".to_owned());
    let name = match names.contains(&base) {
        true => value::unique(&format!("{}-{}", &base[..base.len().min(50)], port.value), names),
        false => base,
    };
    out.key("name", name.clone(), &[&service.hash_place]);
    names.push(name);
    out.key("port", i64::from(port.value), &[&port.place]);
    if *protocol == Protocol::Udp {
        out.key("protocol", protocol.to_string(), &[&port.place]);
    }
    if let Some(addresses) = addresses {
        let each =
            addresses.iter().map(|address: &Placed<IpAddr>| (address.value, vec![&address.place]));
        out.list("addresses", texts(each));
    }
    let hash: Hash = service.hash;
    out.key("hash", hash.to_string(), &[&service.hash_place]);
    out.list("backends", service.backends.iter().map(|b| (backend(b), vec![&b.place])));
    for (key, prefixes) in [("allow", &service.allow), ("deny", &service.deny)] {
        if !prefixes.is_empty() {
            let each = prefixes.iter().map(|p: &Placed<Prefix>| (p.value, vec![&p.place]));
            out.list(key, texts(each));
        }
    }
    if *protocol == Protocol::Tcp {
        health(service, out);
    }
}

fn backend(backend: &Backend) -> Value {
    let address = backend.address.to_string();
    if backend.weight == 1 && !backend.backup {
        return address.into();
    }
    let mut keys = Table::new();
    keys.insert("address".to_owned(), address.into());
    if backend.weight != 1 {
        keys.insert("weight".to_owned(), i64::from(backend.weight).into());
    }
    if backend.backup {
        keys.insert("backup".to_owned(), true.into());
    }
    Value::Table(keys)
}

/// Of a service over TCP.
fn health(service: &Service, out: &mut Document) {
    if let Some(Placed { value: timeout, place }) = &service.connect_timeout {
        out.heading("[service.health]");
        out.key("timeout", duration_text(*timeout), &[place]);
        if *timeout > HEALTH_INTERVAL {
            out.key("interval", duration_text(*timeout), &[place]);
        }
    }
    out.heading("[service.passive]");
    out.key("max_fails", i64::from(service.max_fails.value), &[&service.max_fails.place]);
    let fail_timeout = duration_text(service.fail_timeout.value);
    out.key("fail_timeout", fail_timeout, &[&service.fail_timeout.place]);
}
