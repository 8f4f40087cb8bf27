//! New connections that came to nothing, as the programs count them for each backend, and the SYNs that are
//! remembered to know one that comes again.

use crate::flow::FlowKey;
use crate::hash::mix;
use crate::layout::size::SYNS;

/// The value of the per-CPU map `failures`, by the same index as `backends`.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BackendFailures {
    /// SYNs that it refused: no listener on this node, or a reset through NAT.
    pub refused: u64,
    /// SYNs that came again since nobody had answered them.
    pub unanswered: u64,
    /// Failures that the agent should have been told of, and the bell was full.
    pub untold: u64,
    /// When the agent was last told (`CLOCK_MONOTONIC`, nanoseconds).
    pub told_ns: u64,
}

/// How often at most the agent is told of one backend, by each CPU. Whoever is told reads the counters again
/// after this time and a step of the coarse clock.
pub const TELL_EVERY_NS: u64 = 20_000_000;

impl BackendFailures {
    /// Whether the agent is to be told of another failure now.
    #[inline(always)]
    pub const fn is_due(&self, now_ns: u64) -> bool {
        now_ns.wrapping_sub(self.told_ns) >= TELL_EVERY_NS
    }
}

/// A step of the times that are kept with SYNs, as a power of two of nanoseconds: 67 ms.
pub const STEP: u32 = 26;
/// The bits of a word in `syns` that are the time, in these steps.
pub const TIME_MASK: u64 = 0xffff;
const COUNTED: u64 = 1 << 16;
/// Above them are the bits of the hash that must agree.
const HASH: u32 = 17;

/// A SYN that comes again after less is a frame that something on the way doubled. No client waits for less than a
/// second (RFC 6298, 2.1), some of which the steps take.
const AGAIN_FROM: u64 = 500_000_000 >> STEP;
/// One that comes after more begins anew: sixty-four seconds, the longest pause of Linux.
const AGAIN_UNTIL: u64 = 65_000_000_000 >> STEP;

/// What tells a SYN from all others: who sent it, its number, and the backend that it was sent to. Not keyed: who
/// makes two that agree gains what it gains by sending one of them twice.
#[inline(always)]
pub const fn syn_hash(flow: &FlowKey, sequence_be: u32, backend: u32) -> u64 {
    let w = &flow.source.words;
    let address = (w[2] as u64 | (w[3] as u64) << 32) ^ (w[0] as u64 | (w[1] as u64) << 32);
    let which = sequence_be as u64 | (flow.source_port_be as u64) << 32;
    let place = (backend as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mix(mix(address.wrapping_add(place)) ^ which)
}

/// What stands where the SYN of this hash belongs becomes this, if anything else, and whether nobody answered its
/// first one. Of a try that is told once.
#[inline(always)]
pub const fn note_syn(stored: u64, hash: u64, now_ns: u64) -> (Option<u64>, bool) {
    let now = (now_ns >> STEP) & TIME_MASK;
    let age = now.wrapping_sub(stored) & TIME_MASK;
    if (stored ^ hash) >> HASH != 0 || age > AGAIN_UNTIL {
        return (Some((hash >> HASH) << HASH | now), false);
    }
    if age < AGAIN_FROM || stored & COUNTED != 0 {
        return (None, false);
    }
    (Some(stored | COUNTED), true)
}

/// Where a SYN of this hash stands in the map `syns`.
#[inline(always)]
pub const fn syn_place(hash: u64) -> u32 {
    hash as u32 & (SYNS as u32 - 1)
}

const _: () = assert!(size_of::<BackendFailures>() == 32);
const _: () = assert!(SYNS.is_power_of_two() && SYNS <= 1 << HASH);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Address;

    const SECOND_NS: u64 = 1_000_000_000;
    const NOW_NS: u64 = 987_654 * SECOND_NS;

    fn flow(last: u32, port: u16) -> FlowKey {
        FlowKey {
            source: Address { words: [0, 0, u32::from_ne_bytes([0, 0, 0xff, 0xff]), last] },
            destination: Address::UNSPECIFIED,
            source_port_be: port,
            destination_port_be: 1,
            protocol: 6,
            padding: [0; 3],
        }
    }

    /// Of SYNs with this hash at these times: which were told to be unanswered.
    fn told<const N: usize>(hash: u64, times_ms: [u64; N]) -> [bool; N] {
        let mut stored = 0;
        times_ms.map(|ms| {
            let (next, again) = note_syn(stored, hash, NOW_NS + ms * 1_000_000);
            stored = next.unwrap_or(stored);
            again
        })
    }

    #[test]
    fn a_syn_that_comes_again_is_told_once_for_each_try() {
        let hash = syn_hash(&flow(1, 2), 3, 4);
        assert_eq!(told(hash, [0, 1000, 3000, 7000, 15_000]), [false, true, false, false, false]);
    }

    #[test]
    fn a_doubled_frame_is_no_second_try() {
        let hash = syn_hash(&flow(1, 2), 3, 4);
        assert_eq!(told(hash, [0, 0, 1, 400, 1000]), [false, false, false, false, true]);
    }

    #[test]
    fn after_the_longest_pause_it_is_another_try() {
        let hash = syn_hash(&flow(1, 2), 3, 4);
        assert_eq!(told(hash, [0, 70_000, 71_000]), [false, false, true]);
    }

    #[test]
    fn the_times_turn_over() {
        let hash = syn_hash(&flow(1, 2), 3, 4);
        let turn_ns = (TIME_MASK + 1) << STEP;
        let (stored, _) = note_syn(0, hash, turn_ns - SECOND_NS / 2);
        assert!(note_syn(stored.expect("noted"), hash, turn_ns + SECOND_NS / 2).1);
    }

    #[test]
    fn whoever_differs_in_anything_is_another() {
        let all = [
            syn_hash(&flow(1, 2), 3, 4),
            syn_hash(&flow(2, 2), 3, 4),
            syn_hash(&flow(1, 3), 3, 4),
            syn_hash(&flow(1, 2), 4, 4),
            syn_hash(&flow(1, 2), 3, 5),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(all[..at].iter().all(|other| (one ^ other) >> HASH != 0), "{at}");
        }
    }

    #[test]
    fn of_a_burst_the_agent_is_told_once_each_twenty_milliseconds() {
        let mut failures = BackendFailures::default();
        let told = (0..1000u64).filter(|ms| {
            let now_ns = NOW_NS + ms * 1_000_000;
            let due = failures.is_due(now_ns);
            if due {
                failures.told_ns = now_ns;
            }
            due
        });
        assert_eq!(told.count(), 50);
    }
}
