//! Writing the maps: a plan against what they hold.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use aya::Ebpf;
use aya::maps::{Array, ArrayOfMaps, HashMap, Map, MapData, MapError, PerCpuArray};
use lb_common::Address;
use lb_common::backend::{Backend, BackendCounters};
use lb_common::bucket::Bucket;
use lb_common::filter::AddressFilter;
use lb_common::flow::FlowKey;
use lb_common::interface::{Interface, SLOTS};
use lb_common::layout::map;
use lb_common::nat::NatEntry;
use lb_common::service::{Service, ServiceKey};
use lb_common::settings::{PeerKey, Settings};
use lb_common::vip::Vip;
use tracing::warn;

use super::batch;
use super::error::DataPlaneError;
use super::load::{Capacity, descriptor, take};
use super::nat::{self, NatTimeouts, Sweep};
use super::state::{self, Applied, State};
use crate::plan::{Plan, PlannedService};

/// `BPF_F_INNER_MAP`: tables of any size fit the map `tables`.
const INNER_MAP: u32 = 1 << 12;

type Table = Array<MapData, Bucket>;

pub(super) struct Maps {
    settings: Array<MapData, Settings>,
    filter: Array<MapData, AddressFilter>,
    vips: HashMap<MapData, Address, Vip>,
    interfaces: Array<MapData, Interface>,
    peers: HashMap<MapData, PeerKey, u32>,
    services: HashMap<MapData, ServiceKey, Service>,
    tables: ArrayOfMaps<MapData, Table>,
    backends: Array<MapData, Backend>,
    nat_flows: HashMap<MapData, FlowKey, NatEntry>,
    nat_flows_fd: OwnedFd,
    pub(super) counters: PerCpuArray<MapData, u64>,
    pub(super) backend_counters: PerCpuArray<MapData, BackendCounters>,
    pub(super) state: State,
}

impl Maps {
    /// The object's maps, and what an earlier agent left in them.
    pub(super) fn take(object: &mut Ebpf, capacity: &Capacity) -> Result<Self, DataPlaneError> {
        let mut maps = Self {
            settings: take(object, map::SETTINGS)?,
            filter: take(object, map::ADDRESS_FILTER)?,
            vips: take(object, map::VIPS)?,
            interfaces: take(object, map::INTERFACES)?,
            peers: take(object, map::PEERS)?,
            services: take(object, map::SERVICES)?,
            tables: take(object, map::TABLES)?,
            backends: take(object, map::BACKENDS)?,
            nat_flows_fd: descriptor(object, map::NAT_FLOWS)?,
            nat_flows: take(object, map::NAT_FLOWS)?,
            counters: take(object, map::COUNTERS)?,
            backend_counters: take(object, map::BACKEND_COUNTERS)?,
            state: State::default(),
        };
        maps.recover(capacity)?;
        Ok(maps)
    }

    fn recover(&mut self, capacity: &Capacity) -> Result<(), DataPlaneError> {
        let found = self.services.iter().collect::<Result<Vec<_>, _>>();
        let found = found.map_err(|e| DataPlaneError::map("reading", map::SERVICES, e))?;
        for (key, service) in found {
            let sizes = (capacity.backends, capacity.tables());
            let why = state::spoilt(&service, &self.state, sizes);
            let (None, Some(block)) = (why, state::block(&service)) else {
                warn!(?key, why, "a service in the pinned maps is spoilt and forgotten");
                ignore_missing(self.services.remove(&key))
                    .map_err(|e| DataPlaneError::map("removing from", map::SERVICES, e))?;
                continue;
            };
            let backends = block
                .clone()
                .map(|index| self.backends.get(&index, 0))
                .collect::<Result<Vec<_>, _>>()
                .map_err(|e| DataPlaneError::map("reading", map::BACKENDS, e))?;
            self.state.services.insert(key, Applied { service, block, backends, buckets: None });
        }
        Ok(())
    }

