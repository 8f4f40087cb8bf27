//! Connections to services that limit how many a source may have at one time: each of them, and how many
//! every source has.
//!
//! Sources are not named. Each is counted in two of many words, which a keyed hash chooses, and has as many
//! connections as the lesser of the two says (a count-min sketch: G. Cormode and S. Muthukrishnan, "An
//! improved data stream summary", 2005). So nothing needs to be made or forgotten for a source, and any
//! number of them is told apart well enough: it takes two others, with many connections each, in just its
//! two words to count for more than it has; never for less.

use crate::Address;
use crate::hash::mix;

/// The value of the map `connections`, by the tuple from the client to the service.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Connection {
    /// Indexes in the map `open`: where it is counted, unless it is [`CLOSED`].
    pub counted: [u32; 2],
    /// When a packet was last seen, to the second: `CLOCK_MONOTONIC`, nanoseconds.
    pub last_seen_ns: u64,
    /// [`OPENING`], [`ESTABLISHED`], [`CLOSED`].
    pub stage: u32,
    /// Zero.
    pub padding: u32,
}

/// One packet was seen.
pub const OPENING: u32 = 0;
/// More were.
pub const ESTABLISHED: u32 = 1;
/// The client's FIN or RST was. It is remembered so that what comes after that begins nothing.
pub const CLOSED: u32 = 2;

/// Words of a row.
pub const COLUMNS: u32 = 1 << 16;

/// Elements of the map `open`: two rows.
pub const OPEN: u32 = 2 * COLUMNS;

/// Where a source's connections to a service are counted. `source` is the address with its mask applied,
/// `key` a number that the clients do not know.
#[inline(always)]
pub const fn counted(key: u64, service_seed: u64, source: &Address) -> [u32; 2] {
    let words = &source.words;
    let hash = mix(key ^ service_seed);
    let hash = mix(hash ^ (words[0] as u64) << 32 ^ words[1] as u64);
    let hash = mix(hash ^ (words[2] as u64) << 32 ^ words[3] as u64);
    [hash as u32 & (COLUMNS - 1), COLUMNS + ((hash >> 32) as u32 & (COLUMNS - 1))]
}

const _: () = assert!(size_of::<Connection>() == 24);

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    #[test]
    fn a_source_has_a_word_in_each_row_and_others_have_others() {
        let mut pairs = std::collections::HashSet::new();
        for last in 0..=255 {
            for service in [1, 2] {
                let [one, other] = counted(7, service, &Address::from_v4([192, 0, 2, last]));
                assert!(one < COLUMNS && (COLUMNS..OPEN).contains(&other));
                pairs.insert([one, other]);
            }
        }
        assert_eq!(pairs.len(), 512);
        let source = Address::from_v4([192, 0, 2, 1]);
        assert_ne!(counted(7, 1, &source), counted(8, 1, &source), "the key counts");
    }
}
