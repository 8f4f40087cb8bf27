//! An address of either family as the maps hold it. Not for text: the agent prints `IpAddr`.

/// An IPv6 address, or an IPv4 one in its IPv4-mapped form (RFC 4291, 2.5.5.2), as it stands in a
/// packet: network byte order, 16 bytes.
///
/// One form for both families keeps one key type per map, and makes a dual-stack socket that
/// connects to `::ffff:192.0.2.1` hit the same service as one that connects to `192.0.2.1`.
#[repr(C, align(4))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord, Default)]
pub struct Address {
    /// The address as four words, each loaded from the packet's bytes without swapping.
    pub words: [u32; 4],
}

/// The third word of an IPv4-mapped address as it lies in memory: `00 00 ff ff`.
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

impl Address {
    pub const UNSPECIFIED: Self = Self { words: [0; 4] };

    /// From the word of an IPv4 header, unswapped.
    #[inline(always)]
    pub const fn from_v4_word(word: u32) -> Self {
        Self { words: [0, 0, MAPPED, word] }
    }

    #[inline(always)]
    pub const fn from_v4(octets: [u8; 4]) -> Self {
        Self::from_v4_word(u32::from_ne_bytes(octets))
    }

    pub const fn from_v6(octets: [u8; 16]) -> Self {
        let o = octets;
        Self {
            words: [
                u32::from_ne_bytes([o[0], o[1], o[2], o[3]]),
                u32::from_ne_bytes([o[4], o[5], o[6], o[7]]),
                u32::from_ne_bytes([o[8], o[9], o[10], o[11]]),
                u32::from_ne_bytes([o[12], o[13], o[14], o[15]]),
            ],
        }
    }

    /// Whether this is an IPv4 address in its mapped form.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.words[0] == 0 && self.words[1] == 0 && self.words[2] == MAPPED
    }

    /// The word for an IPv4 header. Meaningful only where [`is_v4`](Self::is_v4).
    #[inline(always)]
    pub const fn v4_word(&self) -> u32 {
        self.words[3]
    }

    /// The 16 bytes in network order.
    pub const fn octets(&self) -> [u8; 16] {
        let mut out = [0; 16];
        let mut i = 0;
        while i < 16 {
            out[i] = self.words[i / 4].to_ne_bytes()[i % 4];
            i += 1;
        }
        out
    }
}

impl From<core::net::IpAddr> for Address {
    fn from(ip: core::net::IpAddr) -> Self {
        match ip {
            core::net::IpAddr::V4(v4) => Self::from_v4(v4.octets()),
            core::net::IpAddr::V6(v6) => Self::from_v6(v6.octets()),
        }
    }
}

impl From<Address> for core::net::IpAddr {
    fn from(address: Address) -> Self {
        core::net::Ipv6Addr::from(address.octets()).to_canonical()
    }
}

const _: () = assert!(size_of::<Address>() == 16);

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::IpAddr;

    #[test]
    fn both_families_survive_the_round_trip() {
        for text in ["192.168.139.150", "::1", "fd00::150", "0.0.0.0"] {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(IpAddr::from(Address::from(ip)), ip);
            assert_eq!(Address::from(ip).is_v4(), ip.is_ipv4());
        }
    }

    #[test]
    fn a_mapped_address_is_the_same_key_as_the_plain_one() {
        let mapped: IpAddr = "::ffff:192.168.139.150".parse().unwrap();
        let plain: IpAddr = "192.168.139.150".parse().unwrap();
        assert_eq!(Address::from(mapped), Address::from(plain));
    }
}
