//! What a virtual router tells of itself.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use super::identity::{Priority, RouterId, Version};
use super::machine::State;

/// One virtual router, now.
#[derive(Clone, Debug, PartialEq)]
pub struct RouterStatus {
    pub router_id: RouterId,
    pub version: Version,
    pub interface: String,
    /// The source of its advertisements.
    pub address: IpAddr,
    pub priority: Priority,
    pub interval: Duration,
    pub state: State,
    /// Whether it answers for the addresses: also while it waits for its successor.
    pub holds: bool,
    /// Why it stays Backup, if it is kept from being Active.
    pub held_back: Option<String>,
    /// Why it is in this state.
    pub reason: String,
    pub since: SystemTime,
    /// The last advertisement that was taken.
    pub heard: Option<Heard>,
    pub figures: Figures,
    /// What keeps it from sending or listening.
    pub trouble: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Heard {
    pub from: IpAddr,
    pub priority: Priority,
    pub at: SystemTime,
}

/// Every reason for which an advertisement is refused, so that each series exists from the start.
const REFUSALS: [&str; 17] = [
    "addresses",
    "authentication",
    "checksum_wrong",
    "family_mismatch",
    "interval",
    "interval_zero",
    "length_mismatch",
    "no_addresses",
    "not_advertisement",
    "other_version",
    "own_address",
    "router_id_zero",
    "truncated",
    "ttl",
    "unknown_authentication",
    "unknown_source",
    "unknown_version",
];

impl Figures {
    pub(super) fn new() -> Self {
        Self { refused: REFUSALS.into_iter().map(|name| (name, 0)).collect(), ..Self::default() }
    }
}

/// Counts since the start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    pub sent: u64,
    pub send_failures: u64,
    pub received: u64,
    /// By reason.
    pub refused: BTreeMap<&'static str, u64>,
    pub transitions: u64,
    /// The longest time between a timer's due moment and its being served.
    pub lateness_max: Duration,
}
