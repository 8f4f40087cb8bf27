//! Writing the maps: a plan against what they hold.

use std::collections::HashSet;
use std::collections::hash_map::Entry;
use std::ops::Range;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::{Arc, Mutex};

use aya::maps::{Array, HashMap, MapData, MapError};
use lb_common::Address;
use lb_common::backend::Backend;
use lb_common::filter::AddressFilter;
use lb_common::interface::{Interface, SLOTS};
use lb_common::layout::map;
use lb_common::service::{PROTECTED, Service, ServiceKey};
use lb_common::settings::{PeerKey, Settings};
use tracing::warn;

use super::batch;
use super::error::DataPlaneError;
use super::grace::Grace;
use super::lease::{self, Vips};
use super::load::Capacity;
use super::memory;
use super::pins::{Pins, descriptor, open_map};
use super::protection::Protections;
use super::server_ids::ServerIds;
use super::services::Services;
use super::state::{self, Applied, State};
use crate::plan::{Plan, PlannedService, SharedTable};

/// `BPF_F_INNER_MAP`: tables of any size fit the map `tables`.
pub(super) const INNER_MAP: u32 = 1 << 12;

/// So many tables are made and put in their places together: each is a descriptor meanwhile, of which a
/// process that nobody has granted more has 1024.
const TABLES_AT_ONCE: usize = 64;

/// Where each table stands.
type Places = std::collections::HashMap<*const SharedTable, u32>;

pub(super) struct Maps {
    settings: Array<MapData, Settings>,
    filter: Array<MapData, AddressFilter>,
    pub(super) vips: Arc<Mutex<Vips>>,
    interfaces: Array<MapData, Interface>,
    peers: HashMap<MapData, PeerKey, u32>,
    services: Services,
    tables: OwnedFd,
    backends: Array<MapData, Backend>,
    backends_fd: OwnedFd,
    protections: Protections,
    server_ids: ServerIds,
    pub(super) nat_flows: OwnedFd,
    pub(super) connections: OwnedFd,
    pub(super) flows: OwnedFd,
    pub(super) host_origins: OwnedFd,
    pub(super) open: OwnedFd,
    pub(super) counters: OwnedFd,
    pub(super) backend_counters: OwnedFd,
    pub(super) failures: OwnedFd,
    grace: Grace,
    pub(super) state: State,
}

impl Maps {
    /// The object's maps, and what an earlier agent left in them.
    pub(super) fn take(pins: &Pins, capacity: &Capacity) -> Result<Self, DataPlaneError> {
        let mut maps = Self {
            settings: open_map(pins, map::SETTINGS)?,
            filter: open_map(pins, map::ADDRESS_FILTER)?,
            vips: Arc::new(Mutex::new(Vips::take(pins)?)),
            interfaces: open_map(pins, map::INTERFACES)?,
            peers: open_map(pins, map::PEERS)?,
            services: Services::take(pins, capacity.services)?,
            tables: descriptor(pins, map::TABLES)?,
            backends_fd: descriptor(pins, map::BACKENDS)?,
            backends: open_map(pins, map::BACKENDS)?,
            protections: Protections::take(pins, capacity.protections())?,
            server_ids: ServerIds::take(pins)?,
            nat_flows: descriptor(pins, map::NAT_FLOWS)?,
            connections: descriptor(pins, map::CONNECTIONS)?,
            flows: descriptor(pins, map::FLOWS)?,
            host_origins: descriptor(pins, map::HOST_ORIGINS)?,
            open: descriptor(pins, map::OPEN)?,
            counters: descriptor(pins, map::COUNTERS)?,
            backend_counters: descriptor(pins, map::BACKEND_COUNTERS)?,
            failures: descriptor(pins, map::FAILURES)?,
            grace: Grace::new().map_err(|e| DataPlaneError::io("making", map::TABLES, e))?,
            state: State::default(),
        };
        maps.recover(capacity)?;
        Ok(maps)
    }

