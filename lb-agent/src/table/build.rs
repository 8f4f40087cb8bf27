//! Population: every backend walks the slots in its own order, in turns by weight, and takes the
//! lowest rank that a slot has left and that it may take.
//!
//! It differs from Maglev (NSDI 2016, listing 1) in one thing: a turn that meets a taken slot is
//! lost, where Maglev's goes on until it finds a free one, and a quota keeps the balance instead.
//! Who comes first in a slot then hardly depends on who else is there, which is what makes a
//! change of the set cheap.

use lb_common::bucket::{Bucket, RANKS};
use lb_common::hash::mix;
use lb_common::permutation::Permutation;

use super::{Member, RANKS_OF_LARGE_SETS, Slots};

/// The table of `members`, which stand in canonical order without duplicates.
pub(super) fn populate(identities: &[u64], members: &[Member], slots: Slots) -> Vec<Bucket> {
    let ranks = ranks_of(members.len());
    let weights = effective_weights(members);
    let weighted = weights.iter().filter(|&&w| w > 0).count();

    let mut filling = Filling::new(slots, weighted.min(ranks));
    let mut walkers = Vec::with_capacity(members.len());
    for (index, quota) in quotas(identities, &weights, slots).into_iter().enumerate() {
        if weights[index] > 0 {
            let walk = Permutation::new(identities[index], slots.number());
            walkers.push(Walker::new(index, walk, weights[index], quota, slots));
        }
    }
    filling.run(walkers);

    filling.extend(ranks);
    let unweighted = (0..members.len()).filter(|&index| weights[index] == 0).map(|index| {
        let walk = Permutation::new(identities[index], slots.number());
        Walker::new(index, walk, 1, 0, slots)
    });
    filling.run(unweighted.collect());
    filling.buckets
}

/// How many ranks each bucket of a set of this size gets.
pub(super) fn ranks_of(members: usize) -> usize {
    if members <= RANKS { members } else { RANKS_OF_LARGE_SETS }
}

/// The weights as configured, or 1 for each where all are 0: a service none of whose backends may
/// come first would serve nobody, which nobody means by it.
pub(super) fn effective_weights(members: &[Member]) -> Vec<u16> {
    if members.iter().all(|m| m.weight == 0) {
        return vec![1; members.len()];
    }
    members.iter().map(|m| m.weight).collect()
}

/// How many slots each backend may own at most: its share of all slots and of an allowance, as
/// whole numbers.
///
/// The allowance is what lets a backend leave without setting off a chain of moves among those
/// that stay: nearly nothing for a few backends, up to 1.5 times the square root of the mean for
/// many. With no allowance the balance is exact, and a backend that leaves moves up to four times
/// its share (docs/decisions/0002-tables.md).
fn quotas(identities: &[u64], weights: &[u16], slots: Slots) -> Vec<u32> {
    let count = weights.iter().filter(|&&w| w > 0).count() as u64;
    let total: u64 = weights.iter().map(|&w| u64::from(w)).sum();
    if total == 0 {
        return Vec::new();
    }
    let slots = u64::from(slots.number());
    let sum = slots + (count * slots).isqrt() * 3 * count / (2 * (count + 40));

    let due = |index: usize| sum * u64::from(weights[index]);
    let mut quotas: Vec<u32> = (0..weights.len())
        .map(|index| u32::try_from(due(index) / total).unwrap_or(u32::MAX))
        .collect();
    let given: u64 = quotas.iter().map(|&q| u64::from(q)).sum();

    // What rounding down left over goes to the largest remainders, each less a hashed fraction:
    // equal remainders are then told apart by the backend alone, and a small change of all
    // remainders changes few quotas.
    let mut order: Vec<usize> = (0..weights.len()).filter(|&index| weights[index] > 0).collect();
    order.sort_by_key(|&index| {
        let fraction = ((mix(identities[index]) >> 32) * total) >> 32;
        // Both are below `total`, which is below 2^32.
        std::cmp::Reverse((due(index) % total).cast_signed() - fraction.cast_signed())
    });
    for &index in order.iter().take(usize::try_from(sum - given).unwrap_or(usize::MAX)) {
        quotas[index] += 1;
    }
    // However small its weight, a backend of some weight is used.
    for &index in &order {
        quotas[index] = quotas[index].max(1);
    }
    quotas
}