    pub(super) fn apply(&mut self, plan: &Plan, capacity: &Capacity) -> Result<(), DataPlaneError> {
        within("services", plan.services.len() as u64, u64::from(capacity.services))?;
        // What packets need to be recognised comes after what they need to be steered.
        self.apply_interfaces(plan)?;
        self.apply_peers(plan)?;
        for service in &plan.services {
            self.apply_service(service, capacity)?;
        }
        self.remove_services(plan)?;
        self.apply_vips(plan)?;
        self.settings
            .set(0, plan.settings, 0)
            .map_err(|e| DataPlaneError::map("writing", map::SETTINGS, e))?;
        self.filter
            .set(0, plan.filter, 0)
            .map_err(|e| DataPlaneError::map("writing", map::ADDRESS_FILTER, e))
    }

    fn apply_service(
        &mut self,
        planned: &PlannedService,
        capacity: &Capacity,
    ) -> Result<(), DataPlaneError> {
        let entries: Vec<Backend> = planned.backends.iter().map(|b| b.entry).collect();
        let before = self.state.services.get(&planned.key).cloned();
        let before = before.as_ref();
        let block = match before.filter(|applied| same_backends(&applied.backends, &entries)) {
            Some(applied) => applied.block.clone(),
            None => self.state.free_block(entries.len() as u32, capacity.backends).ok_or(
                DataPlaneError::Limit {
                    what: "backends",
                    needed: entries.len() as u64,
                    limit: u64::from(capacity.backends),
                },
            )?,
        };
        let kept = before.filter(|applied| applied.block == block);
        for (at, entry) in entries.iter().enumerate() {
            if kept.is_some_and(|applied| applied.backends[at] == *entry) {
                continue;
            }
            self.backends
                .set(block.start + at as u32, entry, 0)
                .map_err(|e| DataPlaneError::map("writing", map::BACKENDS, e))?;
        }
        let table = match kept.filter(|applied| has_table(applied, planned)) {
            Some(applied) => applied.service.table,
            None => self.write_table(&planned.buckets, capacity)?,
        };
        let service = Service {
            seed: planned.seed,
            table,
            slots: planned.slots,
            backends: block.start,
            flags: planned.flags,
            backend_count: entries.len() as u32,
            reserved: 0,
        };
        let former = before.map(|applied| applied.service);
        if former != Some(service) {
            self.services
                .insert(planned.key, service, 0)
                .map_err(|e| DataPlaneError::map("writing", map::SERVICES, e))?;
        }
        let buckets = Some(Arc::clone(&planned.buckets));
        let applied = Applied { service, block, backends: entries, buckets };
        self.state.services.insert(planned.key, applied);
        match former {
            Some(former) if former.table != table => self.drop_table(former.table),
            _ => Ok(()),
        }
    }

    /// Writes a table beside the one in use.
    fn write_table(
        &mut self,
        buckets: &[Bucket],
        capacity: &Capacity,
    ) -> Result<u32, DataPlaneError> {
        let index = self.state.free_table(capacity.tables()).ok_or(DataPlaneError::Limit {
            what: "services",
            needed: u64::from(capacity.tables()) + 1,
            limit: u64::from(capacity.tables()),
        })?;
        self.set_table(index, buckets)?;
        Ok(index)
    }

    /// Gives a table's memory back: an empty one takes its place.
    fn drop_table(&mut self, index: u32) -> Result<(), DataPlaneError> {
        self.set_table(index, &[Bucket::EMPTY])
    }

    fn set_table(&mut self, index: u32, buckets: &[Bucket]) -> Result<(), DataPlaneError> {
        let failed = |e: MapError| DataPlaneError::map("writing a table of", map::TABLES, e);
        let table = batch::array_of(buckets, INNER_MAP)
            .map_err(MapError::IoError)
            .and_then(MapData::from_fd)
            .and_then(Map::from_map_data)
            .and_then(Table::try_from)
            .map_err(failed)?;
        self.tables.set(index, &table, 0).map_err(failed)
    }

    fn remove_services(&mut self, plan: &Plan) -> Result<(), DataPlaneError> {
        let planned: HashSet<ServiceKey> = plan.services.iter().map(|s| s.key).collect();
        let gone: Vec<ServiceKey> =
            self.state.services.keys().filter(|key| !planned.contains(key)).copied().collect();
        for key in gone {
            ignore_missing(self.services.remove(&key))
                .map_err(|e| DataPlaneError::map("removing from", map::SERVICES, e))?;
            if let Some(applied) = self.state.services.remove(&key) {
                self.drop_table(applied.service.table)?;
            }
        }
        Ok(())
    }

