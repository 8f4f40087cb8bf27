//! Why a packet was not read, which is the peer's or the link's fault, or not written, which is the
//! configuration's.

use std::net::IpAddr;
use std::time::Duration;

use super::Version;

/// Why bytes are no advertisement. Each reason is counted by its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ParseError {
    #[error("a VRRP packet of {length} bytes is shorter than its header of 8")]
    Truncated { length: usize },
    #[error("VRRP version {0} is neither 2 nor 3")]
    UnknownVersion(u8),
    /// RFC 9568, 5.2.2.
    #[error("VRRP packet of type {0}: only type 1, an advertisement, is known")]
    NotAdvertisement(u8),
    /// Version 2 is for IPv4 only, and both ends of a packet are of one family.
    #[error("VRRP version {version} cannot go from {from} to {to}")]
    FamilyMismatch { version: Version, from: IpAddr, to: IpAddr },
    /// Too short, or with something behind its end (RFC 9568, 7.1).
    #[error(
        "a VRRP packet of {length} bytes should have {expected}, for it counts {count} addresses"
    )]
    LengthMismatch { length: usize, expected: usize, count: u8 },
    #[error("checksum {0:#06x} is wrong")]
    ChecksumWrong(u16),
    #[error("virtual router id 0 is none: they begin with 1")]
    RouterIdZero,
    /// RFC 9568, erratum 8299.
    #[error("an advertisement of 0 virtual addresses")]
    NoAddresses,
    /// Type 2, an authentication header around the packet (RFC 2338, 5.3.6), is as unknown as those
    /// that never were.
    #[error("authentication type {0} is neither 0 (none) nor 1 (password)")]
    UnknownAuthentication(u8),
    /// RFC 9568, erratum 8301.
    #[error("an advertisement interval of 0")]
    IntervalZero,
}

impl ParseError {
    /// The reason, as a counter is labelled with it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Truncated { .. } => "truncated",
            Self::UnknownVersion(_) => "unknown_version",
            Self::NotAdvertisement(_) => "not_advertisement",
            Self::FamilyMismatch { .. } => "family_mismatch",
            Self::LengthMismatch { .. } => "length_mismatch",
            Self::ChecksumWrong(_) => "checksum_wrong",
            Self::RouterIdZero => "router_id_zero",
            Self::NoAddresses => "no_addresses",
            Self::UnknownAuthentication(_) => "unknown_authentication",
            Self::IntervalZero => "interval_zero",
        }
    }
}

/// Why the wire cannot carry an advertisement.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BuildError {
    #[error("cannot advertise 0 virtual addresses: name one at least")]
    NoAddresses,
    #[error(
        "cannot advertise {count} virtual addresses: 255 at most, share them out among routers"
    )]
    TooManyAddresses { count: usize },
    #[error(
        "cannot advertise {address} from {from}: one virtual router has one address \
         family, give the other one its own"
    )]
    FamilyOfAddress { address: IpAddr, from: IpAddr },
    #[error("cannot advertise from {from} to {to}: take two of one address family")]
    FamiliesOfEnds { from: IpAddr, to: IpAddr },
    #[error("cannot advertise from {from} by VRRP version 2: IPv6 takes version 3")]
    Version2OverIpv6 { from: IpAddr },
    #[error(
        "VRRP version {version} cannot carry an interval of {interval:?}: version 2 has whole \
         seconds from 1 s to 255 s, version 3 multiples of 10 ms from 10 ms to 40.95 s"
    )]
    Interval { version: Version, interval: Duration },
    #[error("VRRP version 3 cannot carry a password: remove it, or take version 2")]
    PasswordInVersion3,
}
