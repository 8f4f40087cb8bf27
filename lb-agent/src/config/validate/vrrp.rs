//! The virtual routers held against the rest of the file.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{known_node, unique, unique_placed, values};
use crate::config::document::Placed;
use crate::config::draft::{Draft, DraftRouter, DraftVrrp};
use crate::config::error::Faults;
use crate::config::problem::{Family, Problem};
use crate::config::{VirtualRouter, Vrrp, VrrpVersion};

/// The settings with the virtual routers that have all virtual addresses among them.
pub(super) fn complete(draft: &Draft, faults: &mut Faults<'_>) -> Option<Vrrp> {
    let vrrp = draft.vrrp.as_ref()?;
    families(&vrrp.settings, draft, faults);
    routers(&vrrp.routers, draft, faults);
    Some(Vrrp { routers: meant(vrrp, draft), ..vrrp.settings.clone() })
}

fn meant(vrrp: &DraftVrrp, draft: &Draft) -> Vec<VirtualRouter> {
    if let Some(router_id) = &vrrp.router_id {
        let virtual_addresses = values(&draft.virtual_addresses);
        let router_id = router_id.value;
        return vec![VirtualRouter { router_id, virtual_addresses, priorities: BTreeMap::new() }];
    }
    let router = |router: &DraftRouter| VirtualRouter {
        router_id: router.router_id.value,
        virtual_addresses: values(&router.virtual_addresses),
        priorities: router.priorities.iter().map(|(node, p)| (node.value.clone(), *p)).collect(),
    };
    vrrp.routers.iter().map(router).collect()
}

/// The version has the virtual addresses' families, and so has every node that is sent to.
fn families(vrrp: &Vrrp, draft: &Draft, faults: &mut Faults<'_>) {
    if vrrp.version == VrrpVersion::V2 {
        for vip in draft.virtual_addresses.iter().filter(|vip| vip.value.is_ipv6()) {
            faults.add(&vip.span, Problem::V6InVersion2 { address: vip.value });
        }
    }
    if !vrrp.unicast || !draft.places_complete {
        return;
    }
    for family in [Family::V4, Family::V6] {
        let has = |all: &[Placed<IpAddr>]| all.iter().any(|own| Family::of(own.value) == family);
        if !has(&draft.virtual_addresses) {
            continue;
        }
        for node in draft.nodes.iter().filter(|node| !has(&node.addresses)) {
            let problem = Problem::NoAddressOfFamily { node: node.name.value.clone(), family };
            faults.add(&node.name.span, problem);
        }
    }
}

/// Each virtual address belongs to one of them, and each has a number of its own.
fn routers(routers: &[DraftRouter], draft: &Draft, faults: &mut Faults<'_>) {
    if routers.is_empty() {
        return;
    }
    unique_placed("router_id", routers.iter().map(|router| &router.router_id), faults);
    let addresses = || routers.iter().flat_map(|router| &router.virtual_addresses);
    unique_placed("a [[vrrp.router]] with the virtual address", addresses(), faults);
    for router in routers {
        for (node, _) in &router.priorities {
            known_node("priorities", node, draft, faults);
        }
        let nodes =
            router.priorities.iter().map(|(node, _)| (node.value.clone(), node.span.clone()));
        unique("the priority of", nodes, String::clone, faults);
    }
    if !draft.places_complete {
        return;
    }
    let all = values(&draft.virtual_addresses);
    for address in addresses().filter(|address| !all.contains(&address.value)) {
        faults.add(&address.span, Problem::RouterOfNoAddress { address: address.value });
    }
    if routers.iter().any(|router| !router.complete) {
        return;
    }
    for vip in &draft.virtual_addresses {
        if !addresses().any(|address| address.value == vip.value) {
            faults.add(&vip.span, Problem::NoRouter { address: vip.value });
        }
    }
}
