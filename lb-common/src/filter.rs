//! The address filter: one memory access that tells most foreign packets from ours.
//!
//! A packet whose destination misses the filter is certainly not for a VIP. A hit may be false and
//! is settled by the look-up of the service.

use crate::Address;

/// Bits of the filter; with a hundred addresses one foreign address in forty hits.
pub const BITS: u32 = 4096;
/// The filter as the map `address_filter` holds it.
pub const WORDS: usize = (BITS / 64) as usize;

/// The filter's word and the mask of an address' bit in it.
#[inline(always)]
pub const fn position(address: &Address) -> (u32, u64) {
    let w = address.words;
    // Fibonacci hashing; the two zero words of a mapped IPv4 address cost nothing.
    let bit = (w[0] ^ w[1] ^ w[2] ^ w[3]).wrapping_mul(0x9e37_79b1) >> 20;
    (bit / 64, 1 << (bit % 64))
}

/// The value of the one element of the map `address_filter`.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AddressFilter {
    pub words: [u64; WORDS],
}

impl AddressFilter {
    pub const EMPTY: Self = Self { words: [0; WORDS] };

    pub const fn insert(&mut self, address: &Address) {
        let (word, mask) = position(address);
        self.words[word as usize] |= mask;
    }

    #[inline(always)]
    pub const fn may_contain(&self, address: &Address) -> bool {
        let (word, mask) = position(address);
        // The mask of the index is for the verifier; `position` stays below anyway.
        self.words[word as usize & (WORDS - 1)] & mask != 0
    }
}

const _: () = assert!(1 << (32 - 20) == BITS);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_inserted_is_found_and_most_others_are_not() {
        let mut filter = AddressFilter::EMPTY;
        let vip = Address::from_v4([192, 168, 139, 150]);
        filter.insert(&vip);
        assert!(filter.may_contain(&vip));
        let hits = (0..=255u8)
            .filter(|&last| filter.may_contain(&Address::from_v4([10, 0, 0, last])))
            .count();
        assert!(hits <= 2, "{hits} of 256 foreign addresses hit a filter with one address");
    }
}
