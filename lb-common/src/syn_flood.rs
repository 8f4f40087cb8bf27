//! Whether more SYNs come than a node is to take: the one element of the map `syn_flood`.

/// What the programs note of the SYNs that this node would take itself.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SynFlood {
    /// Until when the SYNs so far are paid for, as in [`admit`](crate::protection::admit).
    pub paid_until_ns: u64,
    /// The flood is over at this time (`CLOCK_MONOTONIC`, nanoseconds), unless it goes on.
    pub flooded_until_ns: u64,
}

/// SYNs that may come at once: a tenth of a second's. More than a step of the coarse clock.
pub const SYN_ALLOWANCE_NS: u64 = 100_000_000;

/// How long a flood lasts after the rate was last too high.
pub const FLOOD_HOLD_NS: u64 = 1_000_000_000;

/// How often a SYN is left to a listener in a flood. The kernel takes a cookie only where the listener had
/// to send one itself within the last two minutes (`tcp_synq_no_recent_overflow`).
pub const LEAVE_EVERY_NS: u64 = 100_000_000;

impl SynFlood {
    /// After one more SYN now, of which one each `interval_ns` is not too much: what is to be stored,
    /// where it changed, and whether this is a flood.
    ///
    /// In the first half of the time that a flood lasts nothing is stored: its SYNs come on all CPUs, which
    /// would take the cache line from one another.
    #[inline(always)]
    pub const fn note(self, now_ns: u64, interval_ns: u64) -> (Option<Self>, bool) {
        if self.flooded_until_ns > now_ns.wrapping_add(FLOOD_HOLD_NS / 2) {
            return (None, true);
        }
        let from_ns = if self.paid_until_ns > now_ns { self.paid_until_ns } else { now_ns };
        let until_ns = from_ns.wrapping_add(interval_ns);
        if until_ns.wrapping_sub(now_ns) > SYN_ALLOWANCE_NS {
            let flooded_until_ns = now_ns.wrapping_add(FLOOD_HOLD_NS);
            return (Some(Self { flooded_until_ns, ..self }), true);
        }
        (Some(Self { paid_until_ns: until_ns, ..self }), self.flooded_until_ns > now_ns)
    }
}

const _: () = assert!(size_of::<SynFlood>() == 16);

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    /// Of so many SYNs, one each `every_ns`, with a thousand a second allowed: the first that was one of a
    /// flood, and how many were.
    fn flood(count: u64, every_ns: u64) -> (Option<u64>, u64) {
        let mut state = SynFlood::default();
        let (mut first, mut floods) = (None, 0);
        for number in 0..count {
            let (next, flood) = state.note(5 * SECOND_NS + number * every_ns, 1_000_000);
            state = next.unwrap_or(state);
            if flood {
                first = first.or(Some(number));
                floods += 1;
            }
        }
        (first, floods)
    }

    #[test]
    fn up_to_the_rate_nothing_is_a_flood() {
        assert_eq!(flood(5000, 1_000_000), (None, 0));
        // A tenth of a second's at once.
        assert_eq!(flood(100, 0), (None, 0));
    }

    #[test]
    fn above_the_rate_it_is_one_after_a_tenth_of_a_second() {
        let (first, floods) = flood(5000, 500_000);
        let first = first.expect("a flood");
        assert!((195..=205).contains(&first), "{first}");
        assert_eq!(floods, 5000 - first);
    }

    #[test]
    fn it_ends_a_second_after_the_rate_was_last_too_high() {
        let state = SynFlood { paid_until_ns: 0, flooded_until_ns: 10 * SECOND_NS };
        assert!(state.note(10 * SECOND_NS - 1, 1_000_000).1);
        assert!(!state.note(10 * SECOND_NS, 1_000_000).1);
    }
}
