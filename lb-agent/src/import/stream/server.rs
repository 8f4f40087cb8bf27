//! A `server` of `stream`: where it listens, and whom it passes to. One with several ports becomes several
//! services.

use std::net::{IpAddr, SocketAddr};

use super::upstream::{self, Upstream};
use super::{MEANINGLESS, Scope, Service};
use crate::config::{NoPrefix, Prefix, Protocol};
use crate::import::directive::{Directive, Place};
use crate::import::node::why;
use crate::import::report::{Placed, Report};
use crate::import::value::{nginx_time, only};

const NOT_TAKEN: &[(&[&str], &str)] = &[
    (
        &["proxy_protocol", "proxy_protocol_timeout", "set_real_ip_from"],
        "nothing is put before what a client says: backends see the client's address without it, so \
         switch PROXY off there",
    ),
    (
        &["limit_conn", "limit_conn_zone", "limit_conn_dry_run", "limit_conn_log_level"],
        "write [service.connection_limit], which limits each source's connections, or [service.rate_limit]",
    ),
    (
        &["proxy_upload_rate", "proxy_download_rate"],
        "bytes are not limited; [service.rate_limit] limits new connections",
    ),
    (
        &[
            "ssl_preread",
            "map",
            "geo",
            "split_clients",
            "set",
            "return",
            "js_access",
            "js_filter",
            "js_preread",
        ],
        "nothing that a client says is read: a service is an address and a port",
    ),
];

/// Parameters of `listen` that are about nginx's own socket.
const OF_SOCKET: [&str; 10] = [
    "backlog",
    "rcvbuf",
    "sndbuf",
    "reuseport",
    "deferred",
    "bind",
    "ipv6only",
    "so_keepalive",
    "fastopen",
    "setfib",
];

/// `allow` or `deny`.
#[derive(Clone, Debug)]
pub(in crate::import) struct Access {
    allow: bool,
    /// None: `all`.
    prefix: Option<Prefix>,
    place: Place,
}

/// One port that a server listens on.
struct Listen {
    /// None: all.
    address: Option<IpAddr>,
    port: u16,
    protocol: Protocol,
    place: Place,
}

/// The names that servers pass to.
pub(super) fn targets<'d>(streams: &[&'d Directive]) -> Vec<&'d str> {
    let servers = streams.iter().filter(|directive| directive.name == "server");
    let passes = servers.flat_map(|server| server.children()).filter(|d| d.name == "proxy_pass");
    passes.filter_map(|pass| only(pass).ok()).collect()
}

pub(super) fn read(
    block: &Directive,
    upstreams: &[Upstream],
    scope: &Scope,
    vips: &[IpAddr],
    report: &mut Report,
) -> Vec<Service> {
    let pass = block.children().iter().rfind(|directive| directive.name == "proxy_pass");
    let Some(pass) = pass else {
        report.not_taken(block, "a `server` without `proxy_pass` has no backends");
        return Vec::new();
    };
    let target = only(pass).unwrap_or_default();
    let upstream = upstreams.iter().find(|upstream| upstream.name == target);
    let of_address = target.parse().ok().map(|address| upstream::alone(address, &pass.place));
    let Some(upstream) = upstream.or(of_address.as_ref()) else {
        report.not_taken(
            block,
            "its `proxy_pass` is neither an upstream that was taken over nor an address and a port",
        );
        return Vec::new();
    };
    report.entered(block, "[[service]]");
    let mut own = Scope { access: Vec::new(), ..scope.clone() };
    let mut listens = Vec::new();
    for directive in block.children() {
        match directive.name.as_str() {
            "proxy_pass" => report.taken(directive, "service.backends"),
            "listen" => listens.extend(listen(directive, vips, report)),
            _ if inherited(directive, &mut own, report) => {}
            name => match why(name, MEANINGLESS) {
                Some(why) => report.meaningless(directive, why),
                None => report.unknown(directive),
            },
        }
    }
    if listens.is_empty() {
        let text =
            "the server listens nowhere that could be taken over: it is no service".to_owned();
        report.missing(vec![block.place.clone()], text);
    }
    if own.access.is_empty() {
        own.access.clone_from(&scope.access);
    }
    services(&listens, upstream, &own, report)
}

/// What may stand in a server and around it. False where it is nothing of that kind.
pub(super) fn inherited(directive: &Directive, scope: &mut Scope, report: &mut Report) -> bool {
    match directive.name.as_str() {
        "proxy_connect_timeout" => {
            let read = only(directive).and_then(|text| {
                nginx_time(text).ok_or_else(|| "not understood: it should be a time".to_owned())
            });
            scope.connect_timeout = report.take(directive, "service.health.timeout", read);
        }
        "allow" | "deny" => access(directive, scope, report),
        name if name.starts_with("ssl_") && name != "ssl_preread"
            || name.starts_with("proxy_ssl") =>
        {
            report.not_taken(
                directive,
                "TLS ends at the backends: nothing is encrypted or decrypted here",
            );
        }
        name => match why(name, NOT_TAKEN) {
            Some(why) => report.not_taken(directive, why),
            None => return false,
        },
    }
    true
}

fn access(directive: &Directive, scope: &mut Scope, report: &mut Report) {
    let allow = directive.name == "allow";
    let read = only(directive).and_then(|text| match (text, text.parse::<Prefix>()) {
        ("all", _) => Ok(None),
        (_, Ok(prefix) | Err(NoPrefix::HostBits(prefix))) => Ok(Some(prefix)),
        _ => Err("not understood: it should be an address or a prefix".to_owned()),
    });
    let key = if allow { "service.allow" } else { "service.deny" };
    if let Some(Placed { value: prefix, place }) = report.take(directive, key, read) {
        scope.access.push(Access { allow, prefix, place });
    }
}

