//! Who and how: the numbers by which VRRP routers know one another.

use std::fmt;

/// The protocol's version.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Version {
    /// RFC 3768, IPv4 only; with the authentication of RFC 2338.
    V2,
    /// RFC 9568 (and 5798), IPv4 and IPv6.
    V3,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V2 => "2",
            Self::V3 => "3",
        })
    }
}

/// A virtual router's number on its link (VRID), 1 to 255 (RFC 9568, 5.2.3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RouterId(u8);

impl RouterId {
    pub const fn new(number: u8) -> Option<Self> {
        if number == 0 { None } else { Some(Self(number)) }
    }

    pub const fn number(self) -> u8 {
        self.0
    }
}

impl fmt::Display for RouterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A router's priority (RFC 9568, 5.2.4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Priority(pub u8);

impl Priority {
    /// The Active router stops to take part: the Backups need not wait for their timers.
    pub const RESIGN: Self = Self(0);
    /// The router has the virtual addresses as its own.
    pub const OWNER: Self = Self(255);

    /// With the weight of what is tracked added: 1 to 254, as of a router that takes part and is
    /// not the owner. An owner's stays.
    pub fn weighed(self, weight: i32) -> Self {
        if self == Self::OWNER {
            return self;
        }
        let sum = i32::from(self.0).saturating_add(weight).clamp(1, 254);
        Self(u8::try_from(sum).unwrap_or(1))
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_moves_a_priority_within_what_a_router_may_have() {
        for (priority, weight, expected) in
            [(100, -5, 95), (100, -200, 1), (100, i32::MIN, 1), (250, 20, 254), (255, -5, 255)]
        {
            assert_eq!(Priority(priority).weighed(weight), Priority(expected));
        }
    }
}
