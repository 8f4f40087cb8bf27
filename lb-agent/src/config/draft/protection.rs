//! What a service refuses: the keys of `[[service]]` and the table below it.

use std::path::PathBuf;

use super::super::document::{Item, Placed, Section};
use super::super::error::Faults;
use super::super::problem::Problem;
use super::super::protection::{ConnectionLimit, Prefix, RateLimit, SynFlood};
use super::super::{Protocol, schema, value};

const PER_SECOND_MAX: u32 = 1_000_000;
const PER_SOURCE_MAX: u32 = 1_000_000;

/// Below, the first tenth of a second's burst would be a handful; above, no step of the clock is between.
const SYNS_PER_SECOND: std::ops::RangeInclusive<u32> = 100..=10_000_000;

/// The lists of a `[[service]]`.
pub(in super::super) struct DraftLists {
    pub(in super::super) allow: Vec<Placed<Prefix>>,
    pub(in super::super) deny: Vec<Placed<Prefix>>,
    pub(in super::super) allow_file: Option<PathBuf>,
    pub(in super::super) deny_file: Option<PathBuf>,
}

pub(super) fn lists(service: &Section<'_>, faults: &mut Faults<'_>) -> DraftLists {
    const ALLOW: &str = "allow = [\"192.168.0.0/16\"]";
    const DENY: &str = "deny = [\"192.0.2.0/24\"]";
    let prefix = |item: Item<'_>| item.parsed(value::prefix);
    let path = |item: Item<'_>| item.parsed(value::path);
    DraftLists {
        allow: service.list("allow", ALLOW, faults, prefix),
        deny: service.list("deny", DENY, faults, prefix),
        allow_file: service.optional("allow_file", faults, path).map(|placed| placed.value),
        deny_file: service.optional("deny_file", faults, path).map(|placed| placed.value),
    }
}

pub(super) fn rate_limit(service: &Section<'_>, faults: &mut Faults<'_>) -> Option<RateLimit> {
    let section = service.optional_section("rate_limit", &schema::RATE_LIMIT, faults)?;
    let per_second = section
        .required("per_second", "per_second = 100", faults, |item| item.number(1..=PER_SECOND_MAX));
    let burst = section.optional("burst", faults, |item| item.number(1..=PER_SECOND_MAX));
    let prefix_ipv4 = section.or("prefix_ipv4", 32, faults, |item| item.number(1..=32));
    let prefix_ipv6 = section.or("prefix_ipv6", 64, faults, |item| item.number(1..=128));
    let per_second = per_second?.value;
    let least = RateLimit::least_burst(per_second);
    if let Some(burst) = &burst
        && burst.value < least
    {
        let problem = Problem::BurstTooSmall { burst: burst.value, per_second, least };
        faults.add(&burst.span, problem);
    }
    let burst = burst.map_or(per_second, |placed| placed.value);
    Some(RateLimit { per_second, burst, prefix_ipv4, prefix_ipv6 })
}

pub(super) fn connection_limit(
    service: &Section<'_>,
    protocol: Protocol,
    faults: &mut Faults<'_>,
) -> Option<ConnectionLimit> {
    let section =
        service.optional_section("connection_limit", &schema::CONNECTION_LIMIT, faults)?;
    if protocol != Protocol::Tcp {
        faults.add(&section.span, Problem::NoConnections);
    }
    let per_source = section
        .required("per_source", "per_source = 100", faults, |item| item.number(1..=PER_SOURCE_MAX));
    let prefix_ipv4 = section.or("prefix_ipv4", 32, faults, |item| item.number(1..=32));
    let prefix_ipv6 = section.or("prefix_ipv6", 64, faults, |item| item.number(1..=128));
    Some(ConnectionLimit { per_source: per_source?.value, prefix_ipv4, prefix_ipv6 })
}

pub(super) fn syn_flood(root: &Section<'_>, faults: &mut Faults<'_>) -> Option<SynFlood> {
    let section = root.optional_section("syn_flood", &schema::SYN_FLOOD, faults)?;
    let rate = section.required("syns_per_second", "syns_per_second = 10000", faults, |item| {
        item.number(SYNS_PER_SECOND)
    });
    Some(SynFlood { syns_per_second: rate?.value })
}
