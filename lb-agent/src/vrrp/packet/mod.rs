//! What VRRP routers say to one another, as bytes: advertisements, read and written. Pure.
//!
//! It says what the bytes say. Whether to believe them (TTL, password, interval, list of addresses)
//! is for who knows the settings, and what to do about them is for the state machine. Sockets and IP
//! headers are the driver's.

mod checksum;
mod error;
mod v2;
mod v3;

#[cfg(test)]
mod tests;

pub use error::{BuildError, ParseError};

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use super::identity::{Priority, RouterId, Version};

/// The IP protocol that carries VRRP (RFC 9568, 5.1.1.4).
pub const PROTOCOL: u8 = 112;

/// Length of either version's header, in bytes.
const HEADER: usize = 8;

/// The only type of packet there is (RFC 9568, 5.2.2).
const ADVERTISEMENT: u8 = 1;

/// What an advertisement says, whichever version's bytes it came in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Advertisement {
    pub router_id: RouterId,
    pub priority: Priority,
    /// The sender's, between two advertisements. Version 2 has whole seconds from 1 to 255
    /// (RFC 3768, 5.3.7), version 3 whole centiseconds from 1 to 4095 (RFC 9568, 5.2.7).
    pub interval: Duration,
    /// The virtual addresses: 1 to 255, of the family of the packet that carries them, in the order
    /// of the wire.
    pub addresses: Vec<IpAddr>,
    /// Version 2 only: [`Authentication::None`] in version 3.
    pub authentication: Authentication,
}

/// What a version 2 advertisement brings so that it is believed. Who can read the link reads it: it
/// keeps mistaken configurations apart, not attackers (RFC 3768, 10).
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Authentication {
    /// Type 0, the only one since RFC 3768.
    None,
    /// Type 1, `PASS` in keepalived (RFC 2338, 5.3.6 and 5.3.10): padded with NUL.
    Password([u8; 8]),
}

impl Authentication {
    /// The password as it goes on the wire: its first eight bytes, as keepalived cuts it.
    pub fn password(text: &str) -> Self {
        let mut password = [0; 8];
        for (byte, &letter) in password.iter_mut().zip(text.as_bytes()) {
            *byte = letter;
        }
        Self::Password(password)
    }
}

/// Without the password: what is debugged ends in logs.
impl fmt::Debug for Authentication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Password(_) => "Password(..)",
        })
    }
}

/// What the checksum of a version 3 advertisement over IPv4 covers, when sent. Heard, both are
/// right. Version 2 is always plain, and version 3 over IPv6 always has the pseudo-header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Checksum {
    /// The message alone, as RFC 9568, 5.2.8, wants it for IPv4.
    Plain,
    /// The message and a pseudo-header, as keepalived and FRR send it.
    PseudoHeader,
}

/// Where a packet came from and went to, as far as VRRP looks at it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Envelope {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// Or the hop limit. Not looked at here: what else than 255 to accept is a setting.
    pub ttl: u8,
}

/// Reads a VRRP packet, given what is behind the IP header.
///
/// Takes any bytes, and reads 4088 of them at most. The order of its checks is a part of what it
/// says: a damaged packet counts as such, whatever else seems wrong with it.
pub fn parse(envelope: &Envelope, payload: &[u8]) -> Result<(Version, Advertisement), ParseError> {
    let truncated = ParseError::Truncated { length: payload.len() };
    let (header, body) = payload.split_first_chunk().ok_or(truncated)?;
    let message = Message { whole: payload, header, body };
    let version = message.version()?;
    let Envelope { source, destination, .. } = *envelope;
    let fits = source.is_ipv4() || version == Version::V3;
    if !fits || source.is_ipv4() != destination.is_ipv4() {
        return Err(ParseError::FamilyMismatch { version, from: source, to: destination });
    }
    let advertisement = match version {
        Version::V2 => v2::parse(&message)?,
        Version::V3 => v3::parse(&message, source, destination)?,
    };
    Ok((version, advertisement))
}

