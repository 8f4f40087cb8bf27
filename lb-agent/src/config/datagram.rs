//! Where the datagrams of a service stay.

use lb_common::quic::{MOST_ID_BYTES, Scheme};

/// QUIC connection ids that name a backend (draft-ietf-quic-load-balancers, unencrypted).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quic {
    /// The number in the first three bits of a connection id, 0 to 6.
    pub config_rotation: u8,
    /// Bytes of a backend's `server_id`, 1 to 8.
    pub server_id_length: u8,
}

impl Quic {
    pub(crate) const fn scheme(self) -> Scheme {
        Scheme { rotation: self.config_rotation, id_bytes: self.server_id_length }
    }
}

/// The id of a backend in its connection ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerId {
    /// Its bytes as a number, the first the highest.
    pub number: u64,
    /// How many they are, 1 to 8.
    pub length: u8,
}

impl ServerId {
    /// Reads two hexadecimal digits for each byte.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let plain = text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let length = text.len() / 2;
        if !plain || !text.len().is_multiple_of(2) || !(1..=MOST_ID_BYTES).contains(&length) {
            return None;
        }
        let number = u64::from_str_radix(text, 16).ok()?;
        Some(Self { number, length: u8::try_from(length).ok()? })
    }
}

impl std::fmt::Display for ServerId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = usize::from(self.length) * 2;
        write!(formatter, "{:0digits$x}", self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_shown() {
        for text in ["00", "0a01", "ffffffffffffffff"] {
            assert_eq!(ServerId::parse(text).map(|id| id.to_string()).as_deref(), Some(text));
        }
        assert_eq!(ServerId::parse("0A01"), Some(ServerId { number: 0xa01, length: 2 }));
    }

    #[test]
    fn what_is_no_id_is_none() {
        for text in ["", "0", "abc", "+1", "0x01", "00112233445566778 8", "001122334455667788"] {
            assert_eq!(ServerId::parse(text), None, "{text}");
        }
    }
}
