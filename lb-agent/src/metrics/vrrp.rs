//! VRRP's series: one of each for every virtual router, and for every reason of refusal.

use std::collections::BTreeMap;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::FloatGauge;
use crate::control::api::{VirtualRouter, VrrpState};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouterLabels {
    router_id: u8,
    interface: String,
    family: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    router_id: u8,
    interface: String,
    family: &'static str,
    reason: String,
}

/// Name, help, and the value of a router.
struct Series<T>(&'static str, &'static str, fn(&VirtualRouter) -> T);

const GAUGES: [Series<f64>; 4] = [
    Series("vrrp_state", "0 Initialize, 1 Backup, 2 Active", |router| match router.state {
        VrrpState::Initialize => 0.0,
        VrrpState::Backup => 1.0,
        VrrpState::Active => 2.0,
    }),
    Series("vrrp_holds", "Whether this node answers for the VIPs", |router| {
        f64::from(u8::from(router.holds))
    }),
    Series("vrrp_priority", "The priority that this node has now", |router| {
        f64::from(router.priority)
    }),
    Series("vrrp_lateness_max_seconds", "The longest delay of a timer since the start", |router| {
        router.lateness_max_seconds
    }),
];

const COUNTERS: [Series<u64>; 5] = [
    Series("vrrp_advertisements_sent", "Advertisements sent", |router| router.sent),
    Series("vrrp_send_failures", "Advertisements that could not be sent", |router| {
        router.send_failures
    }),
    Series("vrrp_advertisements_received", "Advertisements taken", |router| router.received),
    Series("vrrp_events_lost", "Events of VRRP for which there was no room", |router| {
        router.events_lost
    }),
    Series("vrrp_transitions", "Times that this node took or gave up the VIPs", |router| {
        router.transitions
    }),
];

pub(super) fn register(registry: &mut Registry, routers: &[VirtualRouter]) {
    for Series(name, help, value) in GAUGES {
        let family = Family::<RouterLabels, FloatGauge>::default();
        for router in routers {
            family.get_or_create(&labels(router)).set(value(router));
        }
        registry.register(name, help, family);
    }
    for Series(name, help, value) in COUNTERS {
        let family = Family::<RouterLabels, Counter>::default();
        for router in routers {
            family.get_or_create(&labels(router)).inc_by(value(router));
        }
        registry.register(name, help, family);
    }
    let family = Family::<RouterLabels, FloatGauge>::default();
    for (router, heard) in routers.iter().filter_map(|r| Some((r, r.heard.as_ref()?))) {
        family.get_or_create(&labels(router)).set(heard.age_seconds);
    }
    let help = "Time since another router's last advertisement was taken; absent before the first";
    registry.register("vrrp_heard_age_seconds", help, family);
    by_reason(
        registry,
        ("vrrp_advertisements_refused", "Advertisements that were not taken, by reason"),
        routers,
        |router| &router.refused,
    );
    by_reason(
        registry,
        ("vrrp_advertisements_noticed", "Advertisements taken that need a look, by what for"),
        routers,
        |router| &router.noticed,
    );
}

fn by_reason(
    registry: &mut Registry,
    (name, help): (&'static str, &'static str),
    routers: &[VirtualRouter],
    counts: fn(&VirtualRouter) -> &BTreeMap<String, u64>,
) {
    let counters = Family::<ReasonLabels, Counter>::default();
    for router in routers {
        let RouterLabels { router_id, interface, family } = labels(router);
        for (reason, count) in counts(router) {
            let (interface, reason) = (interface.clone(), reason.clone());
            let labels = ReasonLabels { router_id, interface, family, reason };
            counters.get_or_create(&labels).inc_by(*count);
        }
    }
    registry.register(name, help, counters);
}

fn labels(router: &VirtualRouter) -> RouterLabels {
    RouterLabels {
        router_id: router.router_id,
        interface: router.interface.clone(),
        family: if router.address.is_ipv4() { "ipv4" } else { "ipv6" },
    }
}
