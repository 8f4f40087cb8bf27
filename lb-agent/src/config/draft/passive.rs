//! [service.passive].

use std::time::Duration;

use super::{HOUR, Passive, Problem, Protocol, schema};
use crate::config::document::Section;
use crate::config::error::Faults;

/// Each of them is remembered.
const FAILS_MAX: u32 = 1000;

const SHORTEST: Duration = Duration::from_millis(10);

pub(super) fn read(service: &Section<'_>, protocol: Protocol, faults: &mut Faults<'_>) -> Passive {
    let udp = protocol == Protocol::Udp;
    let asked_for = service.has("passive");
    let section = service.section("passive", &schema::PASSIVE, faults);
    if asked_for && udp {
        faults.add(&section.span, Problem::NoFailures);
    }
    let by_default = if udp { 0 } else { 3 };
    Passive {
        max_fails: section.or("max_fails", by_default, faults, |item| item.number(0..=FAILS_MAX)),
        fail_timeout: section.or("fail_timeout", Duration::from_secs(30), faults, |item| {
            item.duration(SHORTEST..=HOUR)
        }),
    }
}
