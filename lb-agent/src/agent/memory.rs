//! What the agent and its maps take of the machine's memory.

use std::collections::HashMap;

use lb_common::layout::map;

use super::core::Agent;
use crate::control::api;
use crate::dataplane::{DataPlaneError, MapMemory};

/// Kernel memory of single things, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EachBytes {
    /// A service's entry at one address, without its backends and its table.
    pub(super) service: u64,
    /// A backend of one service at one address, with its counters on every CPU.
    pub(super) backend: u64,
    /// A translated flow.
    pub(super) flow: u64,
}

/// What an element of the map `services` takes besides its key and its value, which leads to the
/// service's versions, each rounded up to 8: its head (`struct htab_elem`, 48) and its place in the allocator's list (`LLIST_NODE_SZ`, 8). Unlike the
/// others this map grows and shrinks, so its size does not tell.
const SERVICE_HEAD_BYTES: u64 = 56;

/// Those that have an element for each backend of each service.
const BACKEND_MAPS: [&str; 3] = [map::BACKENDS, map::BACKEND_COUNTERS, map::FAILURES];

fn each(maps: &[MapMemory], flows: u32) -> EachBytes {
    let of_one = |name| {
        let found = maps.iter().find(|map| map.name == name);
        found.map_or(0, |map| map.bytes.div_ceil(u64::from(map.max_entries.max(1))))
    };
    let key = size_of::<lb_common::service::ServiceKey>().next_multiple_of(8) as u64;
    let place = size_of::<u64>() as u64;
    let nat = maps.iter().find(|map| map.name == map::NAT_FLOWS).map_or(0, |map| map.bytes);
    EachBytes {
        service: SERVICE_HEAD_BYTES + key + place + of_one(map::SERVICE_VERSIONS),
        backend: BACKEND_MAPS.into_iter().map(of_one).sum(),
        // Two entries each; the map has room for so many pairs.
        flow: nat.div_ceil(u64::from(flows.max(1))),
    }
}

impl Agent {
    pub(super) fn each_bytes(&self) -> Result<EachBytes, DataPlaneError> {
        Ok(each(&self.dataplane.memory()?, self.config.nat.flows))
    }

    /// How many services have each table, by its index.
    pub(super) fn table_users(&self) -> HashMap<u32, u32> {
        let mut users = HashMap::new();
        for service in &self.services {
            if let Some((table, _)) = self.dataplane.table_of(&service.key) {
                *users.entry(table).or_default() += 1;
            }
        }
        users
    }

    pub(super) fn memory(&self) -> Result<api::Memory, DataPlaneError> {
        let maps = self.dataplane.memory()?;
        let tables = self.dataplane.tables_memory();
        let each = each(&maps, self.config.nat.flows);
        let of = |names: &[&str]| -> u64 {
            maps.iter().filter(|map| names.contains(&map.name)).map(|map| map.bytes).sum()
        };
        let limits = &self.config.limits;
        let used = self.services.iter().map(|service| service.backends.len() as u64).sum();
        let occupied = |used: u64, limit: u64, bytes: u64| api::Occupancy { used, limit, bytes };
        let services = self.services.len() as u64;
        let nat_flows =
            occupied(self.swept.flows, self.config.nat.flows.into(), of(&[map::NAT_FLOWS]));
        let backends = occupied(used, limits.backends.into(), of(&BACKEND_MAPS));
        let entries =
            occupied(services, limits.services.into(), of(&[map::SERVICES, map::SERVICE_VERSIONS]));
        let table_slots = occupied(tables.slots, limits.table_slots, tables.bytes);
        let all: u64 = maps.iter().map(|map| map.bytes).sum();
        let in_use = services * each.service + used * each.backend + tables.bytes;
        Ok(api::Memory {
            agent_bytes: resident_bytes(),
            maps_bytes: all + tables.bytes,
            flow_bytes: each.flow,
            service_bytes: in_use.checked_div(services).unwrap_or(0),
            nat_flows,
            services: entries,
            backends,
            table_slots,
            tables: tables.tables.into(),
            other_bytes: all - nat_flows.bytes - backends.bytes - entries.bytes,
            maps: maps
                .into_iter()
                .map(|map| api::MapMemory {
                    name: map.name.to_owned(),
                    max_entries: map.max_entries,
                    bytes: map.bytes,
                })
                .collect(),
        })
    }
}

/// The agent's resident set: the second number of `/proc/self/statm`, in pages. 0 without /proc.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 =
        statm.split_ascii_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
    pages * u64::try_from(page.unwrap_or(4096)).unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_each_is_its_part_of_its_maps() {
        let map = |name, max_entries, bytes| MapMemory { name, max_entries, bytes };
        let maps = [
            map(map::BACKENDS, 1000, 64_320),
            map(map::BACKEND_COUNTERS, 1000, 56_000),
            map(map::FAILURES, 1000, 64_000),
            map(map::NAT_FLOWS, 200, 35_200),
            map(map::SERVICES, 10, 4096),
            map(map::SERVICE_VERSIONS, 10, 1280),
        ];
        assert_eq!(each(&maps, 100), EachBytes { service: 216, backend: 65 + 56 + 64, flow: 352 });
    }

    #[test]
    fn this_process_has_memory() {
        assert!(resident_bytes() > 100_000);
    }
}
