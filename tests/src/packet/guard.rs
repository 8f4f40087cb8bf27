//! What a fixture's services refuse: the fields of its scene, and how they lie in the maps.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use lb_common::Address;
use lb_common::protection::{
    ALLOWED, CONNECTION_LIMITED, DENIED, LISTED, PrefixKey, Protection, RATE_LIMITED, UNLISTED,
};
use serde::Deserialize;

use super::names;

/// One connection an hour: no fixture takes so long.
const INTERVAL_NS: u64 = 3_600_000_000_000;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Guard {
    /// Machines and prefixes. With one, everybody else stays outside.
    pub allow: Vec<String>,
    pub deny: Vec<String>,
    /// Connections that a source may open; further ones only after an hour.
    pub burst: Option<u64>,
    /// Bits of a source's address that count, IPv4 addresses being mapped ones.
    pub bits: Option<u32>,
    /// Connections that a source may have at one time.
    pub connections: Option<u64>,
}

impl Guard {
    /// As the maps have it, with its list at an index.
    pub fn rules(&self, list: u32) -> Protection {
        let mut protection = Protection { list, ..Protection::NONE };
        if !self.allow.is_empty() || !self.deny.is_empty() {
            protection.rules |= LISTED;
        }
        if let Some(burst) = self.burst {
            protection.rules |= RATE_LIMITED;
            protection.interval_ns = INTERVAL_NS;
            protection.allowance_ns = burst * INTERVAL_NS;
            let mask = u128::MAX.checked_shl(128 - self.bits.unwrap_or(128)).unwrap_or(0);
            protection.rate_mask = Address::from_v6(mask.to_be_bytes());
        }
        if let Some(connections) = self.connections {
            protection.rules |= CONNECTION_LIMITED;
            protection.connections = connections;
            let mask = u128::MAX.checked_shl(128 - self.bits.unwrap_or(128)).unwrap_or(0);
            protection.connection_mask = Address::from_v6(mask.to_be_bytes());
        }
        protection
    }

    /// # Errors
    /// Where it names what does not exist.
    pub fn list(&self, family: u8) -> Result<Vec<(PrefixKey, u32)>> {
        let mut list = Vec::new();
        for (names, says) in [(&self.allow, ALLOWED), (&self.deny, DENIED)] {
            for name in names {
                list.push((prefix(name, family)?, says));
            }
        }
        if !self.allow.is_empty() {
            list.push((PrefixKey { length: 0, address: Address::UNSPECIFIED }, UNLISTED));
        }
        Ok(list)
    }
}

fn prefix(name: &str, family: u8) -> Result<PrefixKey> {
    let (name, length) = match name.split_once('/') {
        Some((name, length)) => (name, Some(length.parse().context("the length of a prefix")?)),
        None => (name, None),
    };
    let address: IpAddr = names::address(name, family)?;
    let (mapped, bits) = if address.is_ipv4() { (96, 32) } else { (0, 128) };
    Ok(PrefixKey { length: mapped + length.unwrap_or(bits), address: address.into() })
}
