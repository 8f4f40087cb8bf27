//! What a table inherits from the one before it: the owners of connections that live on.
//!
//! Only for sets larger than [`RANKS`]: smaller ones rank every backend in every bucket, so
//! nobody can be lost. Carried backends stand behind the ranks of the contract, where they are
//! asked for a segment that nobody before them owned.

use std::collections::HashMap;

use lb_common::bucket::{Bucket, NONE, RANKS};

use super::{Member, Table, ranked};

/// The table before, as it was built or as it was read back from the maps.
#[derive(Clone, Copy, Debug)]
pub struct Former<'a> {
    /// In the order that the ranks of `buckets` refer to.
    pub members: &'a [Member],
    pub buckets: &'a [Bucket],
}

impl Table {
    /// This table as the former one of its successor.
    pub fn as_former(&self) -> Former<'_> {
        Former { members: self.members(), buckets: &self.buckets }
    }

    /// Appends to each bucket the former ones of the same clients, as far as they are still in
    /// the set, not yet ranked, and there is room: first the former owners, then the former next
    /// ranks (among them what was carried before). The two tables may differ in size. Returns the
    /// number of buckets that were changed.
    pub fn carry(&mut self, former: Former<'_>) -> usize {
        if self.members().len() <= RANKS || former.buckets.is_empty() {
            return 0;
        }
        let indexes = self.indexes_of(former.members);
        let slots = self.buckets.len();
        let mut changed = 0;
        for (slot, bucket) in self.buckets.iter_mut().enumerate() {
            let mut used = ranked(bucket).len();
            let before = used;
            let overlapping = &former.buckets[overlap(slot, slots, former.buckets.len())];
            let candidates =
                (0..RANKS).flat_map(|rank| overlapping.iter().map(move |b| b.ranks[rank]));
            for candidate in candidates {
                // NONE and the ranks of a member that left have no index.
                let Some(&index) = indexes.get(usize::from(candidate)) else { continue };
                if used == RANKS {
                    break;
                }
                if index != NONE && !bucket.ranks[..used].contains(&index) {
                    bucket.ranks[used] = index;
                    used += 1;
                }
            }
            changed += usize::from(used > before);
        }
        changed
    }

    /// For each former member its index here, or [`NONE`].
    fn indexes_of(&self, former: &[Member]) -> Vec<u16> {
        let here: HashMap<_, u16> =
            self.members().iter().map(|m| (m.address, m.port_be)).zip(0..).collect();
        former.iter().map(|m| here.get(&(m.address, m.port_be)).copied().unwrap_or(NONE)).collect()
    }
}

/// The slots among `former` that hold the clients of `slot` among `slots`: a client's slot is its
/// hash scaled to the table ([`slot`](lb_common::bucket::slot)), so they are neighbours.
fn overlap(slot: usize, slots: usize, former: usize) -> std::ops::Range<usize> {
    slot * former / slots..((slot + 1) * former).div_ceil(slots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_s_former_slot_is_among_those_that_overlap_its_new_one() {
        for (slots, former) in [(1021, 4093), (4093, 1021), (65537, 1021), (1021, 1021)] {
            for hash in (0..200_000_u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
                let new = lb_common::bucket::slot(hash, slots) as usize;
                let old = lb_common::bucket::slot(hash, former) as usize;
                let range = overlap(new, slots as usize, former as usize);
                assert!(range.contains(&old), "{hash:#x}: {old} not in {range:?}");
                assert!(range.end <= former as usize);
            }
        }
    }
}
