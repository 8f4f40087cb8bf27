//! The maps of what services refuse: each service's rules, and the lists that some of them name.
//!
//! Rules that change, or their list, are written beside those in use. The service's own value then says
//! which count, and what nobody names any more is given back.

use std::collections::BTreeMap;

use aya::maps::lpm_trie::LpmTrie;
use aya::maps::{Array, ArrayOfMaps, Map, MapData, MapError};
use lb_common::Address;
use lb_common::layout::map;
use lb_common::protection::{LISTED, PrefixKey, Protection};
use tracing::warn;

use super::batch;
use super::error::DataPlaneError;
use super::pins::{Pins, open_map};
use crate::plan::{List, PlannedProtection};

type Trie = LpmTrie<MapData, Address, u32>;

/// Of an element of `protections` that a service names.
struct Held {
    /// As the map has it.
    rules: Protection,
    /// What this agent wrote; an earlier one's is not known.
    planned: Option<PlannedProtection>,
}

impl Held {
    fn list(&self) -> Option<u32> {
        (self.rules.rules & LISTED != 0).then_some(self.rules.list)
    }
}

pub(super) struct Protections {
    rules: Array<MapData, Protection>,
    lists: ArrayOfMaps<MapData, Trie>,
    held: BTreeMap<u32, Held>,
    /// Of those that no service names any more, but a program may still read.
    retired: Vec<u32>,
    /// Elements of both maps.
    limit: u32,
}

impl Protections {
    pub(super) fn take(pins: &Pins, limit: u32) -> Result<Self, DataPlaneError> {
        Ok(Self {
            rules: open_map(pins, map::PROTECTIONS)?,
            lists: open_map(pins, map::LISTS)?,
            held: BTreeMap::new(),
            retired: Vec::new(),
            limit,
        })
    }

    /// Notes that a service of an earlier agent names an element, so that it stays what it is.
    pub(super) fn recover(&mut self, index: u32) -> Result<(), DataPlaneError> {
        if index >= self.limit {
            warn!(index, "a service in the pinned maps names rules outside their map");
            return Ok(());
        }
        let rules = self
            .rules
            .get(&index, 0)
            .map_err(|e| DataPlaneError::map("reading", map::PROTECTIONS, e))?;
        self.held.insert(index, Held { rules, planned: None });
        Ok(())
    }

    /// Where the planned rules stand, written if they did not: at `before`, if they are those that a
    /// service has already.
    pub(super) fn place(
        &mut self,
        before: Option<u32>,
        planned: &PlannedProtection,
    ) -> Result<u32, DataPlaneError> {
        let is_there = |index: &u32| {
            let held = self.held.get(index).and_then(|held| held.planned.as_ref());
            held.is_some_and(|held| held.is_same(planned))
        };
        if let Some(index) = before.filter(is_there) {
            return Ok(index);
        }
        let list = planned.list.as_ref().map(|list| self.place_list(list)).transpose()?;
        let index = free(self.held.keys().copied(), self.limit)?;
        let rules = Protection { list: list.unwrap_or(0), ..planned.rules };
        self.rules
            .set(index, rules, 0)
            .map_err(|e| DataPlaneError::map("writing", map::PROTECTIONS, e))?;
        self.held.insert(index, Held { rules, planned: Some(planned.clone()) });
        Ok(index)
    }

    /// Where a list stands. Services that share one, as those of several addresses do, share its memory.
    fn place_list(&mut self, list: &List) -> Result<u32, DataPlaneError> {
        let same = |held: &Held| {
            let of = held.planned.as_ref().and_then(|planned| planned.list.as_ref());
            of.is_some_and(|of| of.is_same(list)).then(|| held.list()).flatten()
        };
        if let Some(index) = self.held.values().find_map(same) {
            return Ok(index);
        }
        let mut used: Vec<u32> = self.held.values().filter_map(Held::list).collect();
        used.sort_unstable();
        used.dedup();
        let index = free(used.into_iter(), self.limit)?;
        self.set_list(index, list.keys(), list.values())?;
        Ok(index)
    }

    /// Notes that no service names these rules any more.
    pub(super) fn retire(&mut self, index: u32) {
        self.retired.push(index);
    }

    pub(super) fn has_retired(&self) -> bool {
        !self.retired.is_empty()
    }

    /// Forgets what was retired, which no program reads any more; a last one's list gives its memory back.
    pub(super) fn free_retired(&mut self) -> Result<(), DataPlaneError> {
        for index in std::mem::take(&mut self.retired) {
            self.release(index)?;
        }
        Ok(())
    }

    fn release(&mut self, index: u32) -> Result<(), DataPlaneError> {
        let Some(list) = self.held.remove(&index).and_then(|held| held.list()) else {
            return Ok(());
        };
        if list < self.limit && !self.held.values().any(|held| held.list() == Some(list)) {
            return self.set_list(list, &[], &[]);
        }
        Ok(())
    }

    fn set_list(
        &mut self,
        index: u32,
        keys: &[PrefixKey],
        values: &[u32],
    ) -> Result<(), DataPlaneError> {
        let failed = |e: MapError| DataPlaneError::map("writing a list of", map::LISTS, e);
        let trie = batch::trie_of(keys, values)
            .map_err(MapError::IoError)
            .and_then(MapData::from_fd)
            .and_then(Map::from_map_data)
            .and_then(Trie::try_from)
            .map_err(failed)?;
        self.lists.set(index, &trie, 0).map_err(failed)
    }
}

/// The lowest index that is not used; `used` in ascending order.
fn free(used: impl Iterator<Item = u32>, limit: u32) -> Result<u32, DataPlaneError> {
    let mut free = 0;
    for index in used {
        if index > free {
            break;
        }
        free = index + 1;
    }
    if free < limit {
        return Ok(free);
    }
    let (needed, limit) = (u64::from(limit) + 1, u64::from(limit));
    Err(DataPlaneError::Limit { what: "services", needed, limit })
}

#[cfg(test)]
mod tests {

    #[test]
    fn the_lowest_free_place_is_taken_and_none_behind_the_last() {
        let free = |used: &[u32], limit| super::free(used.iter().copied(), limit).ok();
        assert_eq!(free(&[], 2), Some(0));
        assert_eq!(free(&[0, 2], 4), Some(1));
        assert_eq!(free(&[0, 1], 2), None);
    }
}
