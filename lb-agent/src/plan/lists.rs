//! The lists of the services' sources, as the map gets them. Pure: the module `lists` reads the files
//! that some of them come from.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use lb_common::protection::{ALLOWED, DENIED, PrefixKey, UNLISTED};

use crate::config::{Family, Prefix};

/// Where the synthetic packet comes from: "this network" (RFC 1122, 3.2.1.3), the source of no packet
/// that a host may send on, and the discard-only prefix (RFC 6666). Every list lets it in: it is to go
/// the whole way.
pub(crate) const SYNTHETIC_V4: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
pub(crate) const SYNTHETIC_V6: Ipv6Addr = Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1);

/// A list: prefixes, each once, and what each says. Cheap to clone, and the same list only as a clone.
#[derive(Clone, Debug)]
pub struct List(Arc<Content>);

#[derive(Debug)]
struct Content {
    keys: Vec<PrefixKey>,
    /// [`ALLOWED`], [`DENIED`] or [`UNLISTED`], for each key.
    values: Vec<u32>,
}

/// A prefix is both allowed and denied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Conflict(pub Prefix);

impl List {
    /// Of the prefixes of a family; those of the other one are left out. With `closed`, who has no prefix
    /// here is not let in.
    ///
    /// # Errors
    /// Where a prefix is allowed and denied.
    pub fn new<'p>(
        family: Family,
        closed: bool,
        allow: impl IntoIterator<Item = &'p Prefix>,
        deny: impl IntoIterator<Item = &'p Prefix>,
    ) -> Result<Self, Conflict> {
        let synthetic: IpAddr = match family {
            Family::V4 => SYNTHETIC_V4.into(),
            Family::V6 => SYNTHETIC_V6.into(),
        };
        let ours = |prefix: &&Prefix| Family::of(prefix.address()) == family;
        let allow = allow.into_iter().filter(ours).map(|prefix| (*prefix, ALLOWED));
        let deny = deny.into_iter().filter(ours).map(|prefix| (*prefix, DENIED));
        let mut all: Vec<(Prefix, u32)> = allow.chain(deny).collect();
        all.sort_unstable();
        all.dedup();
        if let Some(pair) = all.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(Conflict(pair[0].0));
        }
        let mut content = Content { keys: Vec::new(), values: Vec::new() };
        let room = all.len() + 2;
        content.keys.reserve_exact(room);
        content.values.reserve_exact(room);
        for (prefix, value) in &all {
            content.add(key(prefix.address(), prefix.length()), *value);
        }
        // Not where somebody listed the very prefix: that decides, then, and the trial tells.
        let host = |address: IpAddr| key(address, if address.is_ipv4() { 32 } else { 128 });
        content.add_unless_there(host(synthetic), ALLOWED);
        if closed {
            content.add_unless_there(PrefixKey { length: 0, ..key(synthetic, 0) }, UNLISTED);
        }
        Ok(Self(Arc::new(content)))
    }

    pub fn keys(&self) -> &[PrefixKey] {
        &self.0.keys
    }

    pub fn values(&self) -> &[u32] {
        &self.0.values
    }

    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Content {
    fn add(&mut self, key: PrefixKey, value: u32) {
        self.keys.push(key);
        self.values.push(value);
    }

    fn add_unless_there(&mut self, key: PrefixKey, value: u32) {
        let same =
            |other: &PrefixKey| other.length == key.length && (key.length == 0 || *other == key);
        if !self.keys.iter().any(same) {
            self.add(key, value);
        }
    }
}

fn key(address: IpAddr, length: u8) -> PrefixKey {
    let mapped = if address.is_ipv4() { 96 } else { 0 };
    PrefixKey { length: mapped + u32::from(length), address: address.into() }
}

/// The lists of a configuration's services, by the services' places in it.
#[derive(Clone, Debug, Default)]
pub struct Lists(HashMap<usize, List>);

impl Lists {
    pub fn of(&self, configured: usize) -> Option<&List> {
        self.0.get(&configured)
    }

    pub fn set(&mut self, configured: usize, list: List) {
        self.0.insert(configured, list);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixes(texts: &[&str]) -> Vec<Prefix> {
        texts.iter().map(|text| text.parse().expect("a prefix")).collect()
    }

    fn list(family: Family, closed: bool, allow: &[&str], deny: &[&str]) -> Result<List, Conflict> {
        List::new(family, closed, &prefixes(allow), &prefixes(deny))
    }

    /// What a list says of a prefix that it has.
    fn says(list: &List, length: u32, address: &str) -> Option<u32> {
        let address: IpAddr = address.parse().expect("an address");
        let key = PrefixKey { length, address: address.into() };
        let at = list.keys().iter().position(|other| *other == key)?;
        Some(list.values()[at])
    }

    #[test]
    fn a_list_has_its_family_s_prefixes_and_lets_the_synthetic_packet_in() {
        let both =
            list(Family::V4, false, &[], &["192.0.2.0/24", "2001:db8::/32"]).expect("a list");
        assert_eq!(says(&both, 96 + 24, "192.0.2.0"), Some(DENIED));
        assert_eq!(says(&both, 32, "2001:db8::"), None);
        assert_eq!(says(&both, 128, "0.0.0.0"), Some(ALLOWED));
        assert_eq!(both.keys().len(), 2);
    }

    #[test]
    fn with_an_allowed_prefix_everybody_else_stays_outside() {
        let open = list(Family::V6, false, &[], &["2001:db8::/32"]).expect("a list");
        assert!(!open.values().contains(&UNLISTED));
        let closed = list(Family::V6, true, &["2001:db8::/32"], &[]).expect("a list");
        let zero: Vec<u32> = closed
            .keys()
            .iter()
            .zip(closed.values())
            .filter(|(key, _)| key.length == 0)
            .map(|(_, value)| *value)
            .collect();
        assert_eq!(zero, [UNLISTED]);
        // Whoever says it of everybody has the last word.
        let everybody = list(Family::V6, true, &["::/0"], &[]).expect("a list");
        assert_eq!(says(&everybody, 0, "::"), Some(ALLOWED));
        assert!(!everybody.values().contains(&UNLISTED));
    }

    #[test]
    fn a_prefix_may_be_said_twice_but_not_both_ways() {
        assert!(list(Family::V4, false, &[], &["192.0.2.0/24", "192.0.2.0/24"]).is_ok());
        let conflict = list(Family::V4, true, &["192.0.2.0/24"], &["192.0.2.0/24"]);
        assert_eq!(conflict.map(drop), Err(Conflict("192.0.2.0/24".parse().expect("a prefix"))));
    }
}
