//! What other nodes told of flows that have entries here. An element of a map is never replaced, so what was told
//! later is kept beside the map, for whoever judges which flows are over. Pure.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lb_common::nat::{FROM_CLIENT, NatEntry};

/// What another node said of a flow last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Told {
    /// When a packet used it there, in this node's `CLOCK_MONOTONIC`.
    pub used_ns: u64,
    /// `SEEN_*` of the client's packets, and of the backend's.
    pub seen: [u8; 2],
}

impl Told {
    /// The entry as it would be had this node seen the packets.
    pub(super) fn applied(&self, entry: &NatEntry) -> NatEntry {
        let [client, backend] = self.seen;
        let seen = if entry.direction == FROM_CLIENT { client } else { backend };
        NatEntry {
            seen: entry.seen | seen,
            last_seen_ns: entry.last_seen_ns.max(self.used_ns),
            ..*entry
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    told: Told,
    /// The sweep that met the flow last, or during which it was told.
    sweep: u64,
}

/// Of each flow, by its number. Takes about 50 bytes for each.
#[derive(Debug)]
pub(super) struct Hearsay {
    of: Mutex<State>,
    /// Flows that the map has room for: of more there is nothing to say.
    limit: usize,
}

#[derive(Debug, Default)]
struct State {
    of: HashMap<u64, Kept>,
    sweep: u64,
}

impl Hearsay {
    pub(super) fn new(limit: u32) -> Self {
        Self { of: Mutex::default(), limit: limit as usize }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what was told of a flow in the place of what was told before.
    pub(super) fn note(&self, number: u64, told: Told) {
        let mut state = self.lock();
        let sweep = state.sweep;
        if state.of.len() < self.limit || state.of.contains_key(&number) {
            state.of.insert(number, Kept { told, sweep });
        }
    }

    /// What was told of a flow.
    pub(super) fn of(&self, number: u64) -> Option<Told> {
        self.lock().of.get(&number).map(|kept| kept.told)
    }

    pub(super) fn begin_sweep(&self) {
        self.lock().sweep += 1;
    }

    /// The same as [`of`](Self::of), of a flow that the sweep has met.
    pub(super) fn met(&self, number: u64) -> Option<Told> {
        let mut state = self.lock();
        let sweep = state.sweep;
        let kept = state.of.get_mut(&number)?;
        kept.sweep = sweep;
        Some(kept.told)
    }

    /// Forgets those that the sweep has not met: they have no entries any more.
    pub(super) fn end_sweep(&self) {
        let mut state = self.lock();
        let sweep = state.sweep;
        state.of.retain(|_, kept| kept.sweep == sweep);
    }
}

#[cfg(test)]
mod tests {
    use lb_common::nat::{FROM_BACKEND, SEEN_DATA, SEEN_FIN};

    use super::*;

    const TOLD: Told = Told { used_ns: 7, seen: [SEEN_FIN, SEEN_DATA] };

    #[test]
    fn what_was_told_adds_to_what_was_seen_in_that_direction() {
        for (direction, seen) in [(FROM_CLIENT, SEEN_FIN), (FROM_BACKEND, SEEN_DATA)] {
            let entry = NatEntry { direction, last_seen_ns: 9, ..NatEntry::EMPTY };
            let applied = TOLD.applied(&entry);
            assert_eq!((applied.seen, applied.last_seen_ns), (seen, 9));
            let entry = NatEntry { last_seen_ns: 1, ..entry };
            assert_eq!(TOLD.applied(&entry).last_seen_ns, 7);
        }
    }

    #[test]
    fn a_flow_without_entries_is_forgotten_and_one_told_of_meanwhile_is_not() {
        let hearsay = Hearsay::new(8);
        hearsay.note(1, TOLD);
        hearsay.note(2, TOLD);
        hearsay.begin_sweep();
        assert_eq!(hearsay.met(1), Some(TOLD));
        hearsay.note(3, TOLD);
        hearsay.end_sweep();
        assert_eq!([1, 2, 3].map(|number| hearsay.of(number).is_some()), [true, false, true]);
    }

    #[test]
    fn of_more_flows_than_the_map_has_room_for_nothing_is_kept() {
        let hearsay = Hearsay::new(2);
        for number in 0..5 {
            hearsay.note(number, TOLD);
        }
        let later = Told { used_ns: 8, ..TOLD };
        hearsay.note(0, later);
        assert_eq!(hearsay.of(0), Some(later));
        assert_eq!((0..5).filter(|&number| hearsay.of(number).is_some()).count(), 2);
    }
}
