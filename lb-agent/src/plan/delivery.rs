//! How packets reach one backend from this node.

use std::net::IpAddr;
use std::sync::Arc;

use lb_common::backend::Delivery;

use super::Inputs;
use crate::config::DeliverySetting;

/// The way to a backend.
pub(super) struct Way {
    /// What the map gets: [`Delivery::None`] while the next hop is not known.
    pub(super) delivery: Delivery,
    /// What it is going to be.
    pub(super) intended: Delivery,
    pub(super) mac: [u8; 6],
    pub(super) source_mac: [u8; 6],
    pub(super) ifindex: u32,
    pub(super) reason: Arc<str>,
    /// Whom to resolve first.
    pub(super) unresolved: Option<(u32, IpAddr)>,
}

impl Way {
    fn without_next_hop(delivery: Delivery, intended: Delivery, reason: String) -> Self {
        Self {
            delivery,
            intended,
            mac: [0; 6],
            source_mac: [0; 6],
            ifindex: 0,
            reason: reason.into(),
            unresolved: None,
        }
    }
}

/// Decides by the setting, whose address it is, and where the route leads.
pub(super) fn decide(inputs: &Inputs<'_>, address: IpAddr, setting: DeliverySetting) -> Way {
    let node = inputs.config.node_of(address);
    let own = node.is_some_and(|node| node.name == inputs.node) || inputs.network.is_own(address);
    if own && setting != DeliverySetting::Nat {
        let reason = "the address is this node's".to_owned();
        return Way::without_next_hop(Delivery::Local, Delivery::Local, reason);
    }
    let intended = match setting {
        DeliverySetting::Nat => Delivery::Nat,
        DeliverySetting::Direct => Delivery::Direct,
        DeliverySetting::Auto if node.is_some() => Delivery::Direct,
        DeliverySetting::Auto => Delivery::Nat,
    };
    // Also where the link is down: packets arrive as soon as it is up again, before anybody has told
    // the agent, and a segment that has nowhere to go then is answered by a reset.
    let hop = match inputs.network.resolve_once_up(address) {
        Ok(hop) => hop,
        Err(why) => return Way::without_next_hop(Delivery::None, intended, why.to_string()),
    };
    let (intended, mut reason) = match (intended, node) {
        (Delivery::Direct, _) if hop.neighbour != address => (
            Delivery::Nat,
            format!("behind the router {}, where a frame cannot be carried by MAC", hop.neighbour),
        ),
        (Delivery::Direct, Some(node)) => {
            (Delivery::Direct, format!("on node {}, on the same link", node.name))
        }
        (Delivery::Nat, _) if setting == DeliverySetting::Nat => {
            (Delivery::Nat, "set in the configuration".to_owned())
        }
        (other, _) => (other, "the address is no node's".to_owned()),
    };
    let interface = inputs.network.link_name(hop.ifindex);
    let (delivery, mac, unresolved) = match inputs.mac(&hop) {
        Some(mac) => (intended, mac, None),
        None => {
            reason = format!("{} does not answer on {interface} yet", hop.neighbour);
            (Delivery::None, [0; 6], Some((hop.ifindex, hop.neighbour)))
        }
    };
    Way {
        delivery,
        intended,
        mac,
        source_mac: hop.source_mac,
        ifindex: hop.ifindex,
        reason: reason.into(),
        unresolved,
    }
}
