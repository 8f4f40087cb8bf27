//! The hashes that steer. They are a contract between nodes: every node must send a client to the
//! same bucket, so a change here is a new [`TABLE_VERSION`](crate::layout::TABLE_VERSION).
//!
//! ```text
//! mix(x)        = MurmurHash3's 64-bit finaliser (fmix64)
//! seed(service) = chain(0x6c62_2d74_6162_6c65, [address 0..8, address 8..16, port_be | protocol << 16])
//! client        = IPv4: mix(seed ^ (address | port_be << 32))
//!                 IPv6: chain(seed, [address 0..8, address 8..16, port_be])
//! chain(h, ws)  = fold over ws of h = mix(h ^ w)
//! ```
//! Addresses are words as they lie in the packet, read little-endian. `port_be` is 0 where the
//! service hashes by source address alone. Not for secrecy: [`nat_port_hash`] alone is keyed.

use crate::Address;
use crate::flow::FlowKey;

/// MurmurHash3's 64-bit finaliser (Appleby, public domain): a bijection with full avalanche, two
/// multiplications.
#[inline(always)]
pub const fn mix(mut x: u64) -> u64 {
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^= x >> 33;
    x = x.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

const fn pair(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

/// Where the chain of a service's seed begins ("lb-table" read as a number).
const SEED: u64 = 0x6c62_2d74_6162_6c65;

/// The seed of a service's client hash, so that two services over the same backends, which have one
/// table together, spread a client's connections independently.
pub const fn service_seed(address: &Address, port_be: u16, protocol: u8) -> u64 {
    let w = address.words;
    let h = mix(SEED ^ pair(w[0], w[1]));
    let h = mix(h ^ pair(w[2], w[3]));
    mix(h ^ (port_be as u64 | (protocol as u64) << 16))
}

/// The hash of a client. `port_be` is the client's port, or 0 to hash by address alone.
#[inline(always)]
pub const fn client_hash(seed: u64, client: &Address, port_be: u16) -> u64 {
    if client.is_v4() {
        client_hash_v4(seed, client, port_be)
    } else {
        client_hash_v6(seed, client, port_be)
    }
}

/// [`client_hash`] of an IPv4 client, for a caller that knows the family.
#[inline(always)]
pub const fn client_hash_v4(seed: u64, client: &Address, port_be: u16) -> u64 {
    mix(seed ^ pair(client.words[3], port_be as u32))
}

/// [`client_hash`] of an IPv6 client, for a caller that knows the family.
#[inline(always)]
pub const fn client_hash_v6(seed: u64, client: &Address, port_be: u16) -> u64 {
    let w = client.words;
    let h = mix(seed ^ pair(w[0], w[1]));
    let h = mix(h ^ pair(w[2], w[3]));
    mix(h ^ port_be as u64)
}

/// The hash of a backend's identity, from which its permutation of the slots follows. `port_be` is 0
/// where the address alone tells the backend from the others of its set.
pub const fn backend_hash(seed: u64, address: &Address, port_be: u16) -> u64 {
    let w = address.words;
    let h = mix(seed ^ pair(w[0], w[1]));
    let h = mix(h ^ pair(w[2], w[3]));
    mix(h ^ port_be as u64)
}

/// The keyed hash that names the NAT port to try first for a client's flow. Another node with the
/// same key arrives at the same port, and can rebuild the entry from the client's next packet.
#[inline(always)]
pub const fn nat_port_hash(key: u64, flow: &FlowKey) -> u64 {
    let s = flow.source.words;
    let d = flow.destination.words;
    let h = mix(key ^ pair(s[0] ^ d[0], s[1] ^ d[1]));
    let h = mix(h ^ pair(s[2] ^ d[2], s[3]));
    let ports = pair(flow.source_port_be as u32, flow.destination_port_be as u32);
    mix(mix(h ^ d[3] as u64) ^ ports ^ (flow.protocol as u64) << 56)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values computed once by an independent implementation (Python) from the contract above.
    #[test]
    fn the_contract_is_kept() {
        let vip = Address::from_v4([192, 168, 139, 150]);
        let seed = service_seed(&vip, 8443u16.to_be(), 6);
        assert_eq!(mix(1), 0xb456_bcfc_34c2_cb2c);
        assert_eq!(seed, CONTRACT_SEED);
        let client = Address::from_v4([192, 168, 139, 10]);
        assert_eq!(client_hash(seed, &client, 0), CONTRACT_V4);
        let client = Address::from_v6([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10]);
        assert_eq!(client_hash(seed, &client, 40000u16.to_be()), CONTRACT_V6);
    }

    const CONTRACT_SEED: u64 = 0xa758_e681_6e79_03ea;
    const CONTRACT_V4: u64 = 0xc8e9_2052_3f49_efbe;
    const CONTRACT_V6: u64 = 0xbf05_5f8c_c648_6374;
}
