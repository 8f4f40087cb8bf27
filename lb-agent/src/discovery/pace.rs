//! When to ask again. Pure: the jitter is drawn from a hash, so that it is the same in every run.

use std::time::Duration;

use lb_common::hash::mix;

/// After the first failure, and after many.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(30);

/// How much longer a pause may be than it is meant, as a share of it: nodes that were started together do not ask
/// together for ever. Never shorter, for an answer is good for all of its time.
const JITTER: f64 = 0.1;

/// From an answer that is good for `ttl` to the next question.
pub(super) fn after_answer(ttl: Duration, least: Duration, most: Duration, draw: u64) -> Duration {
    stretched(ttl.clamp(least, most.max(least)), draw)
}

/// From the failure numbered `failures` in a row, from 1, to the next attempt. A source that is asked often when all
/// is well may be asked as often when it is not: `first` bounds the first pauses from above.
pub(super) fn after_failure(failures: u32, first: Duration, draw: u64) -> Duration {
    let first = RETRY_FIRST.min(first);
    let doubled = 2u32.saturating_pow(failures.saturating_sub(1).min(16));
    stretched(first.saturating_mul(doubled).min(RETRY_LAST), draw)
}

fn stretched(pause: Duration, draw: u64) -> Duration {
    // A hash as a number from 0 up to, not including, 1.
    let fraction = (mix(draw) >> 11) as f64 / (1u64 << 53) as f64;
    pause.mul_f64(1.0 + JITTER * fraction)
}
