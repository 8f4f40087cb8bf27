//! [service.rebalance].

use std::time::Duration;

use super::{HOUR, Item, Problem, Protocol, Rebalance, schema};
use crate::config::document::Section;
use crate::config::error::Faults;

/// The kernel tells of a silence in units of its own clock, up to 10 ms.
const IDLE_MIN: Duration = Duration::from_millis(100);

pub(super) fn read(
    service: &Section<'_>,
    protocol: Protocol,
    faults: &mut Faults<'_>,
) -> Rebalance {
    let asked_for = service.has("rebalance");
    let section = service.section("rebalance", &schema::REBALANCE, faults);
    if asked_for && protocol == Protocol::Udp {
        faults.add(&section.span, Problem::NothingToMove);
    }
    let (day, seconds) = (HOUR * 24, Duration::from_secs);
    Rebalance {
        automatic: section.or("automatic", false, faults, Item::boolean),
        per_minute: section
            .or("per_minute", 60, faults, |item| item.number(1..=Rebalance::PER_MINUTE_MAX)),
        idle: section.or("idle", seconds(5), faults, |item| item.duration(IDLE_MIN..=HOUR)),
        minimum_age: section
            .or("minimum_age", seconds(60), faults, |item| item.duration(Duration::ZERO..=day)),
        threshold_percent: section.or("threshold", 10, faults, |item| item.number(0..=99)),
        stable: section.or("stable", seconds(60), faults, |item| item.duration(seconds(1)..=day)),
    }
}