    fn apply_vips(&mut self, plan: &Plan) -> Result<(), DataPlaneError> {
        let planned: HashSet<Address> = plan.vips.iter().map(|&vip| vip.into()).collect();
        let present: HashSet<Address> = self
            .vips
            .keys()
            .collect::<Result<_, _>>()
            .map_err(|e| DataPlaneError::map("reading", map::VIPS, e))?;
        for vip in present.difference(&planned) {
            ignore_missing(self.vips.remove(vip))
                .map_err(|e| DataPlaneError::map("removing from", map::VIPS, e))?;
        }
        for vip in planned.difference(&present) {
            self.vips
                .insert(vip, Vip::default(), 0)
                .map_err(|e| DataPlaneError::map("writing", map::VIPS, e))?;
        }
        Ok(())
    }

    fn apply_peers(&mut self, plan: &Plan) -> Result<(), DataPlaneError> {
        let planned: HashSet<PeerKey> = plan.peers.iter().copied().collect();
        let present: HashSet<PeerKey> = self
            .peers
            .keys()
            .collect::<Result<_, _>>()
            .map_err(|e| DataPlaneError::map("reading", map::PEERS, e))?;
        for peer in present.difference(&planned) {
            ignore_missing(self.peers.remove(peer))
                .map_err(|e| DataPlaneError::map("removing from", map::PEERS, e))?;
        }
        for peer in planned.difference(&present) {
            self.peers
                .insert(peer, 1, 0)
                .map_err(|e| DataPlaneError::map("writing", map::PEERS, e))?;
        }
        Ok(())
    }

    fn apply_interfaces(&mut self, plan: &Plan) -> Result<(), DataPlaneError> {
        for slot in 0..SLOTS {
            let planned = plan.interfaces.iter().find(|i| i.ifindex % SLOTS == slot);
            let value = planned.copied().unwrap_or_default();
            self.interfaces
                .set(slot, value, 0)
                .map_err(|e| DataPlaneError::map("writing", map::INTERFACES, e))?;
        }
        Ok(())
    }

    pub(super) fn holds_lease(&self, now_ns: u64) -> bool {
        self.vips.iter().flatten().any(|(_, vip)| vip.lease_until_ns > now_ns)
    }

    pub(super) fn sweep_nat(&mut self, timeouts: &NatTimeouts) -> Result<Sweep, DataPlaneError> {
        let mut entries = std::collections::HashMap::new();
        let empty = NatEntry::EMPTY;
        batch::for_each(&self.nat_flows_fd, empty, |key: &FlowKey, entry: &NatEntry| {
            entries.insert(*key, *entry);
        })
        .map_err(|source| DataPlaneError::Map {
            operation: "reading",
            map: map::NAT_FLOWS.to_owned(),
            source,
        })?;
        let (over, flows) = nat::expired(&entries, timeouts, super::monotonic_ns());
        for (client, reply) in &over {
            for key in [client, reply] {
                ignore_missing(self.nat_flows.remove(key))
                    .map_err(|e| DataPlaneError::map("removing from", map::NAT_FLOWS, e))?;
            }
        }
        Ok(Sweep { flows, removed: over.len() as u64 })
    }
}

/// Whether the same backends stand in the same places; how they are reached may differ.
fn same_backends(before: &[Backend], now: &[Backend]) -> bool {
    before.len() == now.len()
        && before.iter().zip(now).all(|(a, b)| a.address == b.address && a.port_be == b.port_be)
}

fn has_table(applied: &Applied, planned: &PlannedService) -> bool {
    applied.service.slots == planned.slots
        && applied.buckets.as_ref().is_some_and(|buckets| {
            Arc::ptr_eq(buckets, &planned.buckets) || **buckets == *planned.buckets
        })
}

fn ignore_missing(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error))
            if error.io_error.raw_os_error() == Some(libc::ENOENT) =>
        {
            Ok(())
        }
        other => other,
    }
}

const fn within(what: &'static str, needed: u64, limit: u64) -> Result<(), DataPlaneError> {
    if needed > limit {
        return Err(DataPlaneError::Limit { what, needed, limit });
    }
    Ok(())
}
