//! Version 2: RFC 3768, with the passwords of RFC 2338 that it dropped and clusters still use.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-------+-------+---------------+---------------+---------------+
//! |   2   | type 1|     VRID      |   priority    |   count n     |
//! +-------+-------+---------------+---------------+---------------+
//! | authentication|  interval, s  |           checksum            |
//! +---------------+---------------+-------------------------------+
//! |                    n IPv4 addresses                           |
//! +---------------------------------------------------------------+
//! |                    8 bytes of authentication,                 |
//! |                    also where its type is 0                   |
//! +---------------------------------------------------------------+
//! ```
//!
//! The fields: RFC 3768, 5.3. The checksum covers all of it, and nothing else.

use std::net::IpAddr;
use std::time::Duration;

use super::{ADVERTISEMENT, HEADER, Message, checksum};
use super::{Advertisement, Authentication, BuildError, ParseError, Version};

/// Types of authentication (RFC 2338, 5.3.6).
const NONE: u8 = 0;
const PASSWORD: u8 = 1;

/// Length of what follows the addresses, in bytes.
const TRAILER: usize = 8;

pub(super) fn parse(message: &Message<'_>) -> Result<Advertisement, ParseError> {
    let (addresses, trailer) = message.split::<4, TRAILER>()?;
    if checksum::plain(message.whole) != 0 {
        return Err(message.wrong_checksum());
    }
    let &[_, _, _, _, authentication, seconds, _, _] = message.header;
    let authentication = match authentication {
        // The trailer is then ignored when heard (RFC 3768, 5.3.10).
        NONE => Authentication::None,
        PASSWORD => Authentication::Password(trailer),
        unknown => return Err(ParseError::UnknownAuthentication(unknown)),
    };
    message.advertisement(Duration::from_secs(seconds.into()), addresses, authentication)
}

pub(super) fn build(said: &Advertisement, source: IpAddr) -> Result<Vec<u8>, BuildError> {
    if source.is_ipv6() {
        return Err(BuildError::Version2OverIpv6 { from: source });
    }
    let count = said.count()?;
    let seconds = said.interval_in(Duration::from_secs(1), u8::MAX, Version::V2)?;
    let (authentication, trailer) = match said.authentication {
        Authentication::None => (NONE, [0; TRAILER]),
        Authentication::Password(password) => (PASSWORD, password),
    };
    let first = 2 << 4 | ADVERTISEMENT;
    let (id, priority) = (said.router_id.number(), said.priority.0);
    let mut message = Vec::with_capacity(HEADER + 4 * usize::from(count) + TRAILER);
    message.extend([first, id, priority, count, authentication, seconds, 0, 0]);
    said.write_addresses(&mut message);
    message.extend(trailer);
    let checksum = checksum::plain(&message);
    checksum::seal(&mut message, checksum);
    Ok(message)
}
