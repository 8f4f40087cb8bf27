//! `[service.discover]`: where backends are asked for.

use std::time::Duration;

use super::super::discover::{Discover, DnsSource, KubernetesSource, Source};
use super::super::document::{Item, Section};
use super::super::error::Faults;
use super::super::problem::Problem;
use super::super::{schema, value};
use super::HOUR;

const EXAMPLE: &str = "dns = \"api.example.internal\" and port = 6443";
/// A map of some MiB is taken for the table of that many at most.
const MAX_BACKENDS: u32 = 256;
/// What only a name has.
const OF_DNS: [&str; 4] = ["port", "servers", "min_ttl", "max_ttl"];
const DAY: Duration = Duration::from_secs(24 * 3600);

pub(super) fn read(service: &Section<'_>, faults: &mut Faults<'_>) -> Option<Discover> {
    let section = service.optional_section("discover", &schema::DISCOVER, faults)?;
    if service.has("quic") {
        let problem = Problem::Both { first: "quic", second: "discover" };
        faults.add(&section.span, problem);
    }
    if section.has("dns") && section.has("kubernetes") {
        let problem = Problem::Both { first: "dns", second: "kubernetes" };
        faults.add(&section.span_of("kubernetes"), problem);
    }
    let max_backends = section
        .or("max_backends", MAX_BACKENDS, faults, |item| item.number(1..=u32::from(u16::MAX)));
    let linger = section.or("linger", Duration::from_secs(600), faults, |item: Item<'_>| {
        item.duration(Duration::ZERO..=DAY)
    });
    let source = if section.has("kubernetes") {
        for key in OF_DNS.into_iter().filter(|&key| section.has(key)) {
            faults.add(&section.span_of(key), Problem::OnlyWith { key, with: "dns" });
        }
        kubernetes(&section, faults)
    } else {
        dns(&section, faults)
    };
    Some(Discover { source: source?, max_backends, linger, fixed: Vec::new() })
}

fn dns(section: &Section<'_>, faults: &mut Faults<'_>) -> Option<Source> {
    let name = section.required("dns", EXAMPLE, faults, |item| item.parsed(value::dns_name));
    let port = section.required("port", "port = 6443", faults, |item| item.number(1..=u16::MAX));
    let servers = section.list("servers", "servers = [\"192.0.2.53:53\"]", faults, |item| {
        item.parsed(value::socket_address)
    });
    let lowest = Duration::from_millis(100);
    let min_ttl = section.or("min_ttl", Duration::from_secs(5), faults, |item: Item<'_>| {
        item.duration(lowest..=HOUR)
    });
    let max_ttl =
        section.optional("max_ttl", faults, |item: Item<'_>| item.duration(min_ttl..=DAY));
    let max_ttl = max_ttl.map_or(Duration::from_secs(300).max(min_ttl), |placed| placed.value);
    let servers = servers.into_iter().map(|placed| placed.value).collect();
    Some(Source::Dns(DnsSource { name: name?.value, port: port?.value, servers, min_ttl, max_ttl }))
}

fn kubernetes(section: &Section<'_>, faults: &mut Faults<'_>) -> Option<Source> {
    let section = section.optional_section("kubernetes", &schema::KUBERNETES, faults)?;
    let name = |item: Item<'_>| item.parsed(value::name);
    let service = section.required("service", "service = \"kubernetes\"", faults, name);
    let namespace = section.or("namespace", "default".to_owned(), faults, name);
    let port_name = section.optional("port_name", faults, name);
    let kubeconfig = section.optional("kubeconfig", faults, |item| item.parsed(value::path));
    Some(Source::Kubernetes(KubernetesSource {
        namespace,
        service: service?.value,
        port_name: port_name.map(|placed| placed.value),
        kubeconfig: kubeconfig.map(|placed| placed.value),
    }))
}
