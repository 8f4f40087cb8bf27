//! What the control API says: the JSON of `/v1`, written by the agent and read by `lbctl`.
//!
//! A promise to scripts: fields are added, never renamed or removed within `/v1`. Points in time
//! are seconds since the Unix epoch, MACs are `aa:bb:cc:dd:ee:ff`.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/status` | [`Status`] |
//! | `GET /v1/services` | list of [`Service`] |
//! | `GET /v1/services/NAME/rebalance` | what is known of connections here that belong elsewhere: a [`Rebalance`] |
//! | `POST /v1/services/NAME/rebalance` with a [`RebalanceRequest`] | some are looked for, and moved from now on: a [`Rebalance`] |
//! | `DELETE /v1/services/NAME/rebalance` | no more are moved: a [`Rebalance`] |
//! | `GET /v1/backends`, all or with a [`WhichService`] | list of [`Backend`] |
//! | `PUT /v1/backends/admin` with an [`AdminChange`] | drained, disabled or enabled: list of [`Backend`] |
//! | `GET /v1/nodes` | list of [`Node`] |
//! | `GET /v1/interfaces` | list of [`Interface`] |
//! | `POST /v1/interfaces/NAME` | attached, also where it was before: its [`Interface`] |
//! | `DELETE /v1/interfaces/NAME` | detached: nothing (204) |
//! | `POST /v1/reload` with a [`ReloadRequest`] | the configuration is read anew: a [`Reload`] |
//! | `POST /v1/upgrade` with an [`UpgradeRequest`] | lines, each an [`UpgradeLine`], the last of which says how it ended |
//! | `PUT /v1/role` with a [`RoleChange`] | in that role now: nothing (204) |
//! | `GET /v1/notify` | list of [`NotifyHook`] |
//! | `GET /v1/vrrp` | list of [`VirtualRouter`]; empty without VRRP |
//! | `GET /v1/events` with an [`EventsRequest`] | what happened: lines, each an [`EventLine`] |
//! | `GET /v1/flows` with a [`FlowsRequest`] | connections that this node knows: lines, each a [`FlowLine`] |
//! | `POST /v1/explain` with an [`ExplainRequest`] | what becomes of a packet: an [`Explanation`] |
//! | `GET /v1/tracks` | list of [`Track`], those of the data path first; empty without VRRP |
//! | `POST /v1/vrrp/resign`, with a [`WhichRouter`] | the role is given away: nothing (204) |
//! | `PUT /v1/vrrp/hold` with a [`Hold`], with a [`WhichRouter`] | kept from being Active, or no longer: nothing (204) |
//! | any that fails | its status, and an [`ApiError`] |

mod discovery;
mod events;
mod rebalance;
mod traffic;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use crate::config::{Hash, Mode, Protocol, UpgradeMode};
pub use crate::standing::{Admin, Uses};
pub use discovery::{BackendSource, Discovery};
pub use events::{Event, EventGap, EventLine, EventsBegin, EventsRequest, Severity};
pub use rebalance::{Rebalance, RebalanceJob, RebalanceLook, RebalanceRequest, RebalanceTarget};
pub use traffic::{
    ExplainRequest, ExplainedRank, ExplainedTable, Explanation, Flow, FlowLine, FlowsEnd,
    FlowsRequest, Segment,
};

/// `POST /v1/upgrade`: another agent is to follow this one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpgradeRequest {
    /// Its file; that which this one was started from where absent. To name one takes root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// As the configuration says where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<UpgradeMode>,
    /// Only ask whether it would go.
    #[serde(default)]
    pub check: bool,
}

/// A line of the answer to an [`UpgradeRequest`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpgradeLine {
    Step(UpgradeStep),
    /// The last one.
    Done(Upgrade),
    /// The last one: the agent that ran goes on. Says why.
    Failed(String),
}

/// Something on the way that is done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UpgradeStep {
    pub what: String,
    /// Since the upgrade was asked for.
    pub after_ms: u64,
}

/// An agent that another one followed, or would.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Upgrade {
    /// Whether it does; otherwise it was only asked for.
    pub done: bool,
    pub mode: UpgradeMode,
    pub path: PathBuf,
    pub from: AgentVersion,
    pub to: AgentVersion,
    /// The process of the one that follows, where it does.
    pub pid: Option<u32>,
    pub took_ms: u64,
    /// For how long nobody spoke VRRP here, nor answered at the control socket.
    pub pause_ms: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentVersion {
    pub version: String,
    /// Of the pinned maps' layout.
    pub layout_version: u32,
    /// Of the table contract.
    pub table_version: u32,
}

