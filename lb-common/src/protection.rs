//! What a service refuses: sources by prefix, and sources that open too many connections.

use crate::Address;

/// The source is looked up in the list [`Protection::list`].
pub const LISTED: u32 = 1 << 0;
/// New connections of a source are limited in their rate.
pub const RATE_LIMITED: u32 = 1 << 1;
/// A source may have so many connections at one time.
pub const CONNECTION_LIMITED: u32 = 1 << 2;

/// The value of the map `protections`, at the index [`Service::protection`](crate::service::Service).
///
/// An element is never changed while a service names it: a changed one stands at another index.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Protection {
    /// [`LISTED`], [`RATE_LIMITED`], [`CONNECTION_LIMITED`].
    pub rules: u32,
    /// Index in the map `lists`.
    pub list: u32,
    /// What a new connection costs its source, in nanoseconds: a second divided by the rate.
    pub interval_ns: u64,
    /// How much of it a source may have spent at once: the burst, in the same nanoseconds.
    pub allowance_ns: u64,
    /// The bits of an address by which sources are told apart, in network order.
    pub rate_mask: Address,
    /// Connections that a source may have at one time.
    pub connections: u64,
    /// The bits of an address by which sources are told apart for that, in network order.
    pub connection_mask: Address,
}

impl Protection {
    /// One that refuses nothing.
    pub const NONE: Self = Self {
        rules: 0,
        list: 0,
        interval_ns: 0,
        allowance_ns: 0,
        rate_mask: Address::UNSPECIFIED,
        connections: 0,
        connection_mask: Address::UNSPECIFIED,
    };
}

/// The key of a list: a prefix. The layout is the kernel's (`struct bpf_lpm_trie_key`).
#[repr(C, align(4))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PrefixKey {
    /// Leading bits of the address that count; those of an IPv4 prefix and 96 more.
    pub length: u32,
    pub address: Address,
}

/// The value of a list's prefix: the source may use the service.
pub const ALLOWED: u32 = 1;
/// It may not.
pub const DENIED: u32 = 2;
/// Of the prefix of length 0, in a list that allows: no other prefix has the source.
pub const UNLISTED: u32 = 3;

/// The key of the map `rates`: a source of new connections to a service.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct SourceKey {
    /// [`Service::seed`](crate::service::Service), which is the same for as long as the service has
    /// its address and port.
    pub service: u64,
    /// The source's address with the mask applied.
    pub source: Address,
}

/// When a source will have paid for what it opened so far, after one more connection now; nothing
/// where it may not open one. All in nanoseconds, of one clock.
///
/// This is the token bucket turned round (the "virtual scheduling" of ITU-T I.371, also known as
/// GCRA): instead of tokens and the time when they were counted, one time says both.
#[inline(always)]
pub const fn admit(paid_at_ns: u64, now_ns: u64, protection: &Protection) -> Option<u64> {
    let from_ns = if paid_at_ns > now_ns { paid_at_ns } else { now_ns };
    let until_ns = from_ns.wrapping_add(protection.interval_ns);
    if until_ns.wrapping_sub(now_ns) <= protection.allowance_ns { Some(until_ns) } else { None }
}

const _: () = assert!(size_of::<Protection>() == 64);
const _: () = assert!(size_of::<PrefixKey>() == 20);
const _: () = assert!(size_of::<SourceKey>() == 24);

#[cfg(test)]
mod tests {
    use super::*;

    const TEN_A_SECOND: Protection =
        Protection { interval_ns: 100_000_000, allowance_ns: 300_000_000, ..Protection::NONE };

    /// How many of so many tries, one each `every_ns`, are admitted.
    fn admitted(protection: &Protection, tries: u64, every_ns: u64) -> u64 {
        let (mut paid_at_ns, mut count) = (0, 0);
        for number in 0..tries {
            let now_ns = 1_000_000_000 + number * every_ns;
            if let Some(until_ns) = admit(paid_at_ns, now_ns, protection) {
                (paid_at_ns, count) = (until_ns, count + 1);
            }
        }
        count
    }

    #[test]
    fn a_burst_is_admitted_at_once_and_no_more() {
        assert_eq!(admitted(&TEN_A_SECOND, 100, 0), 3);
    }

    #[test]
    fn after_a_burst_the_rate_holds() {
        // 10 s: a hundred, and the burst.
        assert_eq!(admitted(&TEN_A_SECOND, 10_000, 1_000_000), 102);
        // Slower than the rate, everything is.
        assert_eq!(admitted(&TEN_A_SECOND, 100, 100_000_000), 100);
    }

    #[test]
    fn a_refused_try_costs_nothing() {
        let full_ns = 1_300_000_000;
        assert_eq!(admit(full_ns, 1_000_000_000, &TEN_A_SECOND), None);
        assert_eq!(admit(full_ns, 1_100_000_000, &TEN_A_SECOND), Some(1_400_000_000));
    }
}