impl Advertisement {
    /// The bytes to send behind an IP header with these addresses. `checksum` is about version 3
    /// over IPv4; otherwise there is no choice.
    ///
    /// Fails for what the wire cannot carry, and never rounds. That a packet fits the link's MTU is
    /// not looked at, nor that a list of IPv6 addresses begins with a link-local one (RFC 9568,
    /// 5.2.9).
    pub fn build(
        &self,
        version: Version,
        source: IpAddr,
        destination: IpAddr,
        checksum: Checksum,
    ) -> Result<Vec<u8>, BuildError> {
        if source.is_ipv4() != destination.is_ipv4() {
            return Err(BuildError::FamiliesOfEnds { from: source, to: destination });
        }
        let stranger = self.addresses.iter().find(|a| a.is_ipv4() != source.is_ipv4());
        if let Some(&address) = stranger {
            return Err(BuildError::FamilyOfAddress { address, from: source });
        }
        match version {
            Version::V2 => v2::build(self, source),
            Version::V3 => v3::build(self, source, destination, checksum),
        }
    }

    /// How many addresses there are, as the header counts them.
    fn count(&self) -> Result<u8, BuildError> {
        let count = self.addresses.len();
        match u8::try_from(count) {
            Ok(0) => Err(BuildError::NoAddresses),
            Ok(count) => Ok(count),
            Err(_) => Err(BuildError::TooManyAddresses { count }),
        }
    }

    /// The interval in units of the version, of which its field can hold `max`.
    fn interval_in<T>(&self, unit: Duration, max: T, version: Version) -> Result<T, BuildError>
    where
        T: TryFrom<u128> + PartialOrd,
    {
        let (interval, unit) = (self.interval.as_nanos(), unit.as_nanos());
        let whole = interval > 0 && interval.is_multiple_of(unit);
        let count = T::try_from(interval / unit).ok();
        count
            .filter(|count| whole && *count <= max)
            .ok_or(BuildError::Interval { version, interval: self.interval })
    }

    /// The addresses' bytes, one after the other.
    fn write_addresses(&self, message: &mut Vec<u8>) {
        for address in &self.addresses {
            match address {
                IpAddr::V4(address) => message.extend(address.octets()),
                IpAddr::V6(address) => message.extend(address.octets()),
            }
        }
    }
}

/// A payload that is long enough to be read. Both versions have their type, VRID, priority, count
/// and checksum at the same places.
struct Message<'a> {
    whole: &'a [u8],
    header: &'a [u8; HEADER],
    body: &'a [u8],
}

impl Message<'_> {
    fn version(&self) -> Result<Version, ParseError> {
        let [first, ..] = self.header;
        let version = match first >> 4 {
            2 => Version::V2,
            3 => Version::V3,
            unknown => return Err(ParseError::UnknownVersion(unknown)),
        };
        match first & 0x0f {
            ADVERTISEMENT => Ok(version),
            other => Err(ParseError::NotAdvertisement(other)),
        }
    }

    /// The addresses, of `A` bytes each, and the `T` bytes behind them. Refuses what is not as long
    /// as the count wants it.
    fn split<const A: usize, const T: usize>(&self) -> Result<(Vec<IpAddr>, [u8; T]), ParseError>
    where
        IpAddr: From<[u8; A]>,
    {
        let &[_, _, _, count, ..] = self.header;
        let mismatch = ParseError::LengthMismatch {
            length: self.whole.len(),
            expected: HEADER + A * usize::from(count) + T,
            count,
        };
        let (list, trailer) = self.body.split_last_chunk().ok_or(mismatch)?;
        let (addresses, rest) = list.as_chunks();
        if !rest.is_empty() || addresses.len() != usize::from(count) {
            return Err(mismatch);
        }
        Ok((addresses.iter().copied().map(IpAddr::from).collect(), *trailer))
    }

    fn wrong_checksum(&self) -> ParseError {
        let &[.., high, low] = self.header;
        ParseError::ChecksumWrong(u16::from_be_bytes([high, low]))
    }

    /// What the message says, once its checksum was found right.
    fn advertisement(
        &self,
        interval: Duration,
        addresses: Vec<IpAddr>,
        authentication: Authentication,
    ) -> Result<Advertisement, ParseError> {
        let &[_, router_id, priority, ..] = self.header;
        let router_id = RouterId::new(router_id).ok_or(ParseError::RouterIdZero)?;
        if addresses.is_empty() {
            return Err(ParseError::NoAddresses);
        }
        if interval.is_zero() {
            return Err(ParseError::IntervalZero);
        }
        let priority = Priority(priority);
        Ok(Advertisement { router_id, priority, interval, addresses, authentication })
    }
}
