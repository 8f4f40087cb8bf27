//! The order in which a backend asks for a table's slots. docs/tables.md has the contract.
//!
//! Maglev's walk (NSDI 2016, section 3.4) folded twice. The walk alone is affine, so of two
//! backends with equal skips one follows the other through the whole table: it loses most of its
//! slots to it, and inherits all of them when the other dies. In a table of 1,021 slots that is
//! one pair in a thousand. A fold is one round of the swap-or-not shuffle (Hoang, Morris and
//! Rogaway, CRYPTO 2012): a bijection on any number of slots, its own inverse, and not affine.

use crate::hash::mix;

/// Where a backend's walk and folds come from: `mix(identity ^ FOLDS)` and its `mix`.
const FOLDS: u64 = 0x6c62_2d66_6f6c_6473;

/// Swaps each slot with its mirror image about `centre / 2`, or not, by one hashed bit.
#[derive(Clone, Copy, Debug)]
struct Fold {
    centre: u32,
    multiplier: u64,
}

impl Fold {
    const fn new(key: u64, slots: u32) -> Self {
        Self { centre: scale(key >> 32, slots), multiplier: key | 1 }
    }

    #[inline(always)]
    const fn apply(&self, slot: u32, slots: u32) -> u32 {
        let mirrored = self.centre + slots - slot;
        let mirrored = if mirrored >= slots { mirrored - slots } else { mirrored };
        let upper = if slot > mirrored { slot } else { mirrored };
        // All ones to swap, 0 not to. Written without a branch, which no processor would predict.
        let swap = (((upper as u64).wrapping_mul(self.multiplier) as i64) >> 63) as u32;
        slot ^ ((slot ^ mirrored) & swap)
    }
}

/// The upper or lower half of a hash as a number below `bound`.
const fn scale(half: u64, bound: u32) -> u32 {
    (((half & 0xffff_ffff) * bound as u64) >> 32) as u32
}

/// A permutation of `0..slots`, walked from its first position to its last.
///
/// Position `p` holds `fold2(fold1(offset + p * skip mod slots))`. With `slots` prime and `skip`
/// in `1..slots` it visits each slot once.
#[derive(Clone, Copy, Debug)]
pub struct Permutation {
    next: u32,
    skip: u32,
    slots: u32,
    folds: [Fold; 2],
}

impl Permutation {
    /// From a backend's identity ([`backend_hash`](crate::hash::backend_hash)). `slots` is a
    /// prime below 2^31.
    pub const fn new(identity: u64, slots: u32) -> Self {
        let first = mix(identity ^ FOLDS);
        Self {
            next: scale(identity >> 32, slots),
            skip: scale(identity, slots - 1) + 1,
            slots,
            folds: [Fold::new(first, slots), Fold::new(mix(first), slots)],
        }
    }

    /// The next slot. Cycles after `slots` calls.
    #[inline]
    pub const fn advance(&mut self) -> u32 {
        let walked = self.next;
        // Both are below `slots`, which is below 2^31.
        let next = walked + self.skip;
        self.next = if next >= self.slots { next - self.slots } else { next };
        self.fold(walked)
    }

    const fn fold(&self, walked: u32) -> u32 {
        self.folds[1].apply(self.folds[0].apply(walked, self.slots), self.slots)
    }

    /// From slots to positions, for a permutation that has not advanced.
    pub const fn inverse(self) -> Inverse {
        // Fermat: skip^(slots - 2) inverts skip modulo a prime.
        let modulus = self.slots as u64;
        let (mut result, mut base, mut exponent) =
            (1, self.skip as u64, self.slots.saturating_sub(2));
        while exponent > 0 {
            if exponent & 1 == 1 {
                result = result * base % modulus;
            }
            base = base * base % modulus;
            exponent >>= 1;
        }
        Inverse { permutation: self, skip_inverse: result }
    }
}

/// A [`Permutation`] read backwards.
#[derive(Clone, Copy, Debug)]
pub struct Inverse {
    permutation: Permutation,
    skip_inverse: u64,
}

impl Inverse {
    /// The position at which the permutation visits `slot`.
    pub const fn position(&self, slot: u32) -> u32 {
        let p = &self.permutation;
        let walked = p.folds[0].apply(p.folds[1].apply(slot, p.slots), p.slots);
        let steps = (walked + p.slots - p.next) as u64 % p.slots as u64;
        (steps * self.skip_inverse % p.slots as u64) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::mix;

    #[test]
    fn every_slot_is_visited_once_and_its_position_is_found_again() {
        for (seed, slots) in (0..60).flat_map(|seed| [2, 3, 5, 1021].map(|slots| (seed, slots))) {
            let mut seen = [false; 1021];
            let mut permutation = Permutation::new(mix(seed), slots);
            let inverse = permutation.inverse();
            for position in 0..slots {
                let slot = permutation.advance();
                assert!(!seen[slot as usize], "slot {slot} of {slots} twice for seed {seed}");
                seen[slot as usize] = true;
                assert_eq!(inverse.position(slot), position, "seed {seed}, {slots} slots");
            }
        }
    }

    /// Of these pairs some have equal skips: without folds one of them is first far too often.
    #[test]
    fn no_backend_walks_in_the_shadow_of_another() {
        const SLOTS: u32 = 1021;
        for seed in 0..8000 {
            let one = Permutation::new(mix(2 * seed + 1), SLOTS).inverse();
            let other = Permutation::new(mix(2 * seed + 2), SLOTS).inverse();
            let first = (0..SLOTS).filter(|&s| one.position(s) < other.position(s)).count();
            assert!((306..=715).contains(&first), "seed {seed}: first in {first} of {SLOTS} slots");
        }
    }
}