/// A backend on its way through the slots.
struct Walker {
    walk: Permutation,
    weight: u32,
    /// Turns gathered, in units of the largest weight.
    gathered: u32,
    /// Positions not yet visited.
    left: u32,
    /// Slots that it may still own.
    quota: u32,
    index: u16,
}

impl Walker {
    fn new(index: usize, walk: Permutation, weight: u16, quota: u32, slots: Slots) -> Self {
        let index = u16::try_from(index).expect("a set has fewer members than NONE");
        Self { walk, weight: weight.into(), gathered: 0, left: slots.number(), quota, index }
    }
}

/// Marks in [`Filling::state`] that a slot has its first rank.
const OWNED: u8 = 0x80;

/// The buckets while they are being filled.
struct Filling {
    buckets: Vec<Bucket>,
    /// For each slot the next rank below the first to fill, and [`OWNED`]. Apart from the
    /// buckets, because most visits find nothing to do, and this much stays in the cache.
    state: Vec<u8>,
    /// Ranks to fill in each bucket, the first included.
    ranks: u8,
    /// Ranks not yet filled, over all buckets.
    missing: usize,
}

impl Filling {
    fn new(slots: Slots, ranks: usize) -> Self {
        let slots = slots.number() as usize;
        let mut filling = Self {
            buckets: vec![Bucket::EMPTY; slots],
            state: vec![1; slots],
            ranks: 0,
            missing: 0,
        };
        filling.extend(ranks);
        filling
    }

    /// Goes on to more ranks once the present ones are filled.
    fn extend(&mut self, ranks: usize) {
        self.missing += self.buckets.len() * (ranks - usize::from(self.ranks));
        self.ranks = u8::try_from(ranks).expect("a bucket has at most RANKS of them");
    }

    /// Lets the walkers take turns until every rank is filled. In each round a walker gathers its
    /// weight, and for the largest weight gathered takes one turn.
    ///
    /// Ends: each walker visits each slot once. A first rank stays empty only if every walker
    /// that passed had used up its quota, but the quotas add up to the slots at least.
    fn run(&mut self, mut walkers: Vec<Walker>) {
        let turn = walkers.iter().map(|w| w.weight).max().unwrap_or(1);
        while self.missing > 0 && !walkers.is_empty() {
            let mut moved = false;
            let mut finished = false;
            for walker in &mut walkers {
                walker.gathered += walker.weight;
                if walker.gathered >= turn {
                    walker.gathered -= turn;
                    walker.left -= 1;
                    moved = true;
                    finished |= walker.left == 0;
                    self.visit(walker);
                }
            }
            if finished {
                walkers.retain(|w| w.left > 0);
            }
            if !moved {
                skip_idle_rounds(&mut walkers, turn);
            }
        }
    }

    #[inline]
    fn visit(&mut self, walker: &mut Walker) {
        let slot = walker.walk.advance() as usize;
        let state = self.state[slot];
        if state < OWNED && walker.quota > 0 {
            self.state[slot] = state | OWNED;
            self.buckets[slot].ranks[0] = walker.index;
            walker.quota -= 1;
            self.missing -= 1;
        } else if state & !OWNED < self.ranks {
            self.state[slot] = state + 1;
            self.buckets[slot].ranks[usize::from(state & !OWNED)] = walker.index;
            self.missing -= 1;
        }
    }
}

/// Once the heaviest have seen every slot, most rounds would only gather: do those in one step.
fn skip_idle_rounds(walkers: &mut [Walker], turn: u32) {
    let until_next = |w: &Walker| (turn - w.gathered).div_ceil(w.weight);
    let idle = walkers.iter().map(until_next).min().unwrap_or(1) - 1;
    for walker in walkers {
        walker.gathered += idle * walker.weight;
    }
}
