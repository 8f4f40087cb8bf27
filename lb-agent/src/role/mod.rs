//! Who attracts the traffic, and what that takes: the seam between whatever decides the role (the
//! static source now, VRRP later) and the holder that carries it out.
//!
//! ```text
//! source --RoleChange--> holder --steps--> lease, address, announcement
//!                          ^
//!                      placements (which VIP on which interface)
//! ```
//!
//! Pure: [`steps`], [`ledger`]. Drivers: [`holder`], [`effects`].

pub mod effects;
pub mod holder;
pub mod ledger;
pub mod source;
pub mod steps;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::SystemTime;

pub use effects::{DataPath, Effects, NodeEffects};
pub use holder::{Holder, HolderHandle, Holding, Term, VipHolding};
pub use ledger::Placement;
pub use source::{RoleSender, StaticRole};

/// Whether this node attracts the VIPs' traffic (RFC 9568's names).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Role {
    Active,
    #[default]
    Backup,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Active => "active",
            Self::Backup => "backup",
        })
    }
}

/// What a claim does about another machine that has a VIP already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claim {
    /// Asks first. Where a VIP is taken the node stays Backup, and asks again every few seconds:
    /// the configuration says that it is to be Active.
    Insist,
    /// Asks first. Where a VIP is taken the node stays Backup for good: a person gets the refusal
    /// as the answer, and must not be surprised later.
    Once,
    /// Doesn't ask this once, since this node held the VIPs a moment ago (its agent was restarted);
    /// [`Insist`](Self::Insist) from then on.
    Resume,
    /// Never asks: the protocol has decided (VRRP).
    Forced,
}

/// The role that a source wants this node to have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RoleChange {
    pub role: Role,
    /// Why, for the log, the API and `lbctl`: `configured as active`.
    pub reason: String,
    pub at: SystemTime,
    pub claim: Claim,
    /// Counts up with every change of a source; [`Holding::settled`] tells how far the holder is.
    pub sequence: u64,
}
