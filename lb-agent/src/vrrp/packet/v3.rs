//! Version 3: RFC 9568, for IPv4 and IPv6.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-------+-------+---------------+---------------+---------------+
//! |   3   | type 1|     VRID      |   priority    |   count n     |
//! +-------+-------+---------------+---------------+---------------+
//! |   0   |     interval, cs      |           checksum            |
//! +-------+-----------------------+-------------------------------+
//! |                    n addresses: all IPv4, or all IPv6,        |
//! |                    as the packet is                           |
//! +---------------------------------------------------------------+
//! ```
//!
//! The fields: RFC 9568, 5.2. The four bits before the interval are ignored when heard (5.2.6).
//! Nothing follows the addresses: a trailer as in version 2 is an error.

use std::net::IpAddr;
use std::time::Duration;

use super::{ADVERTISEMENT, HEADER, Message, checksum};
use super::{Advertisement, Authentication, BuildError, Checksum, ParseError, Version};

/// The interval's bits, and so the longest of them.
const INTERVAL: u16 = 0x0fff;

const CENTISECOND: Duration = Duration::from_millis(10);

/// Both ends are of one family, which is also the addresses'.
pub(super) fn parse(
    message: &Message<'_>,
    source: IpAddr,
    destination: IpAddr,
) -> Result<Advertisement, ParseError> {
    let (addresses, []) = match source {
        IpAddr::V4(_) => message.split::<4, 0>()?,
        IpAddr::V6(_) => message.split::<16, 0>()?,
    };
    let plain = source.is_ipv4() && checksum::plain(message.whole) == 0;
    if !plain && checksum::with_pseudo_header(message.whole, source, destination) != 0 {
        return Err(message.wrong_checksum());
    }
    let &[_, _, _, _, high, low, _, _] = message.header;
    let centiseconds = u16::from_be_bytes([high, low]) & INTERVAL;
    message.advertisement(CENTISECOND * centiseconds.into(), addresses, Authentication::None)
}

pub(super) fn build(
    said: &Advertisement,
    source: IpAddr,
    destination: IpAddr,
    checksum: Checksum,
) -> Result<Vec<u8>, BuildError> {
    if said.authentication != Authentication::None {
        return Err(BuildError::PasswordInVersion3);
    }
    let count = said.count()?;
    let [high, low] = said.interval_in(CENTISECOND, INTERVAL, Version::V3)?.to_be_bytes();
    let first = 3 << 4 | ADVERTISEMENT;
    let (id, priority) = (said.router_id.number(), said.priority.0);
    let mut message = Vec::with_capacity(HEADER + 16 * usize::from(count));
    message.extend([first, id, priority, count, high, low, 0, 0]);
    said.write_addresses(&mut message);
    let checksum = match checksum {
        Checksum::Plain if source.is_ipv4() => checksum::plain(&message),
        _ => checksum::with_pseudo_header(&message, source, destination),
    };
    checksum::seal(&mut message, checksum);
    Ok(message)
}
