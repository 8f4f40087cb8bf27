//! The configuration: what `lb.toml` says, as types that cannot be wrong.
//!
//! [`Config::parse`] takes the file's text and answers with a [`Config`] or with every problem it
//! found, each with its place and remedy. Nothing here reads files, knows which node it runs on or
//! looks at the system: whether an interface exists or a cgroup is mounted is for others to see.

mod check;
mod datagram;
mod difference;
mod discover;
mod document;
mod draft;
mod error;
mod node;
mod notify;
mod peers;
mod problem;
mod protection;
mod remark;
pub(crate) mod schema;
mod secret;
mod track;
mod validate;
mod value;
mod vrrp;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use toml::de::DeTable;

use draft::Draft;
use error::Faults;

pub use check::{
    Check, ClientCertificate, Fingerprint, HttpCheck, ScriptCheck, Statuses, TlsCheck, Trust,
};
pub use datagram::{Quic, ServerId};
pub use difference::{Change, Fixed};
pub use discover::{Discover, DnsSource, KubernetesSource, Source};
pub use error::{ConfigError, Fault};
pub use node::NodeError;
pub use notify::{Notify, NotifyEvent, NotifyWay, Url};
pub use peers::Peers;
pub use problem::{AddressKind, Family, Form, KeyAdvice, Problem};
pub use protection::{ConnectionLimit, Lists, NoPrefix, Prefix, RateLimit, SynFlood};
pub use track::{BUILT_IN, Script, Track, Watched};
pub(crate) use value::is_interface_name;
pub use value::{duration_of, duration_text};
pub use vrrp::{AuthPass, VirtualRouter, Vrrp, VrrpChecksum, VrrpVersion};

/// Everything that `lb.toml` says, checked and with its defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// To be attached at the start; may be empty (`lbctl attach` does it then).
    pub interfaces: Vec<String>,
    /// The VIPs: at least one, each a unicast address that no node or backend has.
    pub virtual_addresses: Vec<IpAddr>,
    /// Name of the node that holds the VIPs while nothing else decides. None with `vrrp`.
    pub active: Option<String>,
    /// At least one; names and addresses are unique.
    pub nodes: Vec<Node>,
    /// At least one; names, and (address, protocol, port), are unique.
    pub services: Vec<Service>,
    /// None: switched off.
    pub vrrp: Option<Vrrp>,
    /// Who is told of changes; names are unique.
    pub notify: Vec<Notify>,
    /// None without `vrrp`. Names are unique.
    pub tracks: Vec<Track>,
    pub lease: Lease,
    pub nat: Nat,
    /// None: switched off.
    pub peers: Option<Peers>,
    pub host: Host,
    pub data_path: DataPath,
    /// None: switched off.
    pub syn_flood: Option<SynFlood>,
    pub metrics: Metrics,
    pub control: Control,
    pub paths: Paths,
    pub limits: Limits,
}

/// A machine that runs the agent.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub name: String,
    /// At least one; the first is the one that the file calls `address`.
    pub addresses: Vec<IpAddr>,
    /// 1 to 254; the highest becomes Active first, by VRRP.
    pub priority: u8,
}

/// A port of the VIPs, and who serves it.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    pub name: String,
    /// At least one of the VIPs, all of the backends' family.
    pub addresses: Vec<IpAddr>,
    /// The clients' port, not 0.
    pub port: u16,
    pub protocol: Protocol,
    pub hash: Hash,
    /// At least one, at most 65,535, all of one family, and one of them with a weight.
    pub backends: Vec<Backend>,
    /// Where others are asked for them; `backends` are what is known of them then.
    pub discover: Option<Discover>,
    /// A prime not smaller than the number of backends; chosen from that number where absent.
    pub table_size: Option<u32>,
    pub health: Health,
    pub passive: Passive,
    pub rebalance: Rebalance,
    pub lists: Lists,
    pub rate_limit: Option<RateLimit>,
    /// Of a service over TCP.
    pub connection_limit: Option<ConnectionLimit>,
    /// For how long a client's datagrams stay with their backend after the last one: of a service over UDP,
    /// at most 65,535 s.
    pub affinity: Option<Duration>,
    /// Of a service over UDP, whose backends all have a `server_id`.
    pub quic: Option<Quic>,
}

/// A server behind a service.
#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    pub address: SocketAddr,
    /// Its share relative to the service's other backends; 0 takes no clients.
    pub weight: u16,
    pub delivery: DeliverySetting,
    /// With `quic`; unique within the service, and as long as that says.
    pub server_id: Option<ServerId>,
    /// Takes clients while no other can: of a service with at most eight backends, not all of which are.
    pub backup: bool,
}

/// A service's transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    Tcp,
    Udp,
}

/// What of a client selects its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hash {
    /// Its address: all its connections reach the same backend.
    Source,
    /// Its address and port: each connection on its own.
    SourcePort,
}

/// How packets are to reach a backend, as the file says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeliverySetting {
    /// Direct where the address is a node's, NAT elsewhere.
    Auto,
    /// Its address belongs to a node.
    Direct,
    Nat,
}

/// How a backend is checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    pub enabled: bool,
    pub check: Arc<Check>,
    pub interval: Duration,
    /// At most `interval`.
    pub timeout: Duration,
    /// Successes in a row that make it healthy, at least 1.
    pub rise: u32,
    /// Failures in a row that take it out, at least 1.
    pub fall: u32,
    /// With fewer healthy backends than these all are used, healthy or not: at most as many as there are. 0 is
    /// never.
    pub minimum_healthy: u32,
    /// So long it takes until a backend that begins to get new clients gets all that are meant for it; zero is at
    /// once.
    pub slow_start: Duration,
    /// When the clients of a backend that is down are told.
    pub reset_clients: ResetClients,
    /// Whether backends on other nodes are also probed on the way that clients' frames take to them.
    pub probe_path: bool,
}

