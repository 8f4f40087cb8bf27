//! Numbers that a seed determines. Not for secrecy, and not for statistics.

use std::time::Duration;

use lb_common::hash::mix;

/// The golden ratio as a fraction of 2^64: neighbouring seeds and counts are far apart (SplitMix).
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

pub(crate) struct Random {
    base: u64,
    drawn: u64,
}

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self { base: mix(seed.wrapping_add(GOLDEN)), drawn: 0 }
    }

    fn draw(&mut self) -> u64 {
        self.drawn += 1;
        mix(self.base.wrapping_add(self.drawn.wrapping_mul(GOLDEN)))
    }

    /// 0 to `limit - 1`; 0 where `limit` is.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        let scaled = u128::from(self.draw()) * limit as u128;
        (scaled >> 64) as usize
    }

    pub(crate) fn between(&mut self, least: u8, most: u8) -> u8 {
        least + self.below(usize::from(most - least) + 1) as u8
    }

    pub(crate) fn chance(&mut self, percent: u8) -> bool {
        percent > 0 && self.below(100) < usize::from(percent)
    }

    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// From nothing to `most`, both included.
    pub(crate) fn time(&mut self, most: Duration) -> Duration {
        let most_ns = most.as_nanos() as usize;
        Duration::from_nanos(self.below(most_ns + 1) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_determines_the_numbers_and_its_neighbour_has_others() {
        let draw = |seed| {
            let mut random = Random::new(seed);
            std::array::from_fn::<_, 8, _>(|_| random.below(1000))
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn numbers_stay_in_their_range_and_reach_its_ends() {
        let mut random = Random::new(3);
        let drawn: Vec<_> = (0..200).map(|_| random.between(7, 9)).collect();
        assert!([7, 8, 9].iter().all(|number| drawn.contains(number)));
        assert!(drawn.iter().all(|number| (7..=9).contains(number)));
    }
}