/// `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The agent's.
    pub version: String,
    /// Of the pinned maps' layout.
    pub layout_version: u32,
    /// Of the table contract; nodes with different ones steer clients differently.
    pub table_version: u32,
    /// This node's name.
    pub node: String,
    pub role: Role,
    /// Why it has that role.
    pub role_reason: String,
    pub role_since: f64,
    /// The file that it runs from.
    pub config: PathBuf,
    /// When that was last taken over.
    #[serde(default)]
    pub config_since: f64,
    pub interfaces: Vec<Interface>,
    pub virtual_addresses: Vec<VirtualAddress>,
    pub host_hooks: HostHooks,
    /// Packets by verdict, of this node's data path.
    pub counters: BTreeMap<String, u64>,
    /// What a person should look at: what is wrong, where, what to do.
    pub warnings: Vec<String>,
    pub uptime_seconds: f64,
    /// None where the kernel does not tell, or an older agent does not.
    #[serde(default)]
    pub memory: Option<Memory>,
}

/// What the agent and the kernel's maps take of the machine's memory, in bytes. docs/operations.md says
/// how each is reckoned.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// Of the agent's process: its resident set.
    pub agent_bytes: u64,
    /// Of all maps, the tables included.
    pub maps_bytes: u64,
    /// Of one translated flow. One that is carried to a node unchanged takes none.
    pub flow_bytes: u64,
    /// Of one service at one address, with its backends and its part of the tables, on average over
    /// those that there are; 0 where there are none.
    pub service_bytes: u64,
    /// Translated flows. All that there is room for are paid for from the start.
    pub nat_flows: Occupancy,
    /// Services, once for each of their addresses.
    pub services: Occupancy,
    /// Backends, once for each service and address, with their counters. All that there is room for
    /// are paid for from the start.
    pub backends: Occupancy,
    /// Slots of all tables. Services with the same backends share one.
    pub table_slots: Occupancy,
    /// Different tables.
    pub tables: u64,
    /// Of the maps that are none of those above; their sizes are fixed.
    pub other_bytes: u64,
    /// Every map by itself, but for the tables.
    pub maps: Vec<MapMemory>,
}

/// How much of something there is, and what it takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Occupancy {
    pub used: u64,
    pub limit: u64,
    pub bytes: u64,
}

/// A map of the kernel's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapMemory {
    pub name: String,
    /// Elements that it has room for.
    pub max_entries: u32,
    pub bytes: u64,
}

/// Whether a node attracts the traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    Active,
    Backup,
}

/// `PUT /v1/role`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleChange {
    pub role: Role,
}

/// The query of `POST /v1/reload`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReloadRequest {
    /// Only say what would be changed.
    #[serde(default)]
    pub dry_run: bool,
}

/// What is different in the file from what the agent ran with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reload {
    /// All of it is done; else it was only asked for.
    pub applied: bool,
    /// Sentences; none where the file means what it meant.
    pub changes: Vec<String>,
}

/// `GET /v1/vrrp`: one virtual router as this node takes part in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VirtualRouter {
    /// VRID.
    pub router_id: u8,
    pub version: u8,
    pub interface: String,
    /// The MAC that its virtual addresses are at, on whichever node; none with `virtual_mac = false`.
    #[serde(default)]
    pub virtual_mac: Option<String>,
    /// The source of this node's advertisements.
    pub address: IpAddr,
    pub priority: u8,
    pub interval_seconds: f64,
    pub state: VrrpState,
    /// Whether this node answers for the virtual addresses. Also for a moment as Backup, until the
    /// successor of a planned move is heard.
    pub holds: bool,
    /// Why it is kept from being Active.
    pub held_back: Option<String>,
    /// Why it is in this state.
    pub reason: String,
    pub since: f64,
    /// The last advertisement of another router that was taken.
    pub heard: Option<HeardRouter>,
    pub sent: u64,
    pub send_failures: u64,
    pub received: u64,
    /// Advertisements that were not taken, by reason.
    pub refused: BTreeMap<String, u64>,
    pub transitions: u64,
    /// The longest delay of a timer.
    pub lateness_max_seconds: f64,
    /// Events that were not told for want of room. 0 unless the agent hung for minutes.
    #[serde(default)]
    pub events_lost: u64,
    /// Advertisements that were taken and that a person should know of, by kind.
    #[serde(default)]
    pub noticed: BTreeMap<String, u64>,
    /// What is wrong with what others send, the latest first, by kind and sender.
    #[serde(default)]
    pub troubles: Vec<Trouble>,
    /// What keeps it from sending, listening or answering.
    pub trouble: Option<String>,
}

