//! What a virtual router is configured to be.

use std::net::IpAddr;
use std::time::Duration;

use crate::vrrp::identity::{Priority, RouterId, Version};
use crate::vrrp::packet::Authentication;

/// One virtual router as this node takes part in it. Checked by the configuration: the machine
/// relies on an interval above zero and a priority above zero.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parameters {
    pub version: Version,
    pub router_id: RouterId,
    /// 1 to 254, or [`Priority::OWNER`].
    pub priority: Priority,
    /// Between advertisements.
    pub interval: Duration,
    /// Whether a Backup takes over from an Active router of lower priority.
    pub preempt: bool,
    /// For how long it lets that router be first.
    pub preempt_delay: Duration,
    /// This node's own address on the link, the source of its advertisements. The greater one wins
    /// where two Active routers have the same priority.
    pub address: IpAddr,
    /// The virtual addresses.
    pub addresses: Vec<IpAddr>,
    pub authentication: Authentication,
    pub rivals: Rivals,
    /// Whether an advertisement that lists other virtual addresses is refused (RFC 3768, 7.1; not
    /// in RFC 9568).
    pub same_addresses: bool,
}

/// What an Active router does about another one that it outranks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rivals {
    /// Advertises at once, so that the rival yields and the link learns who is Active (RFC 9568,
    /// 6.4.3). keepalived does so in both versions.
    Answer,
    /// Says nothing until its timer fires (RFC 3768, 6.4.3).
    Ignore,
}

impl Rivals {
    /// What the RFC of a version wants.
    pub const fn of(version: Version) -> Self {
        match version {
            Version::V2 => Self::Ignore,
            Version::V3 => Self::Answer,
        }
    }
}

/// Advertisements that may be missed before the Active router counts as down.
pub(super) const MISSED: u32 = 3;

impl Parameters {
    /// `Skew_Time`: what tells Backups' timers apart, the shorter the higher the priority.
    ///
    /// RFC 9568, 6.1: `((256 - priority) * Active_Adver_Interval) / 256`. RFC 3768, 6.1:
    /// `(256 - priority) / 256` seconds, whatever the interval.
    pub(super) fn skew(&self, priority: Priority, interval: Duration) -> Duration {
        let base = match self.version {
            Version::V2 => Duration::from_secs(1),
            Version::V3 => interval,
        };
        base * (256 - u32::from(priority.0)) / 256
    }

    /// `Active_Down_Interval` (RFC 9568, 6.1; `Master_Down_Interval` in RFC 3768).
    pub(super) fn down_interval(&self, priority: Priority, interval: Duration) -> Duration {
        interval * MISSED + self.skew(priority, interval)
    }
}