    fn recover(&mut self, capacity: &Capacity) -> Result<(), DataPlaneError> {
        for (key, place) in self.services.held()? {
            let service = self.services.at(place);
            let why = match &service {
                Some(service) => state::spoilt(
                    service,
                    place,
                    &self.state,
                    (capacity.backends, capacity.tables()),
                ),
                None => Some("its place lies outside the map"),
            };
            let (None, Some(service)) = (why, service) else {
                warn!(?key, why, "a service in the pinned maps is spoilt and forgotten");
                self.services.remove(&key)?;
                self.state.note_removal();
                continue;
            };
            let Some(block) = state::block(&service) else { continue };
            let backends =
                batch::read(&self.backends_fd, block.start, block.len(), 1, Backend::EMPTY)
                    .map_err(|e| DataPlaneError::io("reading", map::BACKENDS, e))?;
            if let Some(index) = protection(&service) {
                self.protections.recover(index)?;
            }
            self.state.tables.entry(service.table).or_default();
            self.state.places.claim(place);
            let backends = backends.into();
            self.state.set(key, Applied { service, place, block, backends });
        }
        // An agent that was killed may have left tables that no service used any more. The lowest free place
        // is always taken, and what was used once is never empty again: behind the first one that is there
        // are none. Older kernels wait for all programs at each look into a map of maps
        // (`bpf_map_copy_value` in 6.1), so there had better be few.
        for index in 0..capacity.tables() {
            if self.state.tables.contains_key(&index) {
                continue;
            }
            let held = batch::lookup(&self.tables, &index, 0u32)
                .map_err(|e| DataPlaneError::io("reading", map::TABLES, e))?;
            if held.is_none() {
                break;
            }
            self.state.give_up(index);
        }
        Ok(())
    }

    pub(super) fn apply(&mut self, plan: &Plan, capacity: &Capacity) -> Result<(), DataPlaneError> {
        within("services", plan.services.len() as u64, u64::from(capacity.services))?;
        // There is room for the rules in use and as many more.
        if self.protections.has_retired() {
            self.await_readers()?;
        }
        // What packets need to be recognised comes after what they need to be steered.
        self.apply_interfaces(plan)?;
        self.apply_peers(plan)?;
        let places = self.write_tables(plan, capacity)?;
        for service in &plan.services {
            let table = places.get(&Arc::as_ptr(&service.table)).copied();
            let table = table.ok_or(DataPlaneError::Inconsistent("a table was not written"))?;
            self.apply_service(service, table, capacity)?;
        }
        self.remove_services(plan)?;
        self.apply_vips(plan)?;
        self.settings
            .set(0, plan.settings, 0)
            .map_err(|e| DataPlaneError::map("writing", map::SETTINGS, e))?;
        self.filter
            .set(0, plan.filter, 0)
            .map_err(|e| DataPlaneError::map("writing", map::ADDRESS_FILTER, e))?;
        self.state.retire_unused_tables();
        Ok(())
    }

    /// Writes the tables that the maps do not hold yet, each once, beside those in use. Returns where
    /// each of the plan's stands.
    fn write_tables(&mut self, plan: &Plan, capacity: &Capacity) -> Result<Places, DataPlaneError> {
        // A retired one may be gone in a moment.
        let held = self.state.lasting_tables();
        let held = held.filter_map(|(&at, held)| Some((Arc::as_ptr(held.table.as_ref()?), at)));
        let mut places: Places = held.collect();
        let mut new: Vec<(u32, &Arc<SharedTable>)> = Vec::new();
        for table in plan.services.iter().map(|service| &service.table) {
            let Entry::Vacant(place) = places.entry(Arc::as_ptr(table)) else { continue };
            if let Some(at) = self.state.index_of(table) {
                place.insert(at);
                continue;
            }
            let at = self.state.free_table(capacity.tables()).ok_or(DataPlaneError::Limit {
                what: "services",
                needed: u64::from(capacity.tables()) + 1,
                limit: u64::from(capacity.tables()),
            })?;
            self.state.hold(at, Arc::clone(table));
            place.insert(at);
            new.push((at, table));
        }
        for some in new.chunks(TABLES_AT_ONCE) {
            if let Err(error) = self.write_some_tables(some) {
                // They are not there: the next attempt is to write them.
                for (at, _) in &new {
                    self.state.give_up(*at);
                }
                return Err(error);
            }
        }
        Ok(places)
    }

    fn write_some_tables(
        &mut self,
        some: &[(u32, &Arc<SharedTable>)],
    ) -> Result<(), DataPlaneError> {
        let failed = |source| DataPlaneError::io("writing a table of", map::TABLES, source);
        let (mut keys, mut tables) = (Vec::new(), Vec::new());
        for (at, table) in some {
            let made = batch::array_of(&table.buckets(), INNER_MAP).map_err(failed)?;
            table.release();
            let bytes = memory::memlock(&made).map_err(failed)?;
            if let Some(held) = self.state.tables.get_mut(at) {
                held.bytes = bytes;
            }
            keys.push(*at);
            tables.push(made);
        }
        let descriptors: Vec<u32> =
            tables.iter().map(|made| made.as_raw_fd().cast_unsigned()).collect();
        batch::update(&self.tables, &keys, &descriptors).map_err(failed)?;
        // This has waited for whatever read what was retired before.
        self.state.free_retired();
        self.protections.free_retired()
    }

