//! Tells the link who has the VIP: gratuitous ARP and unsolicited neighbour advertisements, and
//! asks it beforehand whether somebody else has it. Decides nothing; `role` says when.

mod burst;
mod conflict;
mod filter;
mod frame;
mod link;
#[cfg(test)]
mod tests;

pub use burst::{Announcement, Schedule};
pub use conflict::{CLAIMANTS_MAX, CONFLICT_WAIT, claimants, vip_conflict};
pub use frame::{announcements, probe};
pub use link::LinkSocket;

use std::io;

use crate::netlink::Mac;

/// An Ethernet interface as far as frames need to know it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface {
    pub index: u32,
    pub name: String,
    pub mac: Mac,
}

/// Why a frame could not be sent or waited for.
#[derive(Debug, thiserror::Error)]
pub enum AnnounceError {
    #[error(
        "cannot open a packet socket on {interface}: {source} (it takes root or CAP_NET_RAW, and \
         an interface that exists)"
    )]
    Open { interface: String, source: io::Error },
    #[error("cannot send on {interface}: {source}")]
    Send { interface: String, source: io::Error },
    #[error("cannot receive on {interface}: {source}")]
    Receive { interface: String, source: io::Error },
    /// IPv6 is off; the sentence says where and what to do.
    #[error("{0}")]
    NoIpv6(String),
}
