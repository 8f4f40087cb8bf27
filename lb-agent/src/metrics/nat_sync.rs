//! Series of the synchronisation of NAT flows: one of each for every other node; none without `[peers]`.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::{FloatGauge, counter};
use crate::control::api::{NatSync, Node};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PeerLabels {
    peer: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    peer: String,
    reason: String,
}

/// Name, help, and the value of a peer.
struct Series<T>(&'static str, &'static str, fn(&NatSync) -> T);

const GAUGES: [Series<f64>; 2] = [
    Series("nat_sync_connected", "Whether another node is told of this one's NAT flows", |sync| {
        f64::from(u8::from(sync.connected))
    }),
    Series("nat_sync_heard", "Whether another node tells this one of its NAT flows", |sync| {
        f64::from(u8::from(sync.heard))
    }),
];

const COUNTERS: [Series<u64>; 3] = [
    Series("nat_sync_sent", "Flows that another node was told of", |sync| sync.sent),
    Series("nat_sync_received", "Flows that another node told of", |sync| sync.received),
    Series("nat_sync_adopted", "Those of them that were new here", |sync| sync.adopted),
];

pub(super) fn register(registry: &mut Registry, nodes: &[Node], strangers: u64) {
    let peers: Vec<(PeerLabels, &NatSync)> = nodes
        .iter()
        .filter_map(|node| Some((PeerLabels { peer: node.name.clone() }, node.nat_sync.as_ref()?)))
        .collect();
    for Series(name, help, value) in GAUGES {
        let family = Family::<PeerLabels, FloatGauge>::default();
        for (labels, sync) in &peers {
            family.get_or_create(labels).set(value(sync));
        }
        registry.register(name, help, family);
    }
    for Series(name, help, value) in COUNTERS {
        let family = Family::<PeerLabels, Counter>::default();
        for (labels, sync) in &peers {
            family.get_or_create(labels).inc_by(value(sync));
        }
        registry.register(name, help, family);
    }
    let lag = Family::<PeerLabels, FloatGauge>::default();
    let refused = Family::<ReasonLabels, Counter>::default();
    for (labels, sync) in &peers {
        if let Some(seconds) = sync.lag_seconds {
            lag.get_or_create(labels).set(seconds);
        }
        for (reason, count) in &sync.refused {
            let labels = ReasonLabels { peer: labels.peer.clone(), reason: reason.clone() };
            refused.get_or_create(&labels).inc_by(*count);
        }
    }
    let help = "How old what another node knows of this one's flows is; absent before it knows any";
    registry.register("nat_sync_lag_seconds", help, lag);
    let help = "What another node told of NAT flows that was not taken, by reason";
    registry.register("nat_sync_refused", help, refused);
    let help = "Connections to the port of [peers] from addresses that are no other node's";
    counter(registry, "nat_sync_strangers", help, strangers);
}
