//! What the maps are to hold of a service's protection.

use lb_common::Address;
use lb_common::protection::{CONNECTION_LIMITED, LISTED, Protection, RATE_LIMITED};

use super::lists::List;
use crate::config::{ConnectionLimit, RateLimit, Service};

const SECOND_NS: u64 = 1_000_000_000;

/// Of one service; not there where it refuses nobody.
#[derive(Clone, Debug)]
pub struct PlannedProtection {
    /// Without the place of its list, which is the maps' to know.
    pub rules: Protection,
    pub list: Option<List>,
}

impl PlannedProtection {
    pub(super) fn of(service: &Service, list: Option<&List>) -> Option<Self> {
        let v4 = service.addresses.first()?.is_ipv4();
        let mut rules = Protection::NONE;
        if let Some(limit) = &service.rate_limit {
            limit_rate(&mut rules, limit, v4);
        }
        if let Some(limit) = &service.connection_limit {
            limit_connections(&mut rules, limit, v4);
        }
        if list.is_some() {
            rules.rules |= LISTED;
        }
        (rules.rules != 0).then(|| Self { rules, list: list.cloned() })
    }

    /// Whether both say the same, in the same list.
    pub fn is_same(&self, other: &Self) -> bool {
        let same_list = match (&self.list, &other.list) {
            (Some(one), Some(other)) => one.is_same(other),
            (None, None) => true,
            _ => false,
        };
        self.rules == other.rules && same_list
    }
}

fn limit_rate(rules: &mut Protection, limit: &RateLimit, v4: bool) {
    rules.rules |= RATE_LIMITED;
    rules.interval_ns = SECOND_NS / u64::from(limit.per_second.max(1));
    rules.allowance_ns = rules.interval_ns * u64::from(limit.burst);
    rules.rate_mask = mask(if v4 { limit.prefix_ipv4 } else { limit.prefix_ipv6 }, v4);
}

fn limit_connections(rules: &mut Protection, limit: &ConnectionLimit, v4: bool) {
    rules.rules |= CONNECTION_LIMITED;
    rules.connections = u64::from(limit.per_source);
    rules.connection_mask = mask(if v4 { limit.prefix_ipv4 } else { limit.prefix_ipv6 }, v4);
}

/// The bits of an address that a prefix of this length has; for IPv4, those of the mapped form.
fn mask(length: u8, v4: bool) -> Address {
    let bits = if v4 { 96 } else { 0 } + u32::from(length);
    let mask = u128::MAX.checked_shl(128 - bits.min(128)).unwrap_or(0);
    Address::from_v6(mask.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_has_as_many_bits_as_the_prefix() {
        let text = |length, v4| std::net::IpAddr::from(mask(length, v4).octets()).to_string();
        assert_eq!(text(64, false), "ffff:ffff:ffff:ffff::");
        assert_eq!(text(0, false), "::");
        assert_eq!(text(128, false), text(32, true));
        assert_eq!(text(24, true), "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ff00");
    }
}
