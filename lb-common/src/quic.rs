//! Connection ids that name a server, so that a QUIC connection stays with its server when its client's
//! address changes.
//!
//! The scheme is the unencrypted one of draft-ietf-quic-load-balancers ("QUIC-LB: Generating Routable QUIC
//! Connection IDs"): the first octet's three high bits are the configuration's number, its others anything;
//! then comes the server's id, then what the server likes.

use crate::service::Service;

/// The longest id of a server.
pub const MOST_ID_BYTES: usize = 8;

/// Octets of a connection id that are looked at.
pub const OCTETS: usize = 1 + MOST_ID_BYTES;

/// The number of the configuration that says that a connection id names nobody.
pub const UNROUTABLE: u8 = 7;

const ROTATION_SHIFT: u32 = 8;
const LENGTH_SHIFT: u32 = 11;

/// What the connection ids of a service look like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scheme {
    /// The configuration's number, 0 to 6.
    pub rotation: u8,
    /// Bytes of a server's id, 1 to [`MOST_ID_BYTES`].
    pub id_bytes: u8,
}

impl Scheme {
    /// As bits of [`Service::flags`].
    pub const fn flags(self) -> u32 {
        (self.rotation as u32) << ROTATION_SHIFT | (self.id_bytes as u32) << LENGTH_SHIFT
    }

    /// That of a service, if it has one.
    #[inline(always)]
    pub const fn of(service: &Service) -> Option<Self> {
        let rotation = (service.flags >> ROTATION_SHIFT & 7) as u8;
        let id_bytes = (service.flags >> LENGTH_SHIFT & 15) as u8;
        if id_bytes == 0 { None } else { Some(Self { rotation, id_bytes }) }
    }

    /// The server's id in a connection id of which these are the first octets, as a number; nothing in one
    /// that is not of this scheme.
    #[inline(always)]
    pub const fn server_id(self, octets: [u8; OCTETS]) -> Option<u64> {
        let [first, a, b, c, d, e, f, g, h] = octets;
        if first >> 5 != self.rotation {
            return None;
        }
        let unused = ((MOST_ID_BYTES as u32 - self.id_bytes as u32) & 7) << 3;
        Some(u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> unused)
    }
}

/// The key of the map `server_ids`. The value is the server's place among the service's backends.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ServerId {
    /// [`Service::backends`]: a changed set of backends has ids of its own, beside those in use.
    pub backends: u32,
    /// Zero.
    pub padding: u32,
    pub id: u64,
}

const _: () = assert!(size_of::<ServerId>() == 16);

#[cfg(test)]
mod tests {
    use super::*;

    const OCTETS_OF_TWO: [u8; OCTETS] = [0x5f, 0x12, 0x34, 1, 2, 3, 4, 5, 6];

    #[test]
    fn an_id_is_behind_the_first_octet_and_as_long_as_the_scheme_says() {
        let scheme = |id_bytes| Scheme { rotation: 2, id_bytes };
        assert_eq!(scheme(1).server_id(OCTETS_OF_TWO), Some(0x12));
        assert_eq!(scheme(2).server_id(OCTETS_OF_TWO), Some(0x1234));
        assert_eq!(scheme(8).server_id(OCTETS_OF_TWO), Some(0x1234_0102_0304_0506));
    }

    #[test]
    fn another_configuration_s_id_names_nobody() {
        assert_eq!(Scheme { rotation: 1, id_bytes: 2 }.server_id(OCTETS_OF_TWO), None);
    }

    #[test]
    fn a_scheme_is_what_the_flags_say() {
        for rotation in 0..UNROUTABLE {
            for id_bytes in 1..=8 {
                let scheme = Scheme { rotation, id_bytes };
                let service = Service { flags: scheme.flags() | 0xffff_00ff, ..Service::EMPTY };
                assert_eq!(Scheme::of(&service), Some(scheme));
            }
        }
        assert_eq!(Scheme::of(&Service { flags: 0xffff_07ff, ..Service::EMPTY }), None);
    }
}
