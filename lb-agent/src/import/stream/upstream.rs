//! An `upstream`: how clients are divided, and the backends.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Backend, MEANINGLESS};
use crate::config::Hash;
use crate::import::directive::{Directive, Place};
use crate::import::node::why;
use crate::import::report::{Placed, Report};
use crate::import::value::nginx_time;

/// nginx's own, where a server does not say it.
const MAX_FAILS: u32 = 1;
const FAIL_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) name: String,
    pub(super) hash: Placed<Hash>,
    pub(super) backends: Vec<Backend>,
    pub(super) max_fails: Placed<u32>,
    pub(super) fail_timeout: Placed<Duration>,
}

/// None where nothing of it can be used; `targets` are the names that servers pass to.
pub(super) fn read(block: &Directive, targets: &[&str], report: &mut Report) -> Option<Upstream> {
    let ([name], Some(_)) = (&block.arguments[..], &block.block) else {
        report.not_taken(block, "not understood: it should be upstream NAME { .. }");
        return None;
    };
    if !targets.contains(&name.as_str()) {
        report.meaningless(block, "no `server` of `stream` passes to it");
        return None;
    }
    report.entered(block, "service.name");
    let mut backends = Vec::new();
    let mut hash = None;
    for directive in block.children() {
        match directive.name.as_str() {
            "server" => backends.extend(server(directive, report)),
            "hash" => hash = hash.or(by_hash(directive, report)),
            "least_conn" | "random" | "least_time" => {
                report.not_taken(
                    directive,
                    "balancing is by hash alone: `hash = \"source-port\"` spreads connections evenly, and \
                     does not look at how many a backend has",
                );
                hash = hash.or(Some(Placed::new(Hash::SourcePort, &directive.place)));
            }
            name => match why(name, MEANINGLESS) {
                Some(why) => report.meaningless(directive, why),
                None => report.unknown(directive),
            },
        }
    }
    if backends.is_empty() {
        let text = format!("upstream {name} has no server that could be taken over");
        report.missing(vec![block.place.clone()], text);
        return None;
    }
    let hash = hash.unwrap_or_else(|| in_turn(block, report));
    Some(passive(name, hash, backends, block, report))
}

/// Without a method nginx takes servers in turn.
fn in_turn(block: &Directive, report: &mut Report) -> Placed<Hash> {
    report.trap(
        vec![block.place.clone()],
        "no method is written, so that nginx took the servers in turn. Here a hash of the client's address and \
         port divides connections (`hash = \"source-port\"`): as evenly over many of them, not one after the other"
            .to_owned(),
    );
    Placed::new(Hash::SourcePort, &block.place)
}

/// `hash KEY [consistent]`.
fn by_hash(directive: &Directive, report: &mut Report) -> Option<Placed<Hash>> {
    let (key, consistent) = match &directive.arguments[..] {
        [key] => (key, false),
        [key, word] if word == "consistent" => (key, true),
        _ => {
            report.not_taken(directive, "not understood: it should be hash KEY [consistent]");
            return None;
        }
    };
    let plain: String = key.chars().filter(|c| !"{}:".contains(*c)).collect();
    let hash = match plain.as_str() {
        "$remote_addr" | "$binary_remote_addr" => Hash::Source,
        "$remote_addr$remote_port" | "$binary_remote_addr$remote_port" => Hash::SourcePort,
        _ => {
            report.not_taken(
                directive,
                "a client is told by its address, or by its address and port (`hash`); nothing that it \
                 says is read",
            );
            return None;
        }
    };
    report.taken(directive, format!("service.hash = \"{hash}\""));
    if !consistent {
        report.trap(
            vec![directive.place.clone()],
            "without `consistent` most clients changed their server whenever one came or went. Here only \
             those of that server do"
                .to_owned(),
        );
    }
    Some(Placed::new(hash, &directive.place))
}

/// `server ADDRESS:PORT [parameters]`.
fn server(directive: &Directive, report: &mut Report) -> Option<Backend> {
    let Some((text, parameters)) = directive.arguments.split_first() else {
        report.not_taken(directive, "not understood: it should be server ADDRESS:PORT");
        return None;
    };
    let Ok(address) = text.parse::<SocketAddr>() else {
        report.not_taken(
            directive,
            "a backend is an address and a port: no names are looked up, and there are no Unix sockets",
        );
        return None;
    };
    let mut backend = Backend {
        place: directive.place.clone(),
        address,
        weight: 1,
        backup: false,
        max_fails: MAX_FAILS,
        fail_timeout: FAIL_TIMEOUT,
    };
    let mut down = false;
    for parameter in parameters {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let understood = match name {
            "weight" => set(&mut backend.weight, value.parse().ok()),
            "max_fails" => set(&mut backend.max_fails, value.parse().ok()),
            "fail_timeout" => set(&mut backend.fail_timeout, nginx_time(value)),
            "backup" => set(&mut backend.backup, Some(true)),
            "down" => set(&mut down, Some(true)),
            _ => false,
        };
        if !understood {
            report.part_not_taken(directive, parameter, unknown_parameter(name));
        }
    }
    if down {
        backend.weight = 0;
    }
    report.taken(
        directive,
        match down {
            true => "service.backends, with weight = 0 for `down`; service.passive",
            false => "service.backends, service.passive",
        },
    );
    Some(backend)
}

fn set<T>(place: &mut T, value: Option<T>) -> bool {
    value.map(|value| *place = value).is_some()
}

fn unknown_parameter(name: &str) -> &'static str {
    match name {
        "max_conns" => {
            "a backend's connections are not limited; [service.connection_limit] limits each client's"
        }
        "resolve" | "service" => "backends are addresses: no names are looked up",
        "slow_start" => "there is none: a hash gives a backend its share at once",
        _ => "not understood",
    }
}

/// One pair of `max_fails` and `fail_timeout` for the service.
fn passive(
    name: &str,
    hash: Placed<Hash>,
    backends: Vec<Backend>,
    block: &Directive,
    report: &mut Report,
) -> Upstream {
    const SO: &str = "a service has one here, and the first is taken";
    let of = |place: &Place, value| Placed { value, place: place.clone() };
    let fails = backends.iter().map(|b| Placed { value: b.max_fails, place: b.place.clone() });
    let timeouts =
        backends.iter().map(|b| Placed { value: b.fail_timeout, place: b.place.clone() });
    let max_fails = report.agree("max_fails", fails, u32::to_string, SO);
    let fail_timeout =
        report.agree("fail_timeout", timeouts, |t| crate::config::duration_text(*t), SO);
    Upstream {
        name: name.to_owned(),
        hash,
        max_fails: max_fails.unwrap_or_else(|| of(&block.place, MAX_FAILS)),
        fail_timeout: fail_timeout.unwrap_or_else(|| Placed::new(FAIL_TIMEOUT, &block.place)),
        backends,
    }
}

/// Of a `proxy_pass` to an address, without an upstream.
pub(super) fn alone(address: SocketAddr, place: &Place) -> Upstream {
    let backend = Backend {
        place: place.clone(),
        address,
        weight: 1,
        backup: false,
        max_fails: 0,
        fail_timeout: FAIL_TIMEOUT,
    };
    Upstream {
        name: "service".to_owned(),
        hash: Placed::new(Hash::Source, place),
        // nginx does not count the failures of a server that is alone.
        max_fails: Placed::new(0, place),
        fail_timeout: Placed::new(FAIL_TIMEOUT, place),
        backends: vec![backend],
    }
}
