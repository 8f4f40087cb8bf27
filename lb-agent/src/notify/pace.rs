//! When a failed delivery is tried again. Pure: chance is an argument.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(500);
/// A hook that is mended is served within a minute.
const LONGEST: Duration = Duration::from_secs(60);

/// The pause after so many failures in a row, at least 1: twice as long each time, up to a minute,
/// of which by chance, 0 up to 1, up to a half is left out. Nodes that failed together at one
/// receiver do not come again together.
pub(super) fn pause(failures: u32, chance: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let whole = FIRST.saturating_mul(1 << doublings).min(LONGEST);
    whole.mul_f64(1.0 - chance.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute() {
        let ms = |failures| pause(failures, 0.0).as_millis();
        assert_eq!([ms(1), ms(2), ms(3), ms(7)], [500, 1000, 2000, 32_000]);
        assert_eq!([ms(8), ms(9), ms(u32::MAX)], [60_000; 3]);
    }

    proptest! {
        #[test]
        fn a_pause_is_at_least_half_of_what_it_would_be(failures: u32, chance in 0.0..1.0f64) {
            let (whole, shortened) = (pause(failures, 0.0), pause(failures, chance));
            prop_assert!(shortened <= whole && shortened * 2 >= whole);
            prop_assert!(!shortened.is_zero());
        }
    }
}
