//! What the maps hold, as the agent knows it, and which of their indexes are free. Pure.
//!
//! A table belongs to all services that have the same backends, a block of backends to one service:
//! its backends' counters are its own.
//!
//! What a service no longer uses is **retired** first: a program that began before the change may go
//! on reading it. It is free once every program has ended that ran then. A table that was retired keeps
//! its memory until another one takes its place or it is tidied away: it is **stale**.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use lb_common::backend::Backend;
use lb_common::service::{Service, ServiceKey};

use crate::plan::SharedTable;

/// A service as it stands in the maps.
#[derive(Clone, Debug)]
pub(super) struct Applied {
    pub(super) service: Service,
    /// Where its versions are.
    pub(super) place: u32,
    /// Its backends' indexes.
    pub(super) block: Range<u32>,
    /// What they hold.
    pub(super) backends: Arc<[Backend]>,
}

/// A table as it stands in the maps.
#[derive(Clone, Debug, Default)]
pub(super) struct HeldTable {
    /// None where an earlier agent wrote it.
    pub(super) table: Option<Arc<SharedTable>>,
    /// What the kernel takes for it; 0 where an earlier agent wrote it.
    pub(super) bytes: u64,
}

/// The tables of all services, and what is left of former ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TablesMemory {
    /// Different ones.
    pub tables: u32,
    /// Of all of them together.
    pub slots: u64,
    /// Of kernel memory.
    pub bytes: u64,
}

/// What of a service that an earlier agent left cannot be: where it points to nothing, or to what
/// another service has. Changing one of the two would change both.
pub(super) fn spoilt(
    service: &Service,
    place: u32,
    state: &State,
    capacity: (u32, u32),
) -> Option<&'static str> {
    let (backends, tables) = capacity;
    let Some(block) = block(service).filter(|block| block.end <= backends) else {
        return Some("its backends lie outside the map");
    };
    if block.is_empty() {
        return Some("it has no backends");
    }
    if service.table >= tables {
        return Some("its table lies outside the map");
    }
    let mut others = state.services.values();
    others.find_map(|other| {
        if other.service.table == service.table && other.service.slots != service.slots {
            Some("its table is another service's, with another size")
        } else if other.place == place {
            Some("its place is another service's")
        } else if block.start < other.block.end && other.block.start < block.end {
            Some("its backends are another service's")
        } else {
            None
        }
    })
}

/// The indexes of a service's backends.
pub(super) fn block(service: &Service) -> Option<Range<u32>> {
    let end = service.backends.checked_add(service.backend_count)?;
    Some(service.backends..end)
}

#[derive(Default, Debug)]
pub(super) struct State {
    pub(super) services: HashMap<ServiceKey, Applied>,
    /// Those that services use, that are not used yet, and that are retired.
    pub(super) tables: BTreeMap<u32, HeldTable>,
    retired_blocks: Vec<Range<u32>>,
    retired_tables: BTreeSet<u32>,
    /// The bytes of each.
    stale_tables: BTreeMap<u32, u64>,
    /// Of services' versions.
    pub(super) places: Places,
    retired_places: Vec<u32>,
    /// Places of services whose former version may still be read.
    switched: BTreeSet<u32>,
    /// Whether elements of hash maps were removed that may still be read.
    removed: bool,
}

/// Which of the places of services' versions are free.
#[derive(Default, Debug)]
pub(super) struct Places {
    /// Free ones below `end`.
    free: BTreeSet<u32>,
    /// From here on all are.
    end: u32,
}

impl Places {
    /// The lowest free one below `limit`, which is free no more.
    pub(super) fn take(&mut self, limit: u32) -> Option<u32> {
        let place = self.free.first().copied().unwrap_or(self.end);
        (place < limit).then(|| self.claim(place))
    }

    /// Takes this one.
    pub(super) fn claim(&mut self, place: u32) -> u32 {
        self.free.extend(self.end..place);
        self.end = self.end.max(place + 1);
        self.free.remove(&place);
        place
    }