/// `listen [ADDRESS:]PORT [udp] [parameters]`. None where it is nothing that a VIP could have.
fn listen(directive: &Directive, vips: &[IpAddr], report: &mut Report) -> Option<Listen> {
    let (address, port) = match directive.arguments.first().map(|text| endpoint(text)) {
        Some(Some(endpoint)) => endpoint,
        _ => {
            report.not_taken(
                directive,
                "a service has one port, and no name: write one [[service]] for each",
            );
            return None;
        }
    };
    let address = address.filter(|address| !address.is_unspecified());
    if let Some(own) = address.filter(|own| !vips.contains(own)) {
        let why = match own.is_loopback() {
            true => {
                "not a virtual address; the node's own processes reach the VIPs without it ([host])"
            }
            false => "not a virtual address: a service is at those of `virtual_addresses` alone",
        };
        report.not_taken(directive, why);
        return None;
    }
    let parameters = directive.arguments.get(1..).unwrap_or_default();
    let udp = parameters.iter().any(|parameter| parameter == "udp");
    let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
    for parameter in parameters.iter().filter(|parameter| *parameter != "udp") {
        let name = parameter.split('=').next().unwrap_or_default();
        match name {
            "ssl" => report.part_not_taken(directive, "ssl", "TLS ends at the backends"),
            name if OF_SOCKET.contains(&name) => {}
            _ => report.part_not_taken(directive, parameter, "not understood"),
        }
    }
    report.taken(
        directive,
        match address {
            Some(_) => format!("service.address, service.port = {port}"),
            None => format!("service.port = {port}, of the virtual addresses alone"),
        },
    );
    Some(Listen { address, port, protocol, place: directive.place.clone() })
}

/// `8443`, `*:8443`, `192.168.139.150:8443`, `[fd00::150]:8443`.
fn endpoint(text: &str) -> Option<(Option<IpAddr>, u16)> {
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    if let Some(port) = port(text.strip_prefix("*:").unwrap_or(text)) {
        return Some((None, port));
    }
    let endpoint: SocketAddr = text.parse().ok()?;
    (endpoint.port() > 0).then(|| (Some(endpoint.ip()), endpoint.port()))
}

/// One for each port and protocol.
fn services(
    listens: &[Listen],
    upstream: &Upstream,
    scope: &Scope,
    report: &mut Report,
) -> Vec<Service> {
    let (allow, deny) = lists(&scope.access, report);
    let mut services: Vec<Service> = Vec::new();
    for listen in listens {
        let named = listen.address.map(|address| Placed::new(address, &listen.place));
        let same = |s: &&mut Service| s.port.value == listen.port && s.protocol == listen.protocol;
        if let Some(service) = services.iter_mut().find(same) {
            service.addresses = match (service.addresses.take(), named) {
                (Some(mut all), Some(named)) => {
                    all.push(named);
                    Some(all)
                }
                _ => None,
            };
            continue;
        }
        services.push(Service {
            name: upstream.name.clone(),
            port: Placed::new(listen.port, &listen.place),
            protocol: listen.protocol,
            addresses: named.map(|named| vec![named]),
            hash: upstream.hash.value,
            hash_place: upstream.hash.place.clone(),
            backends: upstream.backends.clone(),
            max_fails: upstream.max_fails.clone(),
            fail_timeout: upstream.fail_timeout.clone(),
            connect_timeout: scope.connect_timeout.clone(),
            allow: allow.clone(),
            deny: deny.clone(),
        });
    }
    services
}

/// nginx goes by the first rule that fits, here the longest prefix decides. They mean the same where no
/// prefix holds another one that stands behind it.
fn lists(rules: &[Access], report: &mut Report) -> (Vec<Placed<Prefix>>, Vec<Placed<Prefix>>) {
    let (mut allow, mut deny) = (Vec::new(), Vec::new());
    for (index, Access { allow: allows, prefix, place }) in rules.iter().enumerate() {
        match prefix {
            Some(prefix) if *allows => allow.push(Placed::new(*prefix, place)),
            Some(prefix) => deny.push(Placed::new(*prefix, place)),
            None if index + 1 < rules.len() => {
                let text = "what stands behind `all` was never looked at, and counts here";
                report.disagreement(vec![place.clone()], text.to_owned());
            }
            None => {}
        }
    }
    match rules.last() {
        Some(Access { allow: false, prefix: None, place }) if allow.is_empty() => {
            let text = "`deny all` without an `allow` denies everybody: it is left out";
            report.disagreement(vec![place.clone()], text.to_owned());
        }
        Some(Access { allow: true, prefix: None, place }) if !allow.is_empty() => {
            let text = "`allow all` is left out: with `allow` everybody else is denied here; leave the \
                        key `allow` out too, and only `deny` counts";
            report.disagreement(vec![place.clone()], text.to_owned());
        }
        Some(Access { prefix: Some(_), place, .. }) if !allow.is_empty() => {
            let text = "no `deny all` follows the rules, so that nginx lets everybody else in: with \
                        `allow` everybody else is denied here";
            report.disagreement(vec![place.clone()], text.to_owned());
        }
        _ => {}
    }
    if rules.len() > 2 && !allow.is_empty() && !deny.is_empty() {
        let places = rules.iter().map(|rule| rule.place.clone()).collect();
        let text =
            "of these rules nginx goes by the first that fits; here the longest prefix decides";
        report.trap(places, text.to_owned());
    }
    (allow, deny)
}
