//! The series of what is tracked: one of each for every thing, and for every kind of failure.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::control::api::{Track, TrackState};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TrackLabels {
    name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailureLabels {
    name: String,
    reason: String,
}

pub(super) fn register(registry: &mut Registry, tracks: &[Track]) {
    let ok = Family::<TrackLabels, Gauge>::default();
    let looks = Family::<TrackLabels, Counter>::default();
    let failures = Family::<FailureLabels, Counter>::default();
    for track in tracks {
        let labels = TrackLabels { name: track.name.clone() };
        ok.get_or_create(&labels).set(i64::from(track.state == TrackState::Good));
        looks.get_or_create(&labels).inc_by(track.looks);
        for (reason, count) in &track.failures {
            let labels = FailureLabels { name: track.name.clone(), reason: reason.clone() };
            failures.get_or_create(&labels).inc_by(*count);
        }
    }
    registry.register("track_ok", "Whether a tracked thing is good", ok);
    registry.register("track_looks", "Looks at a tracked thing, or runs of its script", looks);
    registry.register("track_failures", "Looks that found it failing, by kind", failures);
}
