//! The servers that connection ids name, by the block of backends that they are in: a changed set, or the
//! same with other ids, is another block, whose ids are written before programs look for them.

use std::collections::{BTreeMap, BTreeSet};

use aya::maps::{HashMap, MapData};
use lb_common::layout::map;
use lb_common::quic::ServerId;

use super::error::DataPlaneError;
use super::maps::ignore_missing;
use super::pins::{Pins, open_map};

pub(super) struct ServerIds {
    map: HashMap<MapData, ServerId, u32>,
    /// What it holds.
    held: BTreeMap<ServerId, u32>,
}

impl ServerIds {
    pub(super) fn take(pins: &Pins) -> Result<Self, DataPlaneError> {
        let map: HashMap<MapData, ServerId, u32> = open_map(pins, map::SERVER_IDS)?;
        let held = map.iter().collect::<Result<_, _>>();
        let held = held.map_err(|e| DataPlaneError::map("reading", map::SERVER_IDS, e))?;
        Ok(Self { map, held })
    }

    /// The ids of the block that begins at this backend, each with its place in it.
    pub(super) fn of(&self, backends: u32) -> Vec<(u64, u32)> {
        let of = |id| ServerId { backends, padding: 0, id };
        let held = self.held.range(of(0)..=of(u64::MAX));
        held.map(|(key, &place)| (key.id, place)).collect()
    }

    /// Writes the ids of a block. No program may read those of a former block at its place any more.
    pub(super) fn write(
        &mut self,
        backends: u32,
        ids: &[(u64, u32)],
    ) -> Result<(), DataPlaneError> {
        for &(id, place) in ids {
            let key = ServerId { backends, padding: 0, id };
            self.map
                .insert(key, place, 0)
                .map_err(|e| DataPlaneError::map("writing", map::SERVER_IDS, e))?;
            self.held.insert(key, place);
        }
        Ok(())
    }

    /// Removes those of blocks that are none any more. Returns whether there were any.
    pub(super) fn keep_only(&mut self, blocks: &BTreeSet<u32>) -> Result<bool, DataPlaneError> {
        let gone: Vec<ServerId> =
            self.held.keys().filter(|key| !blocks.contains(&key.backends)).copied().collect();
        for key in &gone {
            ignore_missing(self.map.remove(key))
                .map_err(|e| DataPlaneError::map("removing from", map::SERVER_IDS, e))?;
            self.held.remove(key);
        }
        Ok(!gone.is_empty())
    }
}
