//! When checks are made. Pure: the same target is checked at the same pace in every run.

use std::net::SocketAddr;
use std::time::Duration;

use lb_common::Address;
use lb_common::hash::{backend_hash, mix};

use super::Target;

/// So many targets may begin in the same instant.
const AT_ONCE: usize = 16;
/// So far apart, on average, do more than these begin, so that a thousand HTTPS handshakes leave the rest of the
/// machine its time.
const APART: Duration = Duration::from_millis(1);
/// How much longer or shorter than the interval a pause may be, as a share of it.
const JITTER: f64 = 0.1;
/// An interval of 0 must not become a busy loop.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);

/// How long the first check of a target waits that begins together with others, `beginners` with
/// itself.
pub(super) fn first_delay(target: &Target, beginners: usize) -> Duration {
    first_delay_of(identity(&target.address), target.schedule.interval, beginners)
}

/// The same of whatever has this identity.
pub(super) fn first_delay_of(identity: u64, interval: Duration, beginners: usize) -> Duration {
    if beginners <= AT_ONCE {
        return Duration::ZERO;
    }
    let spread = APART.saturating_mul(u32::try_from(beginners).unwrap_or(u32::MAX));
    spread.min(interval).mul_f64(fraction(identity))
}

/// From the start of the check numbered `round` to the start of the next: the interval give or
/// take a tenth, so that checks which began together drift apart. Of many that began together (`beginners`, as
/// above) the second checks come at any time within an interval, for drifting so far would take a hundred rounds.
pub(super) fn pause(target: &Target, round: u64, beginners: usize) -> Duration {
    pause_of(identity(&target.address), target.schedule.interval, round, beginners)
}

/// The same of whatever has this identity.
pub(super) fn pause_of(
    identity: u64,
    interval: Duration,
    round: u64,
    beginners: usize,
) -> Duration {
    let drawn = fraction(mix(identity ^ (round + 1)));
    let share = if round == 0 && beginners > AT_ONCE {
        JITTER + drawn
    } else {
        1.0 - JITTER + 2.0 * JITTER * drawn
    };
    interval.mul_f64(share).max(SHORTEST_PAUSE)
}

/// The longest pause there is.
pub(super) fn longest_pause(interval: Duration) -> Duration {
    interval.mul_f64(1.0 + JITTER).max(SHORTEST_PAUSE)
}

pub(super) fn identity(address: &SocketAddr) -> u64 {
    mix(backend_hash(0, &Address::from(address.ip()), address.port().to_be()))
}

/// A hash as a number from 0 up to, not including, 1.
fn fraction(hash: u64) -> f64 {
    (hash >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::config::Check;
    use crate::health::Schedule;

    fn target(n: u32, interval: Duration) -> Target {
        let ip = std::net::Ipv4Addr::from(0x0a00_0000 + n);
        let schedule = Schedule { interval, timeout: interval, rise: 2, fall: 3 };
        Target { address: SocketAddr::from((ip, 6443)), check: Arc::new(Check::Tcp), schedule }
    }

    #[test]
    fn sixteen_targets_begin_at_once() {
        let target = target(1, Duration::from_secs(2));
        assert_eq!(first_delay(&target, 16), Duration::ZERO);
        assert_ne!(first_delay(&target, 17), Duration::ZERO);
    }

    #[test]
    fn a_thousand_targets_begin_evenly_within_a_second() {
        let mut tenths = [0; 10];
        for n in 0..1000 {
            let delay = first_delay(&target(n, Duration::from_secs(2)), 1000);
            tenths[(delay.as_millis() / 100) as usize] += 1;
        }
        assert!(tenths.iter().all(|count| (70..=130).contains(count)), "{tenths:?}");
    }

    #[test]
    fn a_thousand_targets_are_spread_over_the_interval_from_their_second_checks_on() {
        let interval = Duration::from_secs(5);
        let mut slices = [0; 300];
        for n in 0..1000 {
            let target = target(n, interval);
            let mut at = first_delay(&target, 1000);
            for round in 0..4 {
                at += pause(&target, round, 1000);
                slices[(at.as_millis() / 100) as usize] += 1;
            }
        }
        // Before that some wait for their second checks, and after it some are to make a sixth.
        let whole = &slices[16..180];
        assert!(whole.iter().all(|count| (7..=37).contains(count)), "{whole:?}");
    }

    #[test]
    fn targets_begin_within_their_first_interval() {
        let interval = Duration::from_millis(10);
        assert!((0..1000).all(|n| first_delay(&target(n, interval), 1000) < interval));
    }

    #[test]
    fn an_interval_of_zero_pauses_all_the_same() {
        assert_eq!(pause(&target(1, Duration::ZERO), 0, 1), Duration::from_millis(1));
    }

    #[test]
    fn pauses_average_to_the_interval() {
        let target = target(1, Duration::from_secs(2));
        let sum: Duration = (0..1000).map(|round| pause(&target, round, 1)).sum();
        assert!((1_990..2_010).contains(&(sum / 1000).as_millis()), "{sum:?}");
    }

    proptest! {
        #[test]
        fn pauses_are_within_a_tenth_of_the_interval_and_repeatable(
            n in any::<u16>(), round in 0u64..1_000_000, interval_ms in 10u64..3_600_000,
        ) {
            let interval = Duration::from_millis(interval_ms);
            let target = target(n.into(), interval);
            let pause = pause(&target, round, 1);
            prop_assert!(pause >= interval.mul_f64(0.899) && pause <= longest_pause(interval));
            prop_assert_eq!(pause, super::pause(&target.clone(), round, 1));
        }

        #[test]
        fn the_pause_after_the_first_of_many_checks_is_no_longer_than_any_other(
            n in any::<u16>(), interval_ms in 10u64..3_600_000, beginners in 17usize..100_000,
        ) {
            let interval = Duration::from_millis(interval_ms);
            let pause = pause(&target(n.into(), interval), 0, beginners);
            prop_assert!(pause >= interval.mul_f64(0.099) && pause <= longest_pause(interval));
        }
    }
}