/// How little a backend that is down has said for so long as `fall` says, for its clients to be told. Each
/// includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetClients {
    Never,
    /// Not even its machine.
    Unreachable,
    /// Connections open at most.
    Silent,
    /// Whatever it said.
    Down,
}

/// How a backend is judged by its clients' own connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passive {
    /// Failed connections within `fail_timeout` that take it out; 0 is never, as for a service over UDP.
    pub max_fails: u32,
    pub fail_timeout: Duration,
}

/// How connections are moved to where new ones would go: those of a service over TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rebalance {
    /// Without being asked to.
    pub automatic: bool,
    /// Of one node, 1 to [`PER_MINUTE_MAX`](Self::PER_MINUTE_MAX).
    pub per_minute: u32,
    /// Only what has been silent for so long, both ways.
    pub idle: Duration,
    /// Only what is at least so old.
    pub minimum_age: Duration,
    /// Automatically once more than so many hundredths of a node's connections belong elsewhere, 0 to 99.
    pub threshold_percent: u32,
    /// And nothing has changed who gets new ones for so long.
    pub stable: Duration,
}

impl Rebalance {
    /// One in a hundredth of a second.
    pub const PER_MINUTE_MAX: u32 = 6000;
}

/// The lease under which the VIP is held.
#[derive(Clone, Debug, PartialEq)]
pub struct Lease {
    /// From the last refresh to the moment when the node no longer answers for the VIP.
    pub duration: Duration,
}

/// Translation towards backends that run nothing of ours.
#[derive(Clone, Debug, PartialEq)]
pub struct Nat {
    /// Source ports towards backends; no service has one of them.
    pub ports: RangeInclusive<u16>,
    /// Flows at one time.
    pub flows: u32,
    /// Secret from which the port first tried follows, the same on every node.
    pub key: Option<String>,
    pub tcp_opening_timeout: Duration,
    pub tcp_established_timeout: Duration,
    pub tcp_closing_timeout: Duration,
    pub udp_timeout: Duration,
}

/// The node's own processes as clients.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    pub enabled: bool,
    /// The node's own backend first, where it accepts.
    pub prefer_local: bool,
    /// Where the hooks are attached; the root of cgroup2 where absent.
    pub cgroup: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct DataPath {
    /// In the order in which they are tried; at least one, each once. Without them the interface decides.
    pub modes: Option<Vec<Mode>>,
    pub unknown_ports: UnknownPorts,
    pub on_stop: OnStop,
}

/// A way to attach the program to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// XDP in the driver.
    Native,
    /// XDP in the stack.
    Generic,
    /// tc ingress.
    Tc,
}

/// What becomes of a packet to a VIP on a port that no service has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownPorts {
    /// The node's stack answers.
    Pass,
    Drop,
}

/// What becomes of programs, maps and routes when the agent ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnStop {
    /// They go on with what they know, and the next agent takes them over.
    Keep,
    Remove,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Metrics {
    /// None: switched off.
    pub listen: Option<SocketAddr>,
    /// Each backend has its series while all of them, once for each service and address, are at most
    /// so many.
    pub backend_series: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Control {
    pub socket: PathBuf,
    /// The group that may use the socket; the agent's own where absent.
    pub group: Option<String>,
    /// How another version follows this agent.
    pub upgrade: UpgradeMode,
}

/// What becomes of the VIPs while one agent follows another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpgradeMode {
    /// They stay.
    InPlace,
    /// Another node has them before.
    HandOver,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Paths {
    /// In a BPF file system; the layout's version is added to it.
    pub bpf: PathBuf,
    pub state: PathBuf,
}

/// Sizes of the maps.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Services, counted once for each of their addresses.
    pub services: u32,
    /// Backends of all services, counted once for each address of their service.
    pub backends: u32,
    /// Slots of all different tables together.
    pub table_slots: u64,
    /// Sources of new connections that are remembered, where a service limits their rate.
    pub sources: u32,
    /// Connections that are counted, where a service limits how many a source has.
    pub connections: u32,
    /// Clients' tuples that are remembered, where a service's datagrams stay with their backend.
    pub datagram_flows: u32,
    /// Connections that are noted, so that their clients can be told of a backend's end.
    pub flows: u32,
}

impl Node {
    /// RFC 9568, 6.1: of a router that is not the owner of the addresses.
    pub const DEFAULT_PRIORITY: u8 = 100;
}

impl Config {
    /// Reads the text of `lb.toml`. All problems are reported together, but for those of TOML
    /// itself: where the text cannot be parsed, its meaning is not judged.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let mut faults = Faults::new(text);
        let (document, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            syntax(&errors, &mut faults);
            return Err(faults.into_error());
        }
        let draft = Draft::read(document.get_ref(), &mut faults);
        let config = validate::config(draft, &mut faults);
        if faults.count() == 0 { Ok(config) } else { Err(faults.into_error()) }
    }
}

/// The first error of each line: what follows on the same line is most often its echo.
fn syntax(errors: &[toml::de::Error], faults: &mut Faults<'_>) {
    let mut last_line = 0;
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        let line = faults.line_of(&span);
        if line != last_line {
            faults.add(&span, Problem::Syntax(error.message().to_owned()));
            last_line = line;
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::SourcePort => "source-port",
        })
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Tc => "tc",
        })
    }
}
