//! nginx's `stream`: upstreams and servers as services. What belongs to the process or to HTTP has no
//! meaning here. A file may be a piece that another one includes: `upstream` and `server` that stand alone
//! are those of a `stream`.

mod server;
mod upstream;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::directive::{Directive, Place};
use super::node::why;
use super::report::{Placed, Report};
use crate::config::{Hash, Prefix, Protocol};
use upstream::Upstream;

/// Names of directives of the process and of `stream`, and what takes their place.
const MEANINGLESS: &[(&[&str], &str)] = &[
    (
        &[
            "worker_processes",
            "worker_connections",
            "worker_rlimit_nofile",
            "worker_cpu_affinity",
            "worker_priority",
            "worker_shutdown_timeout",
            "multi_accept",
            "use",
            "accept_mutex",
            "thread_pool",
            "events",
        ],
        "the kernel handles packets on every CPU: there are no workers, and no connections of their own",
    ),
    (
        &[
            "user",
            "daemon",
            "master_process",
            "pid",
            "lock_file",
            "load_module",
            "pcre_jit",
            "env",
            "timer_resolution",
            "working_directory",
        ],
        "it is about nginx's process; the agent has its own unit and paths ([paths], [control])",
    ),
    (
        &["access_log", "log_format", "open_log_file_cache"],
        "connections are not logged: `lbctl status` and metrics count them, backends see and log the clients",
    ),
    (&["error_log"], "the agent logs to standard error; `lbctl backends` says why one is out"),
    (
        &["proxy_timeout"],
        "no proxy holds a connection; silent ones through NAT end after `nat.tcp_established_timeout` \
         (`nat.udp_timeout`)",
    ),
    (
        &[
            "proxy_buffer_size",
            "proxy_socket_keepalive",
            "proxy_half_close",
            "tcp_nodelay",
            "preread_buffer_size",
            "preread_timeout",
            "proxy_next_upstream",
            "proxy_next_upstream_timeout",
            "proxy_next_upstream_tries",
            "proxy_session_drop",
            "proxy_requests",
            "proxy_responses",
            "proxy_bind",
        ],
        "no proxy stands between client and backend: packets are handed over, with the client's address",
    ),
    (
        &[
            "resolver",
            "resolver_timeout",
            "variables_hash_max_size",
            "variables_hash_bucket_size",
            "server_names_hash_bucket_size",
        ],
        "backends are addresses: nothing is looked up",
    ),
    (&["zone"], "each node's agent keeps what it knows of a backend"),
];

const HTTP: &str = "HTTP is not balanced here: who serves it goes on to do so";

/// A port of the VIPs, as a `server` has it.
#[derive(Debug)]
pub(super) struct Service {
    /// Not unique yet.
    pub(super) name: String,
    pub(super) port: Placed<u16>,
    pub(super) protocol: Protocol,
    /// None: all virtual addresses.
    pub(super) addresses: Option<Vec<Placed<IpAddr>>>,
    pub(super) hash: Hash,
    pub(super) hash_place: Place,
    pub(super) backends: Vec<Backend>,
    pub(super) max_fails: Placed<u32>,
    pub(super) fail_timeout: Placed<Duration>,
    pub(super) connect_timeout: Option<Placed<Duration>>,
    pub(super) allow: Vec<Placed<Prefix>>,
    pub(super) deny: Vec<Placed<Prefix>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Backend {
    pub(super) place: Place,
    pub(super) address: SocketAddr,
    /// 0: `down`.
    pub(super) weight: u16,
    pub(super) backup: bool,
    pub(super) max_fails: u32,
    pub(super) fail_timeout: Duration,
}

/// What holds for every server of a `stream`, unless it says it itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Scope {
    pub(super) connect_timeout: Option<Placed<Duration>>,
    pub(super) access: Vec<server::Access>,
}

/// All files of one nginx.
pub(super) fn read(files: &[Vec<Directive>], vips: &[IpAddr], report: &mut Report) -> Vec<Service> {
    let mut streams: Vec<&Directive> = Vec::new();
    for directive in files.iter().flatten() {
        match directive.name.as_str() {
            "stream" if directive.block.is_some() => {
                report.entered(directive, "the services");
                streams.extend(directive.children());
            }
            "http" | "mail" => http(directive, report),
            _ => streams.push(directive),
        }
    }
    let mut scope = Scope::default();
    for directive in &streams {
        if !matches!(directive.name.as_str(), "upstream" | "server") {
            simple(directive, &mut scope, files.len(), report);
        }
    }
    let targets = server::targets(&streams);
    let upstreams: Vec<Upstream> = streams
        .iter()
        .filter(|directive| directive.name == "upstream")
        .filter_map(|block| upstream::read(block, &targets, report))
        .collect();
    let servers = streams.iter().filter(|directive| directive.name == "server");
    servers.flat_map(|block| server::read(block, &upstreams, &scope, vips, report)).collect()
}

/// What stands beside upstreams and servers, and outside of `stream`.
fn simple(directive: &Directive, scope: &mut Scope, files: usize, report: &mut Report) {
    match directive.name.as_str() {
        "include" if files > 1 => report.meaningless(
            directive,
            "not followed: what it names is read if it is among the files of --nginx",
        ),
        "include" => report.not_taken(
            directive,
            "not followed: give the files that it names too, `--nginx FILE FILE`",
        ),
        _ if server::inherited(directive, scope, report) => {}
        name => match why(name, MEANINGLESS) {
            Some(why) => report.meaningless(directive, why),
            None => report.unknown(directive),
        },
    }
}

/// A block of HTTP. The servers in it are something that nobody takes over.
fn http(block: &Directive, report: &mut Report) {
    report.meaningless(block, HTTP);
    let servers: Vec<Place> = block
        .children()
        .iter()
        .filter(|directive| directive.name == "server")
        .map(|server| server.place.clone())
        .collect();
    if !servers.is_empty() {
        report.trap(
            servers,
            "servers of HTTP: they end with nginx, and this file does not have them. Leave nginx to \
             them, on other ports than the services'"
                .to_owned(),
        );
    }
}
