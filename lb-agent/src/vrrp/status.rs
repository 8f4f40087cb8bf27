//! What a virtual router tells of itself.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use super::identity::{Priority, RouterId, Version};
use super::machine::State;
use super::moment::Moment;
use super::trouble::Trouble;

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
    /// What is wrong with what others send, the latest first.
    pub troubles: Vec<Trouble>,
    /// What keeps it from sending, listening or answering.
    pub obstacle: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Heard {
    pub from: IpAddr,
    pub priority: Priority,
    pub at: SystemTime,
    /// The same by the clock that no setting moves.
    pub moment: Moment,
}

impl Heard {
    /// How long ago that was.
    pub fn age(&self) -> Duration {
        super::driver::now().since(self.moment)
    }
}

/// Every reason for which an advertisement is refused, so that each series exists from the start.
const REFUSALS: [&str; 18] = [
    "addresses",
    "authentication",
    "checksum_wrong",
    "duplicate_router_id",
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

/// Everything that is noticed about advertisements that are taken.
pub(super) mod notice {
    /// Its sender is Active, as this node is, with a lower priority or address.
    pub(crate) const SPLIT_BRAIN: &str = "split_brain";
    /// Its sender is no node of the file.
    pub(crate) const STRANGER: &str = "stranger";
    /// It lists other virtual addresses, too many or too few.
    pub(crate) const ADDRESSES_DIFFER: &str = "addresses_differ";
    /// Version 3: it has another interval, which a Backup adopts.
    pub(crate) const INTERVAL_DIFFERS: &str = "interval_differs";

    pub(super) const ALL: [&str; 4] = [SPLIT_BRAIN, STRANGER, ADDRESSES_DIFFER, INTERVAL_DIFFERS];
}

impl Figures {
    pub(super) fn new() -> Self {
        Self {
            refused: REFUSALS.into_iter().map(|name| (name, 0)).collect(),
            noticed: notice::ALL.into_iter().map(|name| (name, 0)).collect(),
            ..Self::default()
        }
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
    /// Advertisements that were taken, and about which a person should know something, by what.
    pub noticed: BTreeMap<&'static str, u64>,
    pub transitions: u64,
    /// The longest time between a timer's due moment and its being served.
    pub lateness_max: Duration,
    /// Events that nobody was told of, for want of room.
    pub events_lost: u64,
}
