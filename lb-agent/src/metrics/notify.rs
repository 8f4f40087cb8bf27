//! Series of the notify hooks: one of each for every hook.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::control::api::NotifyHook;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HookLabels {
    hook: String,
}

/// Name, help, and the value of a hook.
struct Series(&'static str, &'static str, fn(&NotifyHook) -> u64);

const GAUGES: [Series; 3] = [
    Series("notify_failing", "1 while a hook does not take a notice", |hook| {
        u64::from(hook.failing_since.is_some())
    }),
    Series("notify_waiting", "Notices that wait for a hook", |hook| hook.waiting),
    Series("notify_unsafe", "1 while waiting notices would not outlive the agent", |hook| {
        u64::from(hook.spool_trouble.is_some())
    }),
];

const COUNTERS: [Series; 3] = [
    Series("notify_delivered", "Notices that a hook took", |hook| hook.delivered),
    Series("notify_failed_attempts", "Attempts to tell a hook that failed", |hook| {
        hook.failed_attempts
    }),
    Series("notify_folded", "Notices that are told as a part of a later one", |hook| hook.folded),
];

pub(super) fn register(registry: &mut Registry, hooks: &[NotifyHook]) {
    for Series(name, help, value) in GAUGES {
        let family = Family::<HookLabels, Gauge>::default();
        for hook in hooks {
            let value = i64::try_from(value(hook)).unwrap_or(i64::MAX);
            family.get_or_create(&labels(hook)).set(value);
        }
        registry.register(name, help, family);
    }
    for Series(name, help, value) in COUNTERS {
        let family = Family::<HookLabels, Counter>::default();
        for hook in hooks {
            family.get_or_create(&labels(hook)).inc_by(value(hook));
        }
        registry.register(name, help, family);
    }
}

fn labels(hook: &NotifyHook) -> HookLabels {
    HookLabels { hook: hook.name.clone() }
}
