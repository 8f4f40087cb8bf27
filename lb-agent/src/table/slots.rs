//! How many slots a table has: a prime, given or chosen from the number of backends.

use std::fmt;

/// The sizes that are chosen from: primes about a factor of four apart, so that a set must grow
/// fourfold before its table is laid out anew.
const SIZES: [u32; 6] = [1021, 4093, 16381, 65537, 262_139, 1_048_573];

/// Slots for each backend, on average. 100 keep the largest share within about 15 % of its due.
const SLOTS_PER_MEMBER: u64 = 100;

/// Slots for the backend of the smallest weight: its share is then right to a tenth. Weights
/// alone never ask for more than [`LARGEST_FOR_WEIGHTS`].
const SLOTS_OF_THE_SMALLEST: u64 = 10;
const LARGEST_FOR_WEIGHTS: u64 = 65537;

/// A number of slots that a table can have.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Slots(u32);

/// Why a number is not one of slots. The configuration's fault.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SlotsError {
    #[error("table_size {given} is not a prime; the next one is {next}")]
    NotPrime { given: u32, next: u32 },
    #[error("table_size {given} is not between {} and {}", Slots::SMALLEST, Slots::LARGEST)]
    OutOfRange { given: u32 },
}

impl Slots {
    /// The smallest that a permutation can be made of.
    pub const SMALLEST: u32 = 2;
    /// A table of 64 MiB.
    pub const LARGEST: u32 = 1 << 22;

    /// A size that the configuration gives.
    pub fn new(given: u32) -> Result<Self, SlotsError> {
        if !(Self::SMALLEST..=Self::LARGEST).contains(&given) {
            return Err(SlotsError::OutOfRange { given });
        }
        if !is_prime(given) {
            let mut above = given..=u32::MAX;
            let next = above.find(|&n| is_prime(n)).unwrap_or(given);
            return Err(SlotsError::NotPrime { given, next });
        }
        Ok(Self(given))
    }

    /// The size for backends of these weights where the configuration gives none: the smallest of
    /// 1021, 4093, 16381, 65537, 262139 and 1048573 that leaves 100 slots for each backend, and
    /// 10 for that of the smallest weight (weights alone ask for 65537 at most).
    pub fn for_weights(weights: &[u16]) -> Self {
        let total: u64 = weights.iter().map(|&w| u64::from(w)).sum();
        let smallest = weights.iter().copied().filter(|&w| w > 0).min().unwrap_or(1);
        let by_number = SLOTS_PER_MEMBER * weights.len() as u64;
        let by_weight = (SLOTS_OF_THE_SMALLEST * total).div_ceil(u64::from(smallest));
        let wanted = by_number.max(by_weight.min(LARGEST_FOR_WEIGHTS));
        let enough = SIZES.into_iter().find(|&size| u64::from(size) >= wanted);
        Self(enough.unwrap_or(SIZES[SIZES.len() - 1]))
    }

    pub fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// By trial division: at most 2,000 of them for the largest size.
fn is_prime(n: u32) -> bool {
    n >= 2 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_that_is_chosen_would_also_be_accepted() {
        for size in SIZES {
            assert_eq!(Slots::new(size).map(Slots::number), Ok(size));
        }
    }

    #[test]
    fn a_number_that_is_not_prime_is_refused_with_the_next_prime() {
        assert_eq!(Slots::new(1000), Err(SlotsError::NotPrime { given: 1000, next: 1009 }));
        assert_eq!(
            Slots::new(65536).unwrap_err().to_string(),
            "table_size 65536 is not a prime; the next one is 65537"
        );
    }

    #[test]
    fn too_few_and_too_many_slots_are_refused_with_the_range() {
        for given in [0, 1, 4_194_305, u32::MAX] {
            assert_eq!(Slots::new(given), Err(SlotsError::OutOfRange { given }));
        }
        assert_eq!(
            Slots::new(1).unwrap_err().to_string(),
            "table_size 1 is not between 2 and 4194304"
        );
    }

    #[test]
    fn the_default_leaves_a_hundred_slots_for_each_backend() {
        for (backends, slots) in [
            (0, 1021),
            (3, 1021),
            (10, 1021),
            (11, 4093),
            (163, 16381),
            (164, 65537),
            (1000, 262_139),
            (60_000, 1_048_573),
        ] {
            assert_eq!(Slots::for_weights(&vec![1; backends]).number(), slots, "{backends}");
        }
    }

    #[test]
    fn the_default_leaves_ten_slots_for_the_smallest_weight_within_reason() {
        assert_eq!(Slots::for_weights(&[1, 100]).number(), 1021);
        assert_eq!(Slots::for_weights(&[1, 200]).number(), 4093);
        assert_eq!(Slots::for_weights(&[0, 200]).number(), 1021, "0 asks for nothing");
        assert_eq!(Slots::for_weights(&[1, u16::MAX]).number(), 65537);
    }
}
