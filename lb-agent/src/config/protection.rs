//! What a service refuses, as types: prefixes of sources, and limits of what one source may open. Not the
//! files that hold further prefixes: the module `lists` reads those.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// The addresses that begin with the same bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

/// Why a text is no [`Prefix`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoPrefix {
    Malformed,
    /// Bits are set behind its length: this one was meant, or a longer one.
    HostBits(Prefix),
    /// An IPv4 address in IPv6 form: no packet has it.
    Mapped,
}

impl Prefix {
    /// The first of its addresses.
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// Leading bits that count: up to 32, or 128 for IPv6.
    pub const fn length(&self) -> u8 {
        self.length
    }
}

const fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn first_of(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

/// `192.0.2.0/24`, `2001:db8::/32`, or an address alone.
impl FromStr for Prefix {
    type Err = NoPrefix;

    fn from_str(text: &str) -> Result<Self, NoPrefix> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NoPrefix::Malformed)?;
        let length = match length {
            Some(text) if text.bytes().all(|b| b.is_ascii_digit()) => {
                text.parse().map_err(|_| NoPrefix::Malformed)?
            }
            Some(_) => return Err(NoPrefix::Malformed),
            None => bits(address),
        };
        if length > bits(address) {
            return Err(NoPrefix::Malformed);
        }
        if address.to_canonical() != address {
            return Err(NoPrefix::Mapped);
        }
        let prefix = Self { address: first_of(address, length), length };
        if prefix.address == address { Ok(prefix) } else { Err(NoPrefix::HostBits(prefix)) }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// Who may use a service. The longest prefix that has the source decides; where none has it, it may
/// unless something is allowed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lists {
    pub allow: Vec<Prefix>,
    pub deny: Vec<Prefix>,
    /// Further ones, one a line.
    pub allow_file: Option<PathBuf>,
    pub deny_file: Option<PathBuf>,
}

impl Lists {
    pub const fn is_empty(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty() && !self.has_files()
    }

    pub const fn has_files(&self) -> bool {
        self.allow_file.is_some() || self.deny_file.is_some()
    }

    /// Whether somebody has to be on a list to be let in.
    pub const fn allows(&self) -> bool {
        !self.allow.is_empty() || self.allow_file.is_some()
    }
}

/// How fast one source may open connections to a service; for UDP, send datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// 1 to 1,000,000.
    pub per_second: u32,
    /// At once, after a pause: at least a hundredth of a second's, since the programs' clock has such
    /// steps.
    pub burst: u32,
    /// The bits by which sources are told apart, 1 to 32.
    pub prefix_ipv4: u8,
    /// 1 to 128.
    pub prefix_ipv6: u8,
}

impl RateLimit {
    /// The smallest burst with which the rate can be reached: what comes in the longest step of the
    /// kernel's coarse clock (10 ms, with CONFIG_HZ=100).
    pub const fn least_burst(per_second: u32) -> u32 {
        per_second.div_ceil(100)
    }
}

/// How many connections one source may have to a service at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimit {
    /// 1 to 1,000,000.
    pub per_source: u32,
    /// The bits by which sources are told apart, 1 to 32.
    pub prefix_ipv4: u8,
    /// 1 to 128.
    pub prefix_ipv6: u8,
}

/// When SYNs are a flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SynFlood {
    /// That this node takes itself, 100 to 10,000,000.
    pub syns_per_second: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_survives_being_written_and_read() {
        for text in ["0.0.0.0/0", "192.0.2.0/24", "192.0.2.7/32", "::/0", "2001:db8::/32"] {
            assert_eq!(text.parse::<Prefix>().map(|prefix| prefix.to_string()), Ok(text.into()));
        }
        assert_eq!("192.0.2.7".parse::<Prefix>().map(|p| p.length()), Ok(32));
        assert_eq!("2001:db8::7".parse::<Prefix>().map(|p| p.length()), Ok(128));
    }

    #[test]
    fn what_is_no_prefix_is_refused_with_its_reason() {
        for text in ["", "/", "1.2.3/8", "1.2.3.4/33", "1.2.3.4/", "1.2.3.4/+8", "::/129", "a/8"] {
            assert_eq!(text.parse::<Prefix>(), Err(NoPrefix::Malformed), "{text}");
        }
        assert_eq!("::ffff:192.0.2.0/120".parse::<Prefix>(), Err(NoPrefix::Mapped));
        let meant = "192.0.2.0/24".parse().expect("a prefix");
        assert_eq!("192.0.2.9/24".parse::<Prefix>(), Err(NoPrefix::HostBits(meant)));
    }
}
