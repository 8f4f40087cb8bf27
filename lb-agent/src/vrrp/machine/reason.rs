//! Why a router became what it is, in words.

use std::fmt;
use std::net::IpAddr;

use crate::vrrp::identity::Priority;

/// Why a machine changed its state, or what it holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// It was started.
    Started,
    /// It has the addresses as its own (priority 255).
    Owner,
    /// Nobody Active was heard for the down interval.
    ActiveDown,
    /// The Active router resigned.
    ActiveResigned,
    /// Another Active router has a higher priority, or the same and a greater address.
    Outranked { by: IpAddr, priority: Priority },
    /// It slept longer than the others wait.
    Overslept,
    /// It was told to resign.
    Resigned,
    /// It was told to stay Backup.
    HeldBack,
    /// It was shut down.
    ShutDown,
    /// It handed over, and the successor was heard.
    Succeeded { by: IpAddr },
    /// It handed over, and nobody was heard in time.
    NoSuccessor,
    /// It goes on where the agent before this one was.
    Resumed,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started => f.write_str("started, and listens for an active router"),
            Self::Owner => f.write_str("owns the addresses (priority 255)"),
            Self::ActiveDown => f.write_str("no active router was heard"),
            Self::ActiveResigned => f.write_str("the active router resigned"),
            Self::Outranked { by, priority } => {
                write!(f, "{by} is active with priority {priority}")
            }
            Self::Overslept => f.write_str("it slept longer than the others wait"),
            Self::Resigned => f.write_str("resigned"),
            Self::HeldBack => f.write_str("held back"),
            Self::ShutDown => f.write_str("shut down"),
            Self::Succeeded { by } => write!(f, "{by} has taken over"),
            Self::Resumed => f.write_str("goes on where the agent before this one was"),
            Self::NoSuccessor => f.write_str("held back, though nobody has taken over"),
        }
    }
}
