//! Connections that belong elsewhere, and those that were moved.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Of a service over TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebalanced {
    pub service: String,
    pub moved: u64,
    /// At the last look; none where there was none, since no backend of it is here.
    pub misplaced: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    service: String,
}

pub(super) fn register(registry: &mut Registry, services: &[Rebalanced]) {
    let moved = Family::<Labels, Counter>::default();
    let misplaced = Family::<Labels, Gauge>::default();
    for rebalanced in services {
        let labels = Labels { service: rebalanced.service.clone() };
        moved.get_or_create(&labels).inc_by(rebalanced.moved);
        let there = i64::try_from(rebalanced.misplaced.unwrap_or(0)).unwrap_or(i64::MAX);
        misplaced.get_or_create(&labels).set(there);
    }
    registry.register(
        "rebalanced_connections",
        "Connections moved to where new ones of their clients go",
        moved,
    );
    registry.register(
        "misplaced_connections",
        "Connections here whose clients' new ones go elsewhere, at the last look",
        misplaced,
    );
}
