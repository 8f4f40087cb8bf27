//! What the maps hold, as the agent knows it, and which of their indexes are free. Pure.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use lb_common::backend::Backend;
use lb_common::bucket::Bucket;
use lb_common::service::{Service, ServiceKey};

/// A service as it stands in the maps.
#[derive(Clone, Debug)]
pub(super) struct Applied {
    pub(super) service: Service,
    /// Its backends' indexes.
    pub(super) block: Range<u32>,
    /// What they hold.
    pub(super) backends: Vec<Backend>,
    /// The table, where this agent wrote it.
    pub(super) buckets: Option<Arc<[Bucket]>>,
}

/// What of a service that an earlier agent left cannot be: where it points to nothing, or to what
/// another service has. Changing one of the two would change both.
pub(super) fn spoilt(
    service: &Service,
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
        if other.service.table == service.table {
            Some("its table is another service's")
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
}

impl State {
    /// The first run of `count` free backend indexes below `limit`.
    pub(super) fn free_block(&self, count: u32, limit: u32) -> Option<Range<u32>> {
        let used: BTreeMap<u32, u32> =
            self.services.values().map(|a| (a.block.start, a.block.end)).collect();
        let mut start = 0;
        for (&from, &to) in &used {
            if from.saturating_sub(start) >= count {
                break;
            }
            start = start.max(to);
        }
        (start.checked_add(count)? <= limit).then(|| start..start + count)
    }

    /// The lowest table index that no service uses.
    pub(super) fn free_table(&self, limit: u32) -> Option<u32> {
        let mut used: Vec<u32> = self.services.values().map(|a| a.service.table).collect();
        used.sort_unstable();
        let mut free = 0;
        for table in used {
            if table > free {
                break;
            }
            free = table + 1;
        }
        (free < limit).then_some(free)
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
                reserved: 0,
            };
            let applied =
                Applied { service, block: block.clone(), backends: Vec::new(), buckets: None };
            (key, applied)
        });
        State { services: services.collect() }
    }

    #[test]
    fn a_service_that_points_nowhere_or_into_another_one_is_spoilt() {
        let state = state(&[(0, 0..3)]);
        let service = state.services.values().next().unwrap().service;
        let judged = |table, backends, backend_count| {
            let service = Service { table, backends, backend_count, ..service };
            spoilt(&service, &state, (16, 4))
        };
        assert_eq!(judged(1, 3, 13), None);
        assert!(judged(1, 3, 14).unwrap().contains("backends lie outside"));
        assert!(judged(1, u32::MAX, 2).unwrap().contains("backends lie outside"));
        assert!(judged(1, 0, 0).unwrap().contains("no backends"));
        assert!(judged(4, 3, 1).unwrap().contains("table lies outside"));
        assert!(judged(0, 3, 1).unwrap().contains("table is another"));
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
}
