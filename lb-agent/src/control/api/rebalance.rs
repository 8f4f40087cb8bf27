//! What is said of rebalancing.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// The query of `POST /v1/services/NAME/rebalance`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RebalanceRequest {
    /// Only look.
    #[serde(default)]
    pub dry_run: bool,
    /// 1 to 6000; as configured where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_minute: Option<u32>,
}

/// `/v1/services/NAME/rebalance`: the connections of a service whose sockets the node has that answers, and those
/// of them that belong elsewhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rebalance {
    pub service: String,
    /// Why none is moved here now, whoever asks.
    pub obstacle: Option<String>,
    /// As configured, as is `per_minute`.
    pub automatic: bool,
    pub per_minute: u32,
    /// The last look; none where there was none yet.
    pub look: Option<RebalanceLook>,
    /// That which runs, or the last one.
    pub job: Option<RebalanceJob>,
    /// Connections that were moved since the agent's start.
    pub moved: u64,
    /// Through NAT by this node: they are not moved. Counted with a POST only.
    pub translated: Option<u64>,
    /// Of this node's own processes: they are not moved. Counted with a POST only.
    pub own: Option<u64>,
}

/// What a look at the sockets found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RebalanceLook {
    pub at: f64,
    pub connections: u64,
    /// Those that belong elsewhere. Of them, `movable` can be moved now; each of the others is counted once by what
    /// hinders it.
    pub misplaced: u64,
    pub movable: u64,
    /// They talk, or did a moment ago, or wait for an answer.
    pub busy: u64,
    pub young: u64,
    /// Whose backend is not known to be healthy.
    pub unsure: u64,
    /// They came here though they belong elsewhere already then: they would come back.
    pub returns: u64,
    /// Where the misplaced ones belong.
    pub targets: Vec<RebalanceTarget>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RebalanceTarget {
    pub address: SocketAddr,
    pub node: Option<String>,
    pub misplaced: u64,
    pub movable: u64,
}

/// Connections are moved, or were.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RebalanceJob {
    /// Counted over all services since the agent's start.
    pub number: u64,
    /// Nobody asked for it.
    pub automatic: bool,
    pub per_minute: u32,
    pub begun: f64,
    pub moved: u64,
    /// That could still be moved when it last looked.
    pub left: u64,
    /// None while it runs, as is `reason`.
    pub ended: Option<f64>,
    /// It ended since none was left that could be moved.
    pub complete: bool,
    /// Why it ended.
    pub reason: Option<String>,
}
