//! What `POST /v1/explain` and `GET /v1/flows` say.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::{Delivery, Mode, Protocol};

/// `POST /v1/explain`: what becomes of a client's packet to a VIP?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    pub client: IpAddr,
    /// One that no flow has, where absent.
    #[serde(default)]
    pub client_port: Option<u16>,
    pub address: SocketAddr,
    #[serde(default = "tcp")]
    pub protocol: Protocol,
    #[serde(default)]
    pub segment: Segment,
    /// As carried here by the node of this name.
    #[serde(default)]
    pub from_peer: Option<String>,
    /// Comes in here; on the VIP's interface where absent.
    #[serde(default)]
    pub interface: Option<String>,
}

const fn tcp() -> Protocol {
    Protocol::Tcp
}

/// Of a connection over TCP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Segment {
    /// The first one.
    #[default]
    Syn,
    /// A later one, which acknowledges.
    Established,
}

/// What the agent expects of such a packet, and what the loaded program did with one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    pub client: SocketAddr,
    pub address: SocketAddr,
    pub protocol: Protocol,
    pub segment: Segment,
    pub from_peer: Option<String>,
    /// Where it came in.
    pub interface: String,
    pub mode: Mode,
    /// None where no service has that address and port.
    pub service: Option<String>,
    pub table: Option<ExplainedTable>,
    /// The backends of its bucket, in the order in which they are asked.
    pub ranks: Vec<ExplainedRank>,
    /// Who should get it.
    pub expected: Option<SocketAddr>,
    pub expectation: String,
    /// What the program answered: `pass`, `forward` or `drop`.
    pub outcome: String,
    /// As it is counted; none where others' packets of the same moment may explain it, too.
    pub verdict: Option<String>,
    /// The verdict in a sentence.
    pub meaning: Option<String>,
    /// Whom the program sent it to.
    pub backend: Option<SocketAddr>,
    pub delivery: Option<Delivery>,
    /// Where it was to be sent, as is the interface.
    pub next_hop_mac: Option<String>,
    pub next_hop_interface: Option<String>,
    /// Its source then: a port of the VIP through NAT.
    pub source: Option<SocketAddr>,
    /// Whether the program did what was expected.
    pub agrees: bool,
    pub disagreement: Option<String>,
    /// What the packet has left behind in counters and maps.
    pub left: Vec<String>,
}

/// Where the client is in the service's table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedTable {
    pub bucket: u32,
    pub slots: u32,
    /// The client's port counts, too.
    pub by_port: bool,
    /// Of 65,536: backends that start slowly take clients with a large one first.
    pub chance: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedRank {
    /// From 1.
    pub rank: u32,
    pub backend: SocketAddr,
    pub node: Option<String>,
    pub delivery: Delivery,
    pub accepting: bool,
    pub alive: bool,
    /// Why it does not get the packet; none of whom may.
    pub passed_over: Option<String>,
}

/// The query of `GET /v1/flows`. Without anything in it, all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowsRequest {
    /// Of the service of this name.
    #[serde(default)]
    pub service: Option<String>,
    #[serde(default)]
    pub client: Option<IpAddr>,
    #[serde(default)]
    pub client_port: Option<u16>,
    /// Those that lead to it, with its port.
    #[serde(default)]
    pub backend: Option<SocketAddr>,
    /// So many at most.
    #[serde(default)]
    pub limit: Option<u64>,
}

/// A line of the answer to `GET /v1/flows`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowLine {
    Flow(Box<Flow>),
    /// The last one.
    End(FlowsEnd),
    /// The last one: the kernel does not tell them. Says why.
    Failed(String),
}

/// A connection, or a client's datagrams, as this node knows them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flow {
    pub client: SocketAddr,
    /// The service's.
    pub address: SocketAddr,
    pub protocol: Protocol,
    pub service: String,
    /// None where the configuration has it no more.
    pub backend: Option<SocketAddr>,
    pub node: Option<String>,
    /// `local` is by a socket of this node; `direct`, by what it noted of what it carried, most probably.
    pub delivery: Delivery,
    /// Through NAT: the port of the VIP that the backend sees.
    pub source: Option<SocketAddr>,
    /// Through NAT: `opening`, `established`, `closing`, or `told` where another node told of it.
    pub state: Option<String>,
    /// Since its first packet, where that is known.
    pub age_seconds: Option<f64>,
    /// Since its last packet; of a connection that is carried since its client last pushed something.
    pub idle_seconds: f64,
    /// Both ways, of sockets of this node. The programs count for each backend, not for each flow.
    pub packets: Option<u64>,
    pub bytes: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowsEnd {
    pub flows: u64,
    /// The limit was reached, and there may be more.
    pub more: bool,
}
