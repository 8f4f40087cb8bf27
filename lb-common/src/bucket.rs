//! A bucket of a service's table: backends in the order in which they are tried.

/// How many backends a bucket ranks at most.
///
/// Eight cover every member of a usual cluster, so that no change of the set can lose the owner
/// of a connection; 16 bytes a bucket keep four buckets to a cache line.
pub const RANKS: usize = 8;

/// No backend at this rank, nor at any later one.
pub const NONE: u16 = u16::MAX;

/// The value of a service's table, at the slot that the client's hash selects.
///
/// Ranks hold indexes relative to [`Service::backends`](crate::service::Service).
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bucket {
    pub ranks: [u16; RANKS],
}

impl Bucket {
    pub const EMPTY: Self = Self { ranks: [NONE; RANKS] };
}

/// The slot of a hash in a table of `slots` (multiply and shift instead of a division: Lemire,
/// "Fast random integer generation in an interval", 2019).
#[inline(always)]
pub const fn slot(hash: u64, slots: u32) -> u32 {
    (((hash >> 32) * slots as u64) >> 32) as u32
}

/// The chance of a hash's client, below [`RELUCTANT`](crate::backend::RELUCTANT): those with a small one are the
/// last to come to a backend that starts slowly. No bit of it is among those that decide on the slot.
#[inline(always)]
pub const fn chance(hash: u64) -> u32 {
    hash as u32 & 0xffff
}

const _: () = assert!(size_of::<Bucket>() == 16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_always_inside_the_table() {
        for slots in [1, 3, 1021, 65537] {
            assert_eq!(slot(0, slots), 0);
            assert_eq!(slot(u64::MAX, slots), slots - 1);
        }
    }
}