    /// Frees one that was taken.
    pub(super) fn give(&mut self, place: u32) {
        self.free.insert(place);
    }
}

impl State {
    /// The first run of `count` free backend indexes below `limit`.
    pub(super) fn free_block(&self, count: u32, limit: u32) -> Option<Range<u32>> {
        let blocks = self.services.values().map(|applied| &applied.block);
        let used: BTreeMap<u32, u32> =
            blocks.chain(&self.retired_blocks).map(|block| (block.start, block.end)).collect();
        let mut start = 0;
        for (&from, &to) in &used {
            if from.saturating_sub(start) >= count {
                break;
            }
            start = start.max(to);
        }
        (start.checked_add(count)? <= limit).then(|| start..start + count)
    }

    /// A table index that nothing uses: one that is stale, or else the lowest.
    pub(super) fn free_table(&self, limit: u32) -> Option<u32> {
        if let Some((&stale, _)) = self.stale_tables.first_key_value() {
            return Some(stale);
        }
        let mut free = 0;
        // In ascending order; a retired one goes on to be among them.
        for &table in self.tables.keys() {
            if table > free {
                break;
            }
            free = table + 1;
        }
        (free < limit).then_some(free)
    }

    /// Those that are not retired.
    pub(super) fn lasting_tables(&self) -> impl Iterator<Item = (&u32, &HeldTable)> {
        self.tables.iter().filter(|(index, _)| !self.retired_tables.contains(index))
    }

    /// Where the maps hold this very table.
    pub(super) fn index_of(&self, table: &SharedTable) -> Option<u32> {
        let mut held = self.lasting_tables();
        let is_it = |held: &HeldTable| held.table.as_ref().is_some_and(|held| held.is_like(table));
        held.find_map(|(&index, held)| is_it(held).then_some(index))
    }

    /// Notes what the maps hold for a service now. What it had before, and has no more, is retired.
    pub(super) fn set(&mut self, key: ServiceKey, applied: Applied) {
        let block = applied.block.clone();
        if let Some(former) = self.services.insert(key, applied)
            && former.block != block
        {
            self.retired_blocks.push(former.block);
        }
    }

    /// Notes that the maps no longer hold a service.
    pub(super) fn remove(&mut self, key: &ServiceKey) {
        if let Some(former) = self.services.remove(key) {
            self.retired_blocks.push(former.block);
            self.retired_places.push(former.place);
            self.note_removal();
        }
    }

    /// Notes a table that is about to be written to an index that was free.
    pub(super) fn hold(&mut self, index: u32, table: Arc<SharedTable>) {
        self.stale_tables.remove(&index);
        self.tables.insert(index, HeldTable { table: Some(table), bytes: 0 });
    }

    /// Notes that an index holds something that nobody uses: a table that was not written whole, or one
    /// that an earlier agent left.
    pub(super) fn give_up(&mut self, index: u32) {
        let held = self.tables.remove(&index);
        self.stale_tables.insert(index, held.map_or(0, |held| held.bytes));
    }

    /// Retires the tables that no service uses.
    pub(super) fn retire_unused_tables(&mut self) {
        let used: BTreeSet<u32> = self.services.values().map(|a| a.service.table).collect();
        let unused = self.tables.keys().filter(|index| !used.contains(index));
        self.retired_tables.extend(unused);
    }

    pub(super) fn tables_memory(&self) -> TablesMemory {
        let stale: u64 = self.stale_tables.values().sum();
        let sum = TablesMemory { bytes: stale, ..TablesMemory::default() };
        self.tables.values().fold(sum, |sum, held| TablesMemory {
            tables: sum.tables + 1,
            slots: sum.slots + held.table.as_ref().map_or(0, |table| u64::from(table.slots())),
            bytes: sum.bytes + held.bytes,
        })
    }

    /// A service's table: its index and its bytes.
    pub(super) fn table_of(&self, key: &ServiceKey) -> Option<(u32, u64)> {
        let index = self.services.get(key)?.service.table;
        Some((index, self.tables.get(&index)?.bytes))
    }