    fn apply_service(
        &mut self,
        planned: &PlannedService,
        table: u32,
        capacity: &Capacity,
    ) -> Result<(), DataPlaneError> {
        let entries: Vec<Backend> = planned.backends.iter().map(|b| b.entry).collect();
        let before = self.state.services.get(&planned.key).cloned();
        let before = before.as_ref();
        let ids = server_ids(planned);
        let kept = before.filter(|applied| {
            same_backends(&applied.backends, &entries)
                && self.server_ids.of(applied.block.start) == ids
        });
        let block = match kept {
            Some(applied) => applied.block.clone(),
            None => self.room_for(entries.len() as u32, capacity)?,
        };
        match kept {
            Some(kept) => self.write_changed(&block, &kept.backends, &entries)?,
            None => {
                let keys: Vec<u32> = block.clone().collect();
                batch::update(&self.backends_fd, &keys, &entries)
                    .map_err(|e| DataPlaneError::io("writing", map::BACKENDS, e))?;
                self.write_server_ids(block.start, &ids)?;
            }
        }
        let former = before.map(|applied| applied.service);
        let rules_before = former.as_ref().and_then(protection);
        let rules = match &planned.protection {
            Some(planned) => Some(self.protections.place(rules_before, planned)?),
            None => None,
        };
        let service = Service {
            seed: planned.seed,
            table,
            slots: planned.table.slots(),
            backends: block.start,
            flags: planned.flags,
            backend_count: entries.len() as u32,
            protection: rules.unwrap_or(0),
        };
        let place = match before {
            Some(before) => {
                if before.service != service {
                    self.switch(before.place, &service)?;
                }
                before.place
            }
            None => self.add_service(&planned.key, &service, capacity)?,
        };
        self.state.set(planned.key, Applied { service, place, block, backends: entries.into() });
        if let Some(old) = rules_before.filter(|old| rules != Some(*old)) {
            self.protections.retire(old);
        }
        Ok(())
    }

    /// Writes the ids of a new block, once those of former blocks are gone.
    fn write_server_ids(&mut self, at: u32, ids: &[(u64, u32)]) -> Result<(), DataPlaneError> {
        self.forget_server_ids()?;
        if !ids.is_empty() {
            self.await_readers_of_removed()?;
        }
        self.server_ids.write(at, ids)
    }

    /// Removes the ids of blocks that no service has any more. A program that still looks for one takes the
    /// datagram's bucket instead.
    fn forget_server_ids(&mut self) -> Result<(), DataPlaneError> {
        let blocks = self.state.services.values().map(|applied| applied.block.start).collect();
        if self.server_ids.keep_only(&blocks)? {
            self.state.note_removal();
        }
        Ok(())
    }

    /// Replaces a service by another version, once nobody reads the one before the present one.
    fn switch(&mut self, place: u32, service: &Service) -> Result<(), DataPlaneError> {
        if self.state.was_switched(place) {
            self.await_readers()?;
        }
        self.services.write(place, service)?;
        self.state.note_switch(place);
        Ok(())
    }

    fn add_service(
        &mut self,
        key: &ServiceKey,
        service: &Service,
        capacity: &Capacity,
    ) -> Result<u32, DataPlaneError> {
        self.await_readers_of_removed()?;
        let limit = capacity.services;
        let place = self.state.places.take(limit).ok_or(DataPlaneError::Limit {
            what: "services",
            needed: u64::from(limit) + 1,
            limit: u64::from(limit),
        })?;
        let written =
            self.services.write(place, service).and_then(|()| self.services.add(key, place));
        if written.is_err() {
            self.state.places.give(place);
        }
        written.map(|()| place)
    }

    /// Each changed entry is one store: a change of health or of a neighbour.
    fn write_changed(
        &mut self,
        block: &Range<u32>,
        before: &[Backend],
        now: &[Backend],
    ) -> Result<(), DataPlaneError> {
        for (index, (before, now)) in block.clone().zip(before.iter().zip(now)) {
            if before != now {
                self.backends
                    .set(index, now, 0)
                    .map_err(|e| DataPlaneError::map("writing", map::BACKENDS, e))?;
            }
        }
        Ok(())
    }

