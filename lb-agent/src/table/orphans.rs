//! Buckets none of whose ranked backends accepts, which happens in large sets when many are down.

use lb_common::bucket::{Bucket, RANKS};
use lb_common::permutation::{Inverse, Permutation};

use super::build::effective_weights;
use super::{Table, ranked};

impl Table {
    /// The buckets that need a backend beyond their ranks, each with it in place: the one that
    /// would be ranked next if only accepting ones were counted, behind the others, or in place
    /// of the last one where all ranks are in use. `accepting` is in the order of
    /// [`members`](Self::members).
    ///
    /// To be asked for again, on the table as it was built, whenever `accepting` changes; a slot
    /// that is no longer among them gets its own bucket back. Empty where nobody accepts at all.
    pub fn orphans(&self, accepting: &[bool]) -> Vec<(u32, Bucket)> {
        let accepts = |index: usize| accepting.get(index).copied().unwrap_or(false);
        let candidates = Candidate::all(self, accepts);
        if candidates.is_empty() {
            return Vec::new();
        }
        let orphaned = (0..)
            .zip(&self.buckets)
            .filter(|(_, bucket)| !ranked(bucket).iter().any(|&index| accepts(usize::from(index))));
        orphaned
            .map(|(slot, bucket)| {
                let next = candidates.iter().min_by_key(|c| (c.round(slot), c.index));
                let mut patched = *bucket;
                if let Some(next) = next {
                    patched.ranks[ranked(bucket).len().min(RANKS - 1)] = next.index;
                }
                (slot, patched)
            })
            .collect()
    }
}

/// An accepting backend and when it comes to a slot.
struct Candidate {
    index: u16,
    walk: Inverse,
    weight: u64,
    /// The largest weight of the set.
    turn: u64,
}

impl Candidate {
    /// The accepting ones with a weight, or, where there are none, those without.
    fn all(table: &Table, accepts: impl Fn(usize) -> bool) -> Vec<Self> {
        let weights = effective_weights(table.members());
        let turn = u64::from(weights.iter().copied().max().unwrap_or(1));
        let accepting = || {
            (0..).zip(table.members()).zip(&weights).filter(|((i, _), _)| accepts(usize::from(*i)))
        };
        let with_weight = accepting().any(|(_, &weight)| weight > 0);
        accepting()
            .filter(|(_, weight)| !with_weight || **weight > 0)
            .map(|((index, _), &weight)| Self {
                index,
                walk: Permutation::new(
                    table.outline.identities[usize::from(index)],
                    table.slots().number(),
                )
                .inverse(),
                weight: if with_weight { weight.into() } else { turn },
                turn,
            })
            .collect()
    }

    /// The round of the population in which it visits the slot.
    fn round(&self, slot: u32) -> u64 {
        ((u64::from(self.walk.position(slot)) + 1) * self.turn).div_ceil(self.weight)
    }
}
