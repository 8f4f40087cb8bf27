//! Who holds which VIPs. With a static role one holder has them all; with VRRP each address family
//! has its own, as it has its own virtual router.

use std::net::IpAddr;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::role::{HolderHandle, Holding, Placement, Role};

/// Which VIPs a holder has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Family {
    Any,
    V4,
    V6,
}

impl Family {
    pub(super) const fn has(self, vip: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::V4 => vip.is_ipv4(),
            Self::V6 => vip.is_ipv6(),
        }
    }
}

/// A holder, and the VIPs that are placed for it.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) family: Family,
    pub(super) placements: watch::Sender<Vec<Placement>>,
    pub(super) holder: HolderHandle,
}

/// All holders of the node.
#[derive(Debug)]
pub(super) struct Seats(pub(super) Vec<Seat>);

impl Seats {
    /// Tells each holder its placements, where they changed.
    pub(super) fn place(&self, placements: &[Placement]) {
        for seat in &self.0 {
            let own: Vec<Placement> =
                placements.iter().filter(|p| seat.family.has(p.vip)).cloned().collect();
            seat.placements.send_if_modified(|current| {
                let changed = *current != own;
                *current = own;
                changed
            });
        }
    }

    pub(super) fn restore(&self) {
        for seat in &self.0 {
            seat.holder.restore();
        }
    }

    /// What the node holds. Where the families differ it counts as Active, and the reason names
    /// both.
    pub(super) fn holding(&self) -> Holding {
        let mut all = self.0.iter().map(|seat| (seat.family, seat.holder.holding()));
        let (_, mut joined) = all.next().expect("a node has at least one holder");
        for (_, other) in all {
            if other.role != joined.role {
                let (active, backup) = if joined.role == Role::Active {
                    (&joined.reason, &other.reason)
                } else {
                    (&other.reason, &joined.reason)
                };
                joined.reason = format!("{active}; backup in the other family: {backup}");
                joined.role = Role::Active;
            }
            joined.since = joined.since.max(other.since);
            joined.refusal = joined.refusal.or(other.refusal);
            joined.vips.extend(other.vips);
        }
        joined
    }
}

/// The holders' tasks, which end once their sources of roles do.
pub(super) type Tasks = Vec<JoinHandle<()>>;
