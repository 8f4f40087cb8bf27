//! The map of services, and what it leads to: of each service the version in use, and room for the next.

use std::sync::atomic::Ordering;

use aya::maps::{HashMap, MapData};
use lb_common::layout::map;
use lb_common::service::{Service, ServiceKey, ServiceVersions};

use super::error::DataPlaneError;
use super::maps::ignore_missing;
use super::pins::{Pins, descriptor, open_map};
use super::shared::SharedArray;

pub(super) struct Services {
    places: HashMap<MapData, ServiceKey, u32>,
    versions: SharedArray,
}

impl Services {
    pub(super) fn take(pins: &Pins, limit: u32) -> Result<Self, DataPlaneError> {
        let versions = descriptor(pins, map::SERVICE_VERSIONS)?;
        let versions = SharedArray::of::<ServiceVersions>(versions, limit)
            .map_err(|e| DataPlaneError::io("mapping", map::SERVICE_VERSIONS, e))?;
        Ok(Self { places: open_map(pins, map::SERVICES)?, versions })
    }

    /// Those that the map holds, and their places.
    pub(super) fn held(&self) -> Result<Vec<(ServiceKey, u32)>, DataPlaneError> {
        let held = self.places.iter().collect::<Result<_, _>>();
        held.map_err(|e| DataPlaneError::map("reading", map::SERVICES, e))
    }

    /// The version in use at a place; none where the place is outside the map.
    pub(super) fn at(&self, place: u32) -> Option<Service> {
        let words = self.versions.get(place)?;
        let at = first_word(words[0].load(Ordering::Acquire));
        let words: [u64; Service::WORDS] =
            std::array::from_fn(|word| words[at + word].load(Ordering::Relaxed));
        Some(Service::from_words(words))
    }

    /// Writes a version beside the one in use, and lets programs go on with it. No program may read
    /// the one before any more.
    pub(super) fn write(&self, place: u32, service: &Service) -> Result<(), DataPlaneError> {
        let words = self.versions.get(place);
        let words = words.ok_or(DataPlaneError::Inconsistent("a service outside the map"))?;
        let next = words[0].load(Ordering::Acquire) & 1 ^ 1;
        for (to, word) in words[first_word(next)..].iter().zip(service.words()) {
            to.store(word, Ordering::Relaxed);
        }
        words[0].store(next, Ordering::Release);
        Ok(())
    }

    /// Lets programs find the service at a place. Of those that were removed before no program reads
    /// any more.
    pub(super) fn add(&mut self, key: &ServiceKey, place: u32) -> Result<(), DataPlaneError> {
        self.places
            .insert(key, place, 0)
            .map_err(|e| DataPlaneError::map("writing", map::SERVICES, e))
    }

    pub(super) fn remove(&mut self, key: &ServiceKey) -> Result<(), DataPlaneError> {
        ignore_missing(self.places.remove(key))
            .map_err(|e| DataPlaneError::map("removing from", map::SERVICES, e))
    }
}

/// Where among [`ServiceVersions`]' words a version begins.
const fn first_word(version: u64) -> usize {
    1 + (version & 1) as usize * Service::WORDS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_s_words_lie_where_the_program_looks_for_it() {
        let base = std::mem::offset_of!(ServiceVersions, versions);
        assert_eq!(first_word(0) * 8, base);
        assert_eq!(first_word(1) * 8, base + size_of::<Service>());
        assert_eq!(std::mem::offset_of!(ServiceVersions, current), 0);
    }
}
