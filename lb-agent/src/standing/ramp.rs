//! Slow start: a backend that begins to get new clients takes more and more of those that are meant for it. Pure.

use std::time::{Duration, Instant};

use lb_common::backend::RELUCTANT;

/// It takes more so many times, unless steps would be too short or too long then.
const STEPS: u32 = 50;
const SHORTEST_STEP: Duration = Duration::from_millis(100);
const LONGEST_STEP: Duration = Duration::from_secs(5);

/// A backend that starts slowly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ramp {
    began: Instant,
    lasts: Duration,
}

impl Ramp {
    /// The ramp of a backend that is cold or not, and gets new clients from now on or not. It takes all after
    /// `lasts`; where that is zero at once.
    pub fn after(
        known: Option<Self>,
        (cold, accepts): (bool, bool),
        lasts: Duration,
        now: Instant,
    ) -> Option<Self> {
        let ramp = match known {
            _ if !accepts => return None,
            Some(known) => Self { lasts, ..known },
            None if !cold => return None,
            None => Self { began: now, lasts },
        };
        (ramp.reluctance(now) > 0).then_some(ramp)
    }

    /// One that had come to this reluctance when another agent left it.
    pub fn resumed(reluctance: u32, lasts: Duration, now: Instant) -> Option<Self> {
        let taken = 1.0 - f64::from(reluctance.min(RELUCTANT)) / f64::from(RELUCTANT);
        let began = now.checked_sub(lasts.mul_f64(taken))?;
        (reluctance > 0 && !lasts.is_zero()).then_some(Self { began, lasts })
    }

    /// How reluctant the backend is until the next step: from [`RELUCTANT`] down to 0, when it is over.
    pub fn reluctance(&self, now: Instant) -> u32 {
        // As if the step were done already: with the first one it takes some.
        let passed = now.saturating_duration_since(self.began) + self.step();
        let left = self.lasts.saturating_sub(passed);
        if left.is_zero() {
            return 0;
        }
        // At most `RELUCTANT`, since no more can be left than all.
        (left.as_secs_f64() / self.lasts.as_secs_f64() * f64::from(RELUCTANT)).ceil() as u32
    }

    /// After this it takes more.
    pub fn step(&self) -> Duration {
        (self.lasts / STEPS).clamp(SHORTEST_STEP, LONGEST_STEP)
    }

    /// Until it takes all.
    pub fn left(&self, now: Instant) -> Duration {
        self.lasts.saturating_sub(now.saturating_duration_since(self.began))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LASTS: Duration = Duration::from_secs(30);

    #[test]
    fn it_begins_with_the_first_new_clients_of_a_cold_one() {
        let now = Instant::now();
        let after = |known, change| Ramp::after(known, change, LASTS, now);
        let ramp = after(None, (true, true));
        assert!(ramp.is_some());
        assert_eq!(after(None, (false, true)), None);
        assert_eq!(after(None, (true, false)), None);
        assert_eq!(after(ramp, (false, true)), ramp);
        assert_eq!(after(ramp, (false, false)), None, "down again");
        assert_eq!(Ramp::after(None, (true, true), Duration::ZERO, now), None);
    }

    #[test]
    fn it_takes_half_after_half_the_time_and_all_at_the_end() {
        let now = Instant::now();
        let ramp = Ramp::after(None, (true, true), LASTS, now).unwrap();
        assert_eq!(ramp.step(), Duration::from_millis(600));
        let taken = |seconds| {
            let reluctance = ramp.reluctance(now + Duration::from_secs_f64(seconds));
            1.0 - f64::from(reluctance) / f64::from(RELUCTANT)
        };
        for (seconds, expected) in [(0.0, 0.02), (14.4, 0.5), (29.0, 0.9866), (29.4, 1.0)] {
            assert!((taken(seconds) - expected).abs() < 0.001, "{seconds}: {}", taken(seconds));
        }
        let over = Ramp::after(Some(ramp), (false, true), LASTS, now + LASTS);
        assert_eq!(over, None);
    }

    #[test]
    fn another_duration_holds_at_once() {
        let now = Instant::now();
        let ramp = Ramp::after(None, (true, true), LASTS, now);
        let later = now + Duration::from_secs(10);
        let longer = Ramp::after(ramp, (false, true), LASTS * 2, later).unwrap();
        assert_eq!(longer.left(later), Duration::from_secs(50));
        assert_eq!(Ramp::after(ramp, (false, true), Duration::from_secs(5), later), None);
    }

    proptest! {
        #[test]
        fn it_never_takes_less_than_before_and_never_nothing(
            lasts in 1u64..4_000_000,
            mut at in prop::collection::vec(0u64..4_000_000, 2..20),
        ) {
            let (now, lasts) = (Instant::now(), Duration::from_millis(lasts));
            at.sort_unstable();
            if let Some(ramp) = Ramp::after(None, (true, true), lasts, now) {
                let of = |ms: &u64| ramp.reluctance(now + Duration::from_millis(*ms));
                let reluctances: Vec<u32> = at.iter().map(of).collect();
                prop_assert!(reluctances.is_sorted_by(|before, after| before >= after));
                prop_assert!(reluctances.iter().all(|reluctance| *reluctance < RELUCTANT));
            }
        }

        #[test]
        fn one_that_is_resumed_goes_on_where_it_was(reluctance in 1..=RELUCTANT) {
            let now = Instant::now();
            // Instants reach back as far as the machine runs.
            prop_assume!(now.checked_sub(LASTS).is_some());
            let ramp = Ramp::resumed(reluctance, LASTS, now).unwrap();
            let step = (f64::from(RELUCTANT) / f64::from(STEPS)).ceil() as u32;
            let goes_on = ramp.reluctance(now);
            prop_assert!(goes_on <= reluctance && goes_on + step + 1 >= reluctance);
        }
    }
}
