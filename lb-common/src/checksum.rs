//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624, equation 3).
//!
//! Values are 16-bit words as they lie in the packet, unswapped: one's-complement addition does
//! not care about byte order (RFC 1071, 2(B)).

/// Folds a sum of words into 16 bits.
#[inline(always)]
pub const fn fold(mut sum: u64) -> u16 {
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// What replacing words changes in a one's-complement sum: the new ones added, the old ones
/// subtracted. Sums of several replacements add up.
#[derive(Clone, Copy, Default, Debug)]
pub struct Difference(u64);

impl Difference {
    pub const ZERO: Self = Self(0);

    #[inline(always)]
    pub const fn word(self, old: u16, new: u16) -> Self {
        Self(self.0 + (!old) as u64 + new as u64)
    }

    #[inline(always)]
    pub const fn long(self, old: u32, new: u32) -> Self {
        Self(self.0 + (!old) as u64 + new as u64)
    }

    /// Both differences.
    #[inline(always)]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// As 32 bits, the form in which the kernel's helpers take a difference.
    #[inline(always)]
    pub const fn folded(self) -> u32 {
        let sum = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        ((sum & 0xffff_ffff) + (sum >> 32)) as u32
    }

    /// The checksum field after the replacements (RFC 1624: HC' = ~(~HC + ~m + m')).
    #[inline(always)]
    pub const fn apply(self, checksum: u16) -> u16 {
        !fold((!checksum) as u64 + self.0)
    }
}

/// The checksum of an IPv4 header whose TTL went down by one (RFC 1141).
#[inline(always)]
pub const fn ttl_decremented(checksum: u16, ttl: u8, protocol: u8) -> u16 {
    ttl_replaced(checksum, ttl, ttl - 1, protocol)
}

/// The checksum of an IPv4 header after its TTL was replaced.
#[inline(always)]
pub const fn ttl_replaced(checksum: u16, old: u8, new: u8, protocol: u8) -> u16 {
    Difference::ZERO
        .word(u16::from_ne_bytes([old, protocol]), u16::from_ne_bytes([new, protocol]))
        .apply(checksum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(bytes: &[u8]) -> u16 {
        let sum = bytes.chunks(2).map(|c| u64::from(u16::from_ne_bytes([c[0], c[1]]))).sum();
        !fold(sum)
    }

    /// The example header of RFC 1071's companion literature: checksum b861.
    const HEADER: [u8; 20] = [
        0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0,
        0xc7,
    ];

    #[test]
    fn a_correct_header_sums_to_zero() {
        assert_eq!(full(&HEADER), 0);
    }

    #[test]
    fn an_incremental_update_equals_a_full_computation() {
        let mut header = HEADER;
        for step in 0..2000u32 {
            let new = step.wrapping_mul(0x9e37_79b1);
            let old = u32::from_ne_bytes([header[12], header[13], header[14], header[15]]);
            let checksum = u16::from_ne_bytes([header[10], header[11]]);
            let updated = Difference::ZERO.long(old, new).apply(checksum);
            header[12..16].copy_from_slice(&new.to_ne_bytes());
            header[10..12].copy_from_slice(&updated.to_ne_bytes());
            assert_eq!(full(&header), 0, "after {new:#x}");
        }
    }

    #[test]
    fn a_ttl_that_goes_down_keeps_the_header_valid() {
        let mut header = HEADER;
        while header[8] > 1 {
            let checksum = u16::from_ne_bytes([header[10], header[11]]);
            let updated = ttl_decremented(checksum, header[8], header[9]);
            header[8] -= 1;
            header[10..12].copy_from_slice(&updated.to_ne_bytes());
            assert_eq!(full(&header), 0, "ttl {}", header[8]);
        }
    }
}