/// Something that another router sends and that a person should know of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trouble {
    /// A name in `refused` or in `noticed`.
    pub kind: String,
    /// Who sends it, by the packet.
    pub address: IpAddr,
    /// Who sends it, by the frame; none where that was not seen.
    pub mac: Option<String>,
    pub sentence: String,
    /// Times since `first`.
    pub count: u64,
    pub first: f64,
    pub last: f64,
}

/// RFC 9568, 6.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VrrpState {
    Initialize,
    Backup,
    Active,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeardRouter {
    pub address: IpAddr,
    pub priority: u8,
    pub at: f64,
    /// How long ago that was, whatever became of the wall clock.
    #[serde(default)]
    pub age_seconds: f64,
}

/// The query of `POST /v1/vrrp/resign` and `PUT /v1/vrrp/hold`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WhichRouter {
    /// The virtual router of this number alone, in each of its families. None: all of them.
    pub router_id: Option<u8>,
}

/// The query of `GET /v1/backends`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WhichService {
    /// The backends of the service of this name alone. None: of all, where they are at most 65,536.
    pub service: Option<String>,
}

/// `PUT /v1/vrrp/hold`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    /// Whether this node is to stay Backup.
    pub hold: bool,
}

/// `GET /v1/tracks`: one thing that this node's being Active depends on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Track {
    pub name: String,
    pub kind: TrackKind,
    /// What is watched, in words.
    pub about: String,
    pub state: TrackState,
    pub since: f64,
    /// What the last look found.
    pub reason: String,
    /// What it adds to the priority while it fails. None: the node resigns then.
    pub weight: Option<i16>,
    /// Looks, or runs of a script, whatever they found.
    pub looks: u64,
    /// Looks that found it failing, by kind: `failed`, `timed_out`, `refused`.
    pub failures: BTreeMap<String, u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrackKind {
    /// Interfaces attached, links up, maps written. Always there.
    DataPath,
    /// A packet that passes through the program. Always there.
    SyntheticPacket,
    Interface,
    Script,
    HealthyBackends,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrackState {
    Good,
    Failing,
    /// Not looked at yet.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VirtualAddress {
    pub address: IpAddr,
    /// This node has the address and answers for it.
    pub held: bool,
    /// Until the lease runs out unless it is refreshed; none where it is not held.
    pub lease_remaining_ms: Option<u64>,
}

/// The hooks for the node's own processes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostHooks {
    pub enabled: bool,
    /// Where they are attached, or why they are not.
    pub reason: String,
}

/// `GET /v1/interfaces`: one that the program is attached to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interface {
    pub name: String,
    pub index: u32,
    pub mode: Mode,
    /// Why this mode.
    pub reason: String,
    pub mac: String,
    pub attached_since: f64,
}

/// `GET /v1/services`: a service at one of its addresses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Service {
    pub name: String,
    pub address: IpAddr,
    pub port: u16,
    pub protocol: Protocol,
    pub hash: Hash,
    /// Size of its table.
    pub slots: u32,
    pub backends: u32,
    /// Backends that take new connections.
    pub accepting: u32,
    /// Backends that could: enabled, with a weight, and not down.
    #[serde(default)]
    pub healthy: u32,
    /// Which of them do.
    #[serde(default)]
    pub uses: Uses,
    pub connections: u64,
    pub packets: u64,
    pub bytes: u64,
    /// Services, once for each of their addresses, that have its table; this one is among them.
    #[serde(default)]
    pub table_services: u32,
    /// Kernel memory of that table.
    #[serde(default)]
    pub table_bytes: u64,
    /// Kernel memory of its entry and its backends.
    #[serde(default)]
    pub own_bytes: u64,
    /// Who tells of its backends while the agent runs; none where the file alone does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discovery: Option<Discovery>,
}

