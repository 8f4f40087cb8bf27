//! What is wrong with what other routers send, remembered by kind and sender. Pure.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use super::moment::Moment;
use crate::netlink::Mac;

/// The same trouble with the same router is told this often, and counted always.
const TELL_AGAIN: Duration = Duration::from_secs(60);
/// Trouble that is remembered. Whoever forges senders makes more; it is only counted.
const MAX: usize = 64;
/// What was not seen for so long makes room.
const STALE: Duration = Duration::from_secs(3600);

/// Something that a person should know of another router.
#[derive(Clone, Debug, PartialEq)]
pub struct Trouble {
    /// As in the counters.
    pub kind: &'static str,
    /// Who sent it, by the packet.
    pub rival: IpAddr,
    /// Who sent it, by the frame; none where that was not seen.
    pub mac: Option<Mac>,
    pub sentence: String,
    /// Times since `first`.
    pub count: u64,
    pub first: SystemTime,
    pub last: SystemTime,
}

#[derive(Debug)]
struct Entry {
    trouble: Trouble,
    told: Moment,
    seen: Moment,
}

/// All of a virtual router.
#[derive(Debug, Default)]
pub(super) struct Troubles(HashMap<(&'static str, IpAddr), Entry>);

impl Troubles {
    /// Counts it. Returns it where it is to be told: it is new, or was not told for a while.
    pub(super) fn note(&mut self, mut trouble: Trouble, now: Moment) -> Option<Trouble> {
        let key = (trouble.kind, trouble.rival);
        if let Some(entry) = self.0.get_mut(&key) {
            (trouble.first, trouble.count) = (entry.trouble.first, entry.trouble.count + 1);
            trouble.mac = trouble.mac.or(entry.trouble.mac);
            entry.trouble = trouble;
            entry.seen = now;
            if now.since(entry.told) < TELL_AGAIN {
                return None;
            }
            entry.told = now;
            return Some(entry.trouble.clone());
        }
        if self.0.len() >= MAX {
            self.0.retain(|_, entry| now.since(entry.seen) < STALE);
        }
        if self.0.len() >= MAX {
            return None;
        }
        self.0.insert(key, Entry { trouble: trouble.clone(), told: now, seen: now });
        Some(trouble)
    }

    /// The latest first.
    pub(super) fn list(&self) -> Vec<Trouble> {
        let mut all: Vec<&Entry> = self.0.values().collect();
        all.sort_by_key(|entry| (std::cmp::Reverse(entry.seen), entry.trouble.rival));
        all.into_iter().map(|entry| entry.trouble.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trouble(from: u8, mac: Option<Mac>) -> Trouble {
        Trouble {
            kind: "ttl",
            rival: IpAddr::from([192, 0, 2, from]),
            mac,
            sentence: "it was routed".to_owned(),
            count: 1,
            first: SystemTime::UNIX_EPOCH,
            last: SystemTime::UNIX_EPOCH,
        }
    }

    fn at(seconds: u64) -> Moment {
        Moment::after_origin(Duration::from_secs(seconds))
    }

    #[test]
    fn the_same_trouble_is_told_once_a_minute_and_counted_always() {
        let mut troubles = Troubles::default();
        let told: Vec<u64> = (0..121)
            .filter_map(|second| troubles.note(trouble(1, None), at(second)).map(|t| t.count))
            .collect();
        assert_eq!(told, [1, 61, 121]);
    }

    #[test]
    fn a_mac_that_was_seen_once_is_kept() {
        let mut troubles = Troubles::default();
        let mac = Some([2, 0, 0, 0, 0, 7]);
        troubles.note(trouble(1, mac), at(0));
        troubles.note(trouble(1, None), at(1));
        assert_eq!(troubles.list()[0].mac, mac);
    }

    #[test]
    fn forged_senders_take_no_more_than_the_room_there_is() {
        let mut troubles = Troubles::default();
        let told = (0..=255).filter(|n| troubles.note(trouble(*n, None), at(0)).is_some()).count();
        assert_eq!((told, troubles.list().len()), (MAX, MAX));
        // And not for ever.
        assert!(troubles.note(trouble(255, None), at(3600)).is_some());
        assert_eq!(troubles.list().len(), 1);
    }
}
