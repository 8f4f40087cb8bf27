//! A service: an address, protocol and port that clients use, and what to do with its packets.

use crate::Address;

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

/// The key of the map `services`.
#[repr(C, align(4))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ServiceKey {
    /// The VIP.
    pub address: Address,
    pub port_be: u16,
    /// [`TCP`] or [`UDP`].
    pub protocol: u8,
    pub padding: u8,
}

/// Clients are hashed by address and port instead of by address alone.
pub const HASH_PORT: u32 = 1 << 0;
/// At least one backend is delivered by NAT: the flow's NAT entry is looked up first.
pub const HAS_NAT: u32 = 1 << 1;
/// At least one backend is on this node.
pub const HAS_LOCAL: u32 = 1 << 2;

/// Its packets are held against the rules at [`Service::protection`].
pub const PROTECTED: u32 = 1 << 3;

/// Its datagrams stay where they went before, or go where their connection id says.
pub const STAYS: u32 = 1 << 4;

/// Its connections are noted in the map `flows`.
pub const NOTED: u32 = 1 << 5;

/// The flags' upper half: for so many seconds after the last one a client's datagrams stay with their backend.
/// Below it is the [scheme of connection ids](crate::quic::Scheme).
const AFFINITY_SHIFT: u32 = 16;

/// What a service is at one time.
///
/// Everything that belongs to one generation of the table is in this one value, so that replacing
/// it swaps table, size and backends at once.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Service {
    /// The seed of the client's hash ([`service_seed`](crate::hash::service_seed)).
    pub seed: u64,
    /// Index of its table in the map `tables`.
    pub table: u32,
    /// Slots of that table.
    pub slots: u32,
    /// Index of its first backend in the map `backends`.
    pub backends: u32,
    /// [`HASH_PORT`], [`HAS_NAT`], [`HAS_LOCAL`], [`PROTECTED`], [`STAYS`], [`NOTED`].
    pub flags: u32,
    /// Backends from there on.
    pub backend_count: u32,
    /// Index in the map `protections`; with [`PROTECTED`].
    pub protection: u32,
}

/// The value of the map `svc_versions`; the map `services` has its index for a [`ServiceKey`].
///
/// A service that changes is written beside the one in use, and one store of `current` swaps them.
/// An element of a hash map cannot be changed under its readers: to replace it the kernel takes another
/// one, and who is on the way through the chain then may find neither, or find the old one in use
/// for another key already (`htab_map_update_elem`; without preallocation too since Linux 6.1, commit
/// fba1a1c6c912).
#[repr(C, align(64))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ServiceVersions {
    /// Which of the two is in use: 0 or 1.
    pub current: u64,
    pub versions: [Service; 2],
    /// To the end of a pair of cache lines.
    pub padding: [u64; 7],
}

impl ServiceVersions {
    pub const fn new(service: Service) -> Self {
        Self { current: 0, versions: [service; 2], padding: [0; 7] }
    }
}

/// Two neighbours in memory as one word.
const fn pair(low: u32, high: u32) -> u64 {
    let ([a, b, c, d], [e, f, g, h]) = (low.to_ne_bytes(), high.to_ne_bytes());
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

const fn apart(word: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
    (u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]))
}

impl Service {
    /// One that nobody asks for.
    pub const EMPTY: Self = Self {
        seed: 0,
        table: 0,
        slots: 0,
        backends: 0,
        flags: 0,
        backend_count: 0,
        protection: 0,
    };

    /// So many seconds as flags.
    pub const fn affinity_flags(seconds: u16) -> u32 {
        (seconds as u32) << AFFINITY_SHIFT
    }

    /// For how long a client's datagrams stay with their backend, in nanoseconds; 0 where they do not.
    #[inline(always)]
    pub const fn affinity_ns(&self) -> u64 {
        (self.flags >> AFFINITY_SHIFT) as u64 * 1_000_000_000
    }

    /// Words of a service.
    pub const WORDS: usize = size_of::<Self>() / size_of::<u64>();

    /// As it lies in memory.
    pub const fn words(&self) -> [u64; Self::WORDS] {
        [
            self.seed,
            pair(self.table, self.slots),
            pair(self.backends, self.flags),
            pair(self.backend_count, self.protection),
        ]
    }

    /// From how it lies in memory.
    pub const fn from_words(words: [u64; Self::WORDS]) -> Self {
        let (table, slots) = apart(words[1]);
        let (backends, flags) = apart(words[2]);
        let (backend_count, protection) = apart(words[3]);
        Self { seed: words[0], table, slots, backends, flags, backend_count, protection }
    }
}

const _: () = assert!(size_of::<ServiceKey>() == 20);
const _: () = assert!(size_of::<Service>() == 32);
const _: () = assert!(size_of::<ServiceVersions>() == 128);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_what_its_words_say() {
        let service = Service {
            seed: 1 << 63 | 7,
            table: 1,
            slots: 65_537,
            backends: 3,
            flags: HASH_PORT | HAS_LOCAL,
            backend_count: u32::MAX,
            protection: 6,
        };
        assert_eq!(Service::from_words(service.words()), service);
        let slots = service.words()[1].to_ne_bytes();
        assert_eq!(slots[4..], 65_537u32.to_ne_bytes(), "the second of its pair");
    }
}
