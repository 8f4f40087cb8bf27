//! What can go wrong between the agent and the kernel's network configuration.

use std::io;
use std::time::Duration;

/// Why a netlink operation failed. Each message names the operation, its object and the remedy
/// where there is a usual one.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    #[error("cannot open a netlink socket: {0}")]
    Open(#[source] io::Error),
    #[error("cannot {operation}: {source}{hint}")]
    Refused {
        operation: String,
        source: io::Error,
        /// Empty, or ` (what to do)`.
        hint: &'static str,
    },
    #[error("cannot {operation}: the kernel did not answer within {limit:?}")]
    Unanswered { operation: String, limit: Duration },
    #[error("cannot {operation}: the netlink connection has ended; restart the agent")]
    Ended { operation: String },
    #[error("cannot {operation}: the configuration kept changing while it was read")]
    Unstable { operation: String },
}

impl NetlinkError {
    pub(super) fn refused(operation: String, errno: i32) -> Self {
        Self::Refused { operation, source: io::Error::from_raw_os_error(errno), hint: hint(errno) }
    }

    /// The kernel's errno, where it was the kernel that refused.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

fn hint(errno: i32) -> &'static str {
    match errno {
        libc::EPERM => " (run as root, or with CAP_NET_ADMIN)",
        libc::EACCES => " (for an IPv6 address: IPv6 is disabled on the interface)",
        libc::ENODEV => " (the interface is gone)",
        libc::ENETDOWN => " (bring the interface up: ip link set lo up)",
        libc::EAFNOSUPPORT | libc::EOPNOTSUPP => " (the kernel lacks this address family)",
        _ => "",
    }
}
