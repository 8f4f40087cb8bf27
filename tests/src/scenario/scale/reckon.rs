//! Where a client's packets must go, reckoned from docs/tables.md and the contract in
//! lb-common/src/hash.rs without calling either: hash, slot, and who is asked in which order.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use lb_common::bucket::{Bucket, NONE};

/// A service as a file says it, with the ranks of its table.
#[derive(Clone, Debug)]
pub(super) struct Ranked {
    /// VIP and port; TCP.
    pub(super) at: SocketAddr,
    /// Clients are hashed with their port.
    pub(super) by_port: bool,
    pub(super) buckets: Arc<[Bucket]>,
    /// In the order that the ranks refer to.
    pub(super) members: Arc<[SocketAddr]>,
}

impl Ranked {
    /// The first backend of the client's ranks that takes it.
    pub(super) fn backend(
        &self,
        client: SocketAddr,
        takes: impl Fn(SocketAddr) -> bool,
    ) -> Option<SocketAddr> {
        let slots = u32::try_from(self.buckets.len()).ok()?;
        let slot = scaled(client_hash(self.at, client, self.by_port) >> 32, slots);
        let ranks = self.buckets.get(slot as usize)?.ranks;
        let ranked = ranks.iter().take_while(|rank| **rank != NONE);
        let mut members = ranked.filter_map(|rank| self.members.get(usize::from(*rank)).copied());
        members.find(|member| takes(*member))
    }
}

fn client_hash(service: SocketAddr, client: SocketAddr, by_port: bool) -> u64 {
    let [low, high] = words(service.ip());
    let mut seed = 0x6c62_2d74_6162_6c65;
    for word in [low, high, swapped(service.port()) | 6 << 16] {
        seed = mixed(seed ^ word);
    }
    let port = if by_port { swapped(client.port()) } else { 0 };
    match client.ip() {
        IpAddr::V4(v4) => mixed(seed ^ (u64::from(u32::from_le_bytes(v4.octets())) | port << 32)),
        IpAddr::V6(_) => {
            let [low, high] = words(client.ip());
            [low, high, port].into_iter().fold(seed, |hash, word| mixed(hash ^ word))
        }
    }
}

/// An address' 16 bytes, an IPv4 one in its mapped form, read as two little-endian words.
fn words(address: IpAddr) -> [u64; 2] {
    let octets = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    let number = u128::from_le_bytes(octets);
    [number as u64, (number >> 64) as u64]
}

/// The port's two bytes, as they stand in the packet, read little-endian.
fn swapped(port: u16) -> u64 {
    u64::from(port.swap_bytes())
}

/// fmix64 of MurmurHash3.
fn mixed(x: u64) -> u64 {
    let x = (x ^ x >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let x = (x ^ x >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ x >> 33
}

fn scaled(upper_half: u64, slots: u32) -> u32 {
    ((upper_half * u64::from(slots)) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of another implementation, which the contract's own test holds too.
    #[test]
    fn the_hash_is_that_of_the_contract() {
        let vip: SocketAddr = "192.168.139.150:8443".parse().unwrap();
        let client = "192.168.139.10:40000".parse().unwrap();
        assert_eq!(client_hash(vip, client, false), 0xc8e9_2052_3f49_efbe);
        let client = "[fd00::10]:40000".parse().unwrap();
        assert_eq!(client_hash(vip, client, true), 0xbf05_5f8c_c648_6374);
    }

    #[test]
    fn the_next_rank_has_the_clients_of_one_that_takes_none() {
        let members: Vec<SocketAddr> =
            vec!["10.0.0.1:80".parse().unwrap(), "10.0.0.2:80".parse().unwrap()];
        let mut bucket = Bucket::EMPTY;
        bucket.ranks[..2].copy_from_slice(&[1, 0]);
        let at = "192.0.2.1:80".parse().unwrap();
        let ranked = Ranked {
            at,
            by_port: true,
            buckets: Arc::from([bucket]),
            members: members.clone().into(),
        };
        let client = "198.51.100.7:1234".parse().unwrap();
        assert_eq!(ranked.backend(client, |_| true), Some(members[1]));
        assert_eq!(ranked.backend(client, |member| member == members[0]), Some(members[0]));
        assert_eq!(ranked.backend(client, |_| false), None);
    }
}
