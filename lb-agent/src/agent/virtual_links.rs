//! The interfaces with virtual MACs: made over the one that the VIPs belong on, kept there, removed at
//! the end. A virtual router whose interface is missing has no VIPs to hold and sends nothing.

use tracing::{info, warn};

use super::core::Agent;
use super::seats::{Seat, Seats};
use crate::announce::Interface;
use crate::netlink::{Link, Mac, Netlink, Network, mac_text};

/// What such interfaces' names begin with.
const PREFIX: &str = "lb-v";

/// The interface of a virtual router in one family.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct VirtualLink {
    /// `lb-v51` or, for IPv6, `lb-v51-6`: at most 10 of the 15 characters that the kernel has.
    pub(super) name: String,
    pub(super) mac: Mac,
    v4: bool,
}

impl VirtualLink {
    pub(super) fn new(router_id: u8, v4: bool) -> Self {
        let name =
            if v4 { format!("{PREFIX}{router_id}") } else { format!("{PREFIX}{router_id}-6") };
        Self { name, mac: lb_common::virtual_mac::virtual_mac(router_id, v4), v4 }
    }

    /// The interface, once it is up.
    pub(super) fn interface(&self, network: &Network) -> Option<Interface> {
        let link = network.link_by_name(&self.name).filter(|link| link.up)?;
        let mac = link.mac.filter(|mac| *mac == self.mac)?;
        Some(Interface { index: link.index, name: link.name.clone(), mac })
    }
}

/// One that an agent made, of whatever configuration.
fn is_ours(link: &Link) -> bool {
    let virtually = |mac: Mac| mac[..4] == [0x00, 0x00, 0x5e, 0x00] && matches!(mac[4], 1 | 2);
    link.name.starts_with(PREFIX) && link.mac.is_some_and(virtually)
}

impl Agent {
    /// Makes the interfaces that are missing. Returns whether something was done to the network.
    pub(super) async fn follow_virtual_links(&mut self) -> bool {
        let mut changed = false;
        let wanted: Vec<(VirtualLink, u32)> =
            self.seats.0.iter().filter_map(|seat| self.wanted(seat)).collect();
        for (link, parent) in wanted {
            let about = format!("virtual MAC {}", mac_text(link.mac));
            let done = match self.network.link_by_name(&link.name) {
                Some(there) if there.mac != Some(link.mac) => Err(format!(
                    "{} is there already, with another MAC; rename or remove it",
                    link.name
                )),
                Some(there) if there.up => Ok(false),
                Some(_) => {
                    let up = self.netlink.set_virtual_link_up(&link.name).await;
                    up.map(|()| true).map_err(|error| error.to_string())
                }
                None => {
                    let VirtualLink { name, mac, v4 } = &link;
                    let made = self.netlink.add_virtual_link(name, parent, *mac, *v4).await;
                    made.map(|()| true).map_err(|error| error.to_string())
                }
            };
            match done {
                Ok(done) => {
                    changed |= done;
                    self.failures.remove(&about);
                }
                Err(error) => {
                    self.failures.insert(about, error);
                }
            }
        }
        changed
    }

    /// A seat's interface, and what it lies over.
    fn wanted(&self, seat: &Seat) -> Option<(VirtualLink, u32)> {
        let link = seat.link.clone()?;
        let vips = seat.vips.as_ref()?;
        let placement = self.placements.iter().find(|p| vips.contains(&p.vip))?;
        Some((link, placement.interface.index))
    }
}

/// Removes what an agent that was killed left behind.
pub(super) async fn remove_stale(netlink: &Netlink, network: &Network) {
    for Link { name, .. } in network.links().filter(|link| is_ours(link)) {
        info!(interface = name, "removing an interface that an earlier agent left behind");
        if let Err(error) = netlink.remove_virtual_link(name).await {
            warn!(%error, "removing an interface with a virtual MAC");
        }
    }
}

/// Removes those of these seats, when nothing is held on them any more.
pub(super) async fn remove(netlink: &Netlink, seats: &Seats) {
    for link in seats.0.iter().filter_map(|seat| seat.link.as_ref()) {
        if let Err(error) = netlink.remove_virtual_link(&link.name).await {
            warn!(%error, "removing an interface with a virtual MAC");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str, mac: Mac, up: bool) -> Link {
        let name = name.to_owned();
        Link {
            index: 7,
            name,
            mac: Some(mac),
            up,
            running: up,
            loopback: false,
            veth: false,
            mtu: 1500,
        }
    }

    fn network(link: Link) -> Network {
        Network::new(vec![link], Vec::new(), Vec::new(), Vec::new())
    }

    #[test]
    fn the_longest_name_is_one_that_the_kernel_takes() {
        assert_eq!(VirtualLink::new(51, true).name, "lb-v51");
        assert_eq!(VirtualLink::new(255, false).name, "lb-v255-6");
    }

    #[test]
    fn only_an_interface_that_is_up_and_has_the_mac_is_taken() {
        let wanted = VirtualLink::new(51, true);
        let taken = |mac, up| wanted.interface(&network(link("lb-v51", mac, up))).is_some();
        assert!(taken(wanted.mac, true));
        assert!(!taken(wanted.mac, false));
        assert!(!taken([2, 0, 0, 0, 0, 1], true));
    }

    #[test]
    fn another_program_s_interface_is_not_removed() {
        let mac = VirtualLink::new(51, true).mac;
        assert!(is_ours(&link("lb-v51", mac, true)));
        assert!(!is_ours(&link("vrrp.51", mac, true)));
        assert!(!is_ours(&link("lb-v51", [2, 0, 0, 0, 0, 1], true)));
    }
}
