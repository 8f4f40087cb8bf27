//! Series of discovered backends: one of each for every service that discovers its own; none where none does.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::FloatGauge;
use crate::control::api::{Discovery, Service};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    service: String,
    source: String,
}

/// Name, help, and the value of a service.
struct Series<T>(&'static str, &'static str, fn(&Discovery) -> T);

const GAUGES: [Series<f64>; 3] = [
    Series("discovery_heard_seconds", "When backends were last told of; 0 where never", |it| {
        it.heard.unwrap_or(0.0)
    }),
    Series("discovery_changed_seconds", "When the set became what it is; 0 where never", |it| {
        it.changed.unwrap_or(0.0)
    }),
    Series("discovery_failing", "Whether nobody tells, or what cannot be used", |it| {
        f64::from(u8::from(it.failure.is_some() || it.flaw.is_some()))
    }),
];

const COUNTERS: [Series<u64>; 2] = [
    Series("discovery_answers", "Answers and events that told of backends", |it| it.answers),
    Series("discovery_failures", "Questions that were not answered", |it| it.failures),
];

pub(super) fn register(registry: &mut Registry, services: &[Service]) {
    // The same at each of a service's addresses.
    let all: Vec<(Labels, &Discovery)> = services
        .iter()
        .filter_map(|service| {
            let discovery = service.discovery.as_ref()?;
            let labels = Labels { service: service.name.clone(), source: discovery.source.clone() };
            Some((labels, discovery))
        })
        .collect();
    for Series(name, help, value) in GAUGES {
        let family = Family::<Labels, FloatGauge>::default();
        for (labels, discovery) in &all {
            family.get_or_create(labels).set(value(discovery));
        }
        registry.register(name, help, family);
    }
    for Series(name, help, value) in COUNTERS {
        let family = Family::<Labels, Counter>::default();
        for (labels, discovery) in &all {
            let counter = family.get_or_create(labels);
            counter.inc_by(value(discovery).saturating_sub(counter.get()));
        }
        registry.register(name, help, family);
    }
}