/// `GET /v1/backends`: a backend of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Backend {
    pub service: String,
    pub address: SocketAddr,
    /// The node that it is on, if any.
    pub node: Option<String>,
    pub delivery: Delivery,
    pub weight: u16,
    pub state: BackendState,
    /// What a person wants it to be used for, whatever its state is.
    #[serde(default)]
    pub admin: Admin,
    #[serde(default)]
    pub source: BackendSource,
    /// Since when its source no longer tells of it: it keeps its connections for a while, and is draining.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaving_since: Option<f64>,
    /// Takes new connections only while no other can.
    #[serde(default)]
    pub backup: bool,
    /// Takes new connections.
    pub accepting: bool,
    /// The part of its clients that it takes: less than 1 while it starts slowly.
    #[serde(default = "all_of_them")]
    pub takes: f64,
    /// Why it is in that state.
    pub reason: String,
    /// In that state since.
    pub since: f64,
    /// Times that its state changed since the agent's start.
    #[serde(default)]
    pub transitions: u64,
    /// While it is drained or disabled: connections to it that are open, as far as this node can count them.
    /// Those to a backend on another node are counted there.
    #[serde(default)]
    pub connections_left: Option<u64>,
    /// It is down, and nothing of it is left: its connections end in resets.
    #[serde(default)]
    pub gone: bool,
    /// Whether what is carried to its node is served there; nothing where that is not probed.
    #[serde(default)]
    pub path: Option<PathState>,
    /// Connections that ended when their clients were told so by this node, since the agent's start.
    #[serde(default)]
    pub clients_told: u64,
    pub next_hop_mac: Option<String>,
    /// Fraction of the service's buckets in which it comes first, 0 to 1.
    pub share: f64,
    /// Steered to it by this node, as are `packets` and `bytes`.
    pub connections: u64,
    pub packets: u64,
    pub bytes: u64,
    /// New connections that it refused, as far as this node saw.
    #[serde(default)]
    pub refused: u64,
    /// SYNs to it that clients sent again since nobody had answered.
    #[serde(default)]
    pub unanswered: u64,
    /// Of both, those that the agent was not woken for at once: the programs had no room to tell.
    #[serde(default)]
    pub untold: u64,
}

/// Whether another node serves what is carried to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PathState {
    /// No probe has come back yet, and too few failed.
    Unknown,
    Answers,
    Fails,
}

/// How packets reach a backend from this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    Local,
    Direct,
    Nat,
    /// Its neighbour or route is not known, so it gets nothing.
    Unresolved,
}

const fn all_of_them() -> f64 {
    1.0
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackendState {
    Healthy,
    Down,
    /// Not checked, or not yet.
    Unknown,
    /// Keeps the connections that it has.
    Draining,
    /// Healthy, and waits for the others to fail.
    Backup,
    /// Healthy, and takes more and more of its clients.
    SlowStarting,
    /// By a person, as if it were down.
    Disabled,
}

/// `PUT /v1/backends/admin`. It holds on the node that answers, also after a restart of its agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminChange {
    /// An address with its port, an address for all ports, or a node's name for all its backends.
    pub backend: String,
    /// Those of the service of this name alone. None: of all.
    #[serde(default)]
    pub service: Option<String>,
    pub admin: Admin,
    /// Also where a service has no healthy backend left then.
    #[serde(default)]
    pub force: bool,
}

/// `GET /v1/nodes`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    pub name: String,
    pub addresses: Vec<IpAddr>,
    /// It is the node that answers.
    pub this: bool,
    /// None where this node cannot know it.
    pub role: Option<Role>,
    pub mac: Option<String>,
    /// None where it has not been tried.
    pub reachable: Option<bool>,
    /// None of the node that answers, and without `[peers]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nat_sync: Option<NatSync>,
}

/// How NAT flows are synchronised with another node. Counts are since the agent's start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NatSync {
    /// It is told of this node's flows.
    pub connected: bool,
    /// Why not, if it is not.
    pub reason: String,
    /// It tells this node of its own.
    pub heard: bool,
    /// Flows that it was told of, each as often as it was.
    pub sent: u64,
    /// Flows that it told of, each as often as it did.
    pub received: u64,
    /// Those of them that were new here.
    pub adopted: u64,
    /// What it told of that was not taken, by reason.
    pub refused: BTreeMap<String, u64>,
    /// How old what it knows of this node's flows is; absent before it was told of any.
    pub lag_seconds: Option<f64>,
}

/// `GET /v1/notify`: somebody who is told of changes. Counts are since the agent's start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NotifyHook {
    pub name: String,
    /// `script` or `webhook`.
    pub way: String,
    /// Notices that it took.
    pub delivered: u64,
    pub failed_attempts: u64,
    /// Notices that wait for it, the one that it does not take included.
    pub waiting: u64,
    /// Notices that are told as a part of a later one, since too many waited.
    pub folded: u64,
    /// Since when it has not taken the first of them; none where it does.
    pub failing_since: Option<f64>,
    /// What went wrong last.
    pub failure: Option<String>,
    /// Why notices that wait would not outlive the agent.
    pub spool_trouble: Option<String>,
}

/// The body of every answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// One sentence: what, where, what to do.
    pub error: String,
}