    /// Notes that an element of a hash map was removed.
    pub(super) const fn note_removal(&mut self) {
        self.removed = true;
    }

    pub(super) const fn has_removed(&self) -> bool {
        self.removed
    }

    /// Notes that the service at a place has another version now.
    pub(super) fn note_switch(&mut self, place: u32) {
        self.switched.insert(place);
    }

    /// Whether the version that the service at a place had before may still be read.
    pub(super) fn was_switched(&self, place: u32) -> bool {
        self.switched.contains(&place)
    }

    pub(super) fn has_retired(&self) -> bool {
        // Retired places are of what was removed.
        !self.retired_blocks.is_empty()
            || !self.retired_tables.is_empty()
            || !self.switched.is_empty()
            || self.removed
    }

    /// Frees what is retired. Only once no program can read it any more.
    pub(super) fn free_retired(&mut self) {
        self.retired_blocks.clear();
        self.switched.clear();
        self.removed = false;
        for place in std::mem::take(&mut self.retired_places) {
            self.places.give(place);
        }
        for index in std::mem::take(&mut self.retired_tables) {
            self.give_up(index);
        }
    }

    /// The indexes of tables that nobody reads and that take memory.
    pub(super) fn stale_tables(&self) -> Vec<u32> {
        self.stale_tables.keys().copied().collect()
    }