    /// A block of free indexes. Where there is none but for what programs may still read, they are
    /// waited for: a change of all services then goes in several waves.
    fn room_for(&mut self, count: u32, capacity: &Capacity) -> Result<Range<u32>, DataPlaneError> {
        if let Some(block) = self.state.free_block(count, capacity.backends) {
            return Ok(block);
        }
        self.await_readers()?;
        self.state.free_block(count, capacity.backends).ok_or(DataPlaneError::Limit {
            what: "backends",
            needed: u64::from(count),
            limit: u64::from(capacity.backends),
        })
    }

    /// Frees what services no longer use, once no program reads it any more.
    fn await_readers(&mut self) -> Result<(), DataPlaneError> {
        if self.state.has_retired() || self.protections.has_retired() {
            self.grace
                .wait()
                .map_err(|e| DataPlaneError::io("waiting for the readers of", map::TABLES, e))?;
            self.state.free_retired();
            self.protections.free_retired()?;
        }
        Ok(())
    }

    /// Waits for the readers of what was removed from a hash map, before something is added to one: the
    /// kernel may take the removed element for it at once.
    fn await_readers_of_removed(&mut self) -> Result<(), DataPlaneError> {
        if self.state.has_removed() {
            self.await_readers()?;
        }
        Ok(())
    }

    /// Gives the memory of former tables back: empty ones take their places. Not a part of each change,
    /// since it waits for the kernel's programs: the next change's table does so anyway, and may take
    /// the place.
    pub(super) fn tidy(&mut self) -> Result<(), DataPlaneError> {
        self.forget_server_ids()?;
        self.await_readers()?;
        let keys = self.state.stale_tables();
        let empty = vec![self.grace.empty_table(); keys.len()];
        batch::update(&self.tables, &keys, &empty)
            .map_err(|e| DataPlaneError::io("removing a table of", map::TABLES, e))?;
        self.state.tidied();
        Ok(())
    }

    fn remove_services(&mut self, plan: &Plan) -> Result<(), DataPlaneError> {
        let planned: HashSet<ServiceKey> = plan.services.iter().map(|s| s.key).collect();
        let gone: Vec<ServiceKey> =
            self.state.services.keys().filter(|key| !planned.contains(key)).copied().collect();
        for key in gone {
            self.services.remove(&key)?;
            let rules = self.state.services.get(&key).and_then(|it| protection(&it.service));
            self.state.remove(&key);
            if let Some(rules) = rules {
                self.protections.retire(rules);
            }
        }
        Ok(())
    }

    fn apply_vips(&mut self, plan: &Plan) -> Result<(), DataPlaneError> {
        let planned: HashSet<Address> = plan.vips.iter().map(|&vip| vip.into()).collect();
        let held: HashSet<Address> = lease::lock(&self.vips).held().collect();
        let new: Vec<Address> = planned.difference(&held).copied().collect();
        for vip in held.difference(&planned) {
            lease::lock(&self.vips).remove(vip)?;
            self.state.note_removal();
        }
        if !new.is_empty() {
            // Not while they are locked.
            self.await_readers_of_removed()?;
        }
        new.into_iter().try_for_each(|vip| lease::lock(&self.vips).add(vip))
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
            self.state.note_removal();
        }
        for peer in planned.difference(&present) {
            self.await_readers_of_removed()?;
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
        lease::lock(&self.vips).holds_lease(now_ns)
    }
}

/// The ids of a service's backends, in order, each with its place.
fn server_ids(service: &PlannedService) -> Vec<(u64, u32)> {
    let ids = service.backends.iter().zip(0..).filter_map(|(b, place)| Some((b.server_id?, place)));
    let mut ids: Vec<(u64, u32)> = ids.collect();
    ids.sort_unstable();
    ids
}

/// Where the service's rules are, if it has any.
fn protection(service: &Service) -> Option<u32> {
    (service.flags & PROTECTED != 0).then_some(service.protection)
}

/// Whether the same backends stand in the same places; how they are reached may differ.
fn same_backends(before: &[Backend], now: &[Backend]) -> bool {
    before.len() == now.len()
        && before.iter().zip(now).all(|(a, b)| a.address == b.address && a.port_be == b.port_be)
}

pub(super) fn ignore_missing(result: Result<(), MapError>) -> Result<(), MapError> {
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
