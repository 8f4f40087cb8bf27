//! Who holds which VIPs. With a static role one holder has them all; with VRRP each virtual router has
//! its own, in each address family.

use std::net::IpAddr;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::virtual_links::VirtualLink;
use crate::netlink::Network;
use crate::role::{HolderHandle, Holding, Placement, Role};

/// A holder, and the VIPs that are placed for it.
#[derive(Debug)]
pub(super) struct Seat {
    /// What the reasons of several holders are told apart by.
    pub(super) name: String,
    /// None: all.
    pub(super) vips: Option<Vec<IpAddr>>,
    /// Where they are held instead of where they belong: the interface with the virtual MAC.
    pub(super) link: Option<VirtualLink>,
    pub(super) placements: watch::Sender<Vec<Placement>>,
    pub(super) holder: HolderHandle,
}

impl Seat {
    fn has(&self, vip: IpAddr) -> bool {
        self.vips.as_ref().is_none_or(|vips| vips.contains(&vip))
    }

    /// A placement as it is for this seat: none without the interface that it needs.
    fn own(&self, placement: &Placement, network: &Network) -> Option<Placement> {
        match &self.link {
            None => Some(placement.clone()),
            Some(link) => {
                Some(Placement { vip: placement.vip, interface: link.interface(network)? })
            }
        }
    }
}

/// All holders of the node.
#[derive(Debug)]
pub(super) struct Seats(pub(super) Vec<Seat>);

impl Seats {
    /// Tells each holder its placements, where they changed.
    pub(super) fn place(&self, placements: &[Placement], network: &Network) {
        for seat in &self.0 {
            let own = placements.iter().filter(|p| seat.has(p.vip));
            let own: Vec<Placement> = own.filter_map(|p| seat.own(p, network)).collect();
            seat.placements.send_if_modified(|current| {
                let changed = *current != own;
                *current = own;
                changed
            });
        }
    }

    /// Lets what is held run out, or goes on with it.
    pub(super) fn suspend(&self, suspended: bool) {
        for seat in &self.0 {
            seat.holder.suspend(suspended);
        }
    }

    pub(super) fn restore(&self) {
        for seat in &self.0 {
            seat.holder.restore();
        }
    }

    /// What the node holds. Where the holders differ it counts as Active, and the reason names the
    /// others.
    pub(super) fn holding(&self) -> Holding {
        let all: Vec<(&str, Holding)> =
            self.0.iter().map(|seat| (seat.name.as_str(), seat.holder.holding())).collect();
        let active = all.iter().position(|(_, holding)| holding.role == Role::Active);
        let mut joined = all[active.unwrap_or(0)].1.clone();
        joined.vips.clear();
        for (name, other) in all {
            if other.role != joined.role {
                joined.reason = format!("{}; backup in {name}: {}", joined.reason, other.reason);
            }
            joined.since = joined.since.max(other.since);
            joined.refusal = joined.refusal.or(other.refusal);
            joined.vips.extend(other.vips);
        }
        joined
    }
}

/// The holders' tasks, which end once their sources of roles do, and what follows the holders.
pub(super) type Tasks = Vec<JoinHandle<()>>;