    /// Notes that the stale tables' memory was given back.
    pub(super) fn tidied(&mut self) {
        self.stale_tables.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_common::Address;

    fn state(entries: &[(u32, Range<u32>)]) -> State {
        let services = entries.iter().enumerate().map(|(i, (table, block))| {
            let key = ServiceKey {
                address: Address::UNSPECIFIED,
                port_be: i as u16,
                protocol: 6,
                padding: 0,
            };
            let service = Service {
                seed: 0,
                table: *table,
                slots: 0,
                backends: block.start,
                flags: 0,
                backend_count: block.len() as u32,
                protection: 0,
            };
            let applied =
                Applied { service, place: i as u32, block: block.clone(), backends: Arc::from([]) };
            (key, applied)
        });
        let tables = entries.iter().map(|(table, _)| (*table, HeldTable::default()));
        State { services: services.collect(), tables: tables.collect(), ..State::default() }
    }

    #[test]
    fn a_service_that_points_nowhere_or_into_another_one_is_spoilt() {
        let state = state(&[(0, 0..3)]);
        let service = state.services.values().next().unwrap().service;
        let judged = |table, backends, backend_count| {
            let service = Service { table, backends, backend_count, ..service };
            spoilt(&service, 1, &state, (16, 4))
        };
        assert_eq!(judged(1, 3, 13), None);
        assert!(judged(1, 3, 14).unwrap().contains("backends lie outside"));
        assert!(judged(1, u32::MAX, 2).unwrap().contains("backends lie outside"));
        assert!(judged(1, 0, 0).unwrap().contains("no backends"));
        assert!(judged(4, 3, 1).unwrap().contains("table lies outside"));
        assert_eq!(judged(0, 3, 1), None, "services share tables");
        let larger = Service { slots: 7, backends: 3, backend_count: 1, ..service };
        assert!(spoilt(&larger, 1, &state, (16, 4)).unwrap().contains("another size"));
        let other = Service { backends: 3, backend_count: 1, ..service };
        assert!(spoilt(&other, 0, &state, (16, 4)).unwrap().contains("place is another"));
        assert!(judged(1, 2, 1).unwrap().contains("backends are another"));
    }

    #[test]
    fn a_block_fills_the_first_gap_that_is_large_enough() {
        let state = state(&[(0, 0..3), (1, 5..8), (2, 20..21)]);
        assert_eq!(state.free_block(2, 100), Some(3..5));
        assert_eq!(state.free_block(3, 100), Some(8..11));
        assert_eq!(state.free_block(13, 100), Some(21..34));
        assert_eq!(state.free_block(80, 100), None);
    }

    #[test]
    fn the_lowest_free_table_is_taken() {
        assert_eq!(state(&[]).free_table(4), Some(0));
        assert_eq!(state(&[(0, 0..1), (2, 1..2)]).free_table(4), Some(1));
        assert_eq!(state(&[(0, 0..1), (1, 1..2)]).free_table(2), None);
    }

    #[test]
    fn what_a_program_may_still_read_is_not_free() {
        let mut state = state(&[(0, 0..3), (1, 3..6)]);
        let key = *state.services.iter().find(|(_, a)| a.block.start == 0).unwrap().0;
        let mut moved = state.services[&key].clone();
        (moved.block, moved.service.table) = (6..9, 1);
        state.set(key, moved);
        state.retire_unused_tables();
        assert!(state.has_retired());
        assert_eq!(state.free_block(3, 9), None);
        assert_eq!(state.free_table(2), None);
        state.free_retired();
        assert_eq!(state.free_block(3, 9), Some(0..3));
        assert_eq!(state.free_table(2), Some(0));
        assert_eq!(state.stale_tables(), [0]);
        assert!(!state.has_retired());
        state.tidied();
        assert_eq!(state.stale_tables(), [0; 0]);
        assert_eq!(state.free_table(2), Some(0));
    }

    #[test]
    fn the_lowest_free_place_is_taken_and_one_that_may_be_read_is_not() {
        let mut places = Places::default();
        assert_eq!(places.claim(2), 2);
        assert_eq!([places.take(4), places.take(4), places.take(4)], [Some(0), Some(1), Some(3)]);
        assert_eq!(places.take(4), None);
        places.give(1);
        assert_eq!(places.take(4), Some(1));

        let mut state = state(&[(0, 0..3), (1, 3..6)]);
        state.places.claim(0);
        state.places.claim(1);
        let first = *state.services.iter().find(|(_, a)| a.place == 0).unwrap().0;
        state.remove(&first);
        assert!(state.has_removed() && state.has_retired());
        assert_eq!(state.places.take(2), None);
        state.free_retired();
        assert!(!state.has_removed());
        assert_eq!(state.places.take(2), Some(0));
    }

    #[test]
    fn a_former_version_is_in_use_until_its_readers_have_ended() {
        let mut state = state(&[(0, 0..3)]);
        assert!(!state.was_switched(0));
        state.note_switch(0);
        assert!(state.was_switched(0) && state.has_retired());
        state.free_retired();
        assert!(!state.was_switched(0) && !state.has_retired());
    }

    #[test]
    fn a_place_that_was_given_up_is_the_first_to_be_used_again() {
        let mut state = state(&[(0, 0..3), (1, 3..6)]);
        assert_eq!(state.free_table(8), Some(2));
        state.give_up(5);
        assert_eq!(state.free_table(8), Some(5));
        assert_eq!(state.stale_tables(), [5]);
        state.hold(5, Arc::new(SharedTable::of_buckets(Arc::from([]))));
        assert_eq!(state.free_table(8), Some(2));
        assert_eq!(state.stale_tables(), [0; 0]);
    }

    #[test]
    fn a_table_is_found_again_as_long_as_a_service_uses_it() {
        let table = |slot: u16| {
            let mut bucket = lb_common::bucket::Bucket::EMPTY;
            bucket.ranks[0] = slot;
            Arc::new(SharedTable::of_buckets(Arc::from([bucket])))
        };
        let mut state = state(&[(0, 0..3)]);
        state.tables.insert(0, HeldTable { table: Some(table(1)), bytes: 16 });
        state.tables.insert(1, HeldTable { table: Some(table(2)), bytes: 16 });
        assert_eq!(state.index_of(&table(1)), Some(0));
        assert_eq!(state.index_of(&table(2)), Some(1));
        assert_eq!(state.index_of(&table(3)), None);
        state.retire_unused_tables();
        assert_eq!(state.index_of(&table(2)), None);
    }
}
