//! A set of loaded programs with maps of their own, filled from the model's state and read back.
//!
//! The programs read the real clock. What is stored of times is therefore moved into the past
//! where time is to pass, and compared by the second.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use anyhow::{Context as _, Result};
use aya::maps::lpm_trie::LpmTrie;
use aya::maps::{Array, ArrayOfMaps, Map, MapData};
use aya::util::nr_cpus;
use aya::{Ebpf, EbpfLoader, Pod};
use lb_common::Address;
use lb_common::affinity::Affinity;
use lb_common::backend::{Backend, BackendCounters};
use lb_common::bucket::Bucket;
use lb_common::connection::Connection;
use lb_common::counter::COUNTERS;
use lb_common::filter::AddressFilter;
use lb_common::flow::{Endpoint, Flow, FlowKey};
use lb_common::fragment::{Fragment, FragmentKey};
use lb_common::interface::{Interface, SLOTS};
use lb_common::layout::map;
use lb_common::layout::size::SYNS;
use lb_common::nat::NatEntry;
use lb_common::passive::{BackendFailures, STEP, TIME_MASK};
use lb_common::protection::{PrefixKey, Protection, SourceKey};
use lb_common::quic::ServerId;
use lb_common::service::{Service, ServiceKey, ServiceVersions};
use lb_common::settings::{PeerKey, Runtime, Settings};
use lb_common::syn_flood::SynFlood;
use lb_common::vip::Vip;
use nix::time::{ClockId, clock_gettime};

use super::cast::{self, BACKENDS, NAT_CAPACITY, PROTECTIONS, SERVICES, TABLE_SLOTS};
use super::step::SECOND_NS;
use crate::model::passive::Failures;
use crate::model::state::State;
use crate::packet::kernel::{forget_answers, load};
use crate::packet::syscall::{self, Run};

/// Replies and fragments that are remembered: far more than a sequence makes, so that none is pushed
/// out.
const UDP_REPLIES: u32 = 1024;
const FRAGMENTS: u32 = 1024;
/// Sources, likewise.
const RATES: u32 = 1024;
const CONNECTIONS: u32 = 1024;
const AFFINITIES: u32 = 1024;
const FLOWS: u32 = 1024;
/// Prefixes in a list.
const LIST_ENTRIES: u32 = 64;

pub(super) struct Machine {
    object: Ebpf,
    tables: BTreeMap<u32, Array<MapData, Bucket>>,
    lists: BTreeMap<u32, OwnedFd>,
    /// What the maps hold.
    held: Held,
    /// The real clock when the model's began.
    began_ns: u64,
    counted: BTreeMap<u32, BackendCounters>,
    /// Failed connections when the sequence began.
    failed: BTreeMap<u32, Failures>,
}

/// What was last written, so that only differences are.
#[derive(Default)]
struct Held {
    settings: Option<Settings>,
    filter: Option<AddressFilter>,
    vips: HashMap<Address, Vip>,
    vip_places: Vec<Address>,
    interfaces: HashMap<u32, Interface>,
    peers: HashMap<PeerKey, u32>,
    services: HashMap<ServiceKey, Service>,
    service_places: Vec<ServiceKey>,
    tables: BTreeMap<u32, Vec<Bucket>>,
    server_ids: HashMap<ServerId, u32>,
    backends: Vec<Backend>,
    protections: BTreeMap<u32, Protection>,
    lists: BTreeMap<u32, HashMap<PrefixKey, u32>>,
}

/// The places of keys in an array. A key that was there before has the place that it had.
fn placed<'a, K: Copy + Eq + std::hash::Hash + 'a>(
    all: &mut Vec<K>,
    keys: impl Iterator<Item = &'a K> + Clone,
) -> HashMap<K, u32> {
    for key in keys.clone() {
        if !all.contains(key) {
            all.push(*key);
        }
    }
    with_places(all, keys)
}

fn with_places<'a, K: Copy + Eq + std::hash::Hash + 'a>(
    all: &[K],
    keys: impl Iterator<Item = &'a K>,
) -> HashMap<K, u32> {
    let place = |key: &K| all.iter().position(|it| it == key).map(|at| (*key, at as u32));
    keys.filter_map(place).collect()
}

impl Machine {
    pub(super) fn load() -> Result<Self> {
        let mut object = load(
            EbpfLoader::new()
                .map_max_entries(map::NAT_FLOWS, NAT_CAPACITY as u32)
                .map_max_entries(map::UDP_REPLIES, UDP_REPLIES)
                .map_max_entries(map::FRAGMENTS, FRAGMENTS)
                .map_max_entries(map::PROTECTIONS, PROTECTIONS)
                .map_max_entries(map::LISTS, PROTECTIONS)
                .map_max_entries(map::RATES, RATES)
                .map_max_entries(map::CONNECTIONS, CONNECTIONS)
                .map_max_entries(map::AFFINITIES, AFFINITIES)
                .map_max_entries(map::FLOWS, FLOWS)
                .map_max_entries(map::SERVER_IDS, BACKENDS)
                .map_max_entries(map::BACKENDS, BACKENDS)
                .map_max_entries(map::BACKEND_COUNTERS, BACKENDS)
                .map_max_entries(map::SYN_LEFT, BACKENDS)
                .map_max_entries(map::FAILURES, BACKENDS),
        )?;
        let tables = Self::make_tables(&mut object)?;
        let lists = Self::make_lists(&mut object)?;
        let (held, counted, failed) = (Held::default(), BTreeMap::new(), BTreeMap::new());
        let mut machine = Self { object, tables, lists, held, began_ns: 0, counted, failed };
        machine.held.backends = vec![Backend::EMPTY; BACKENDS as usize];
        Ok(machine)
    }

    /// Every table that a sequence may need. To put one into the map of tables takes the kernel
    /// tens of milliseconds; to fill one takes none.
    fn make_tables(object: &mut Ebpf) -> Result<BTreeMap<u32, Array<MapData, Bucket>>> {
        let mut tables = BTreeMap::new();
        let outer = object.map_mut(map::TABLES).context("no map of tables")?;
        let mut outer = ArrayOfMaps::<&mut MapData, Array<MapData, Bucket>>::try_from(outer)?;
        for index in 0..2 * SERVICES.len() as u32 {
            let slots = TABLE_SLOTS[index as usize % 2];
            let size = size_of::<Bucket>() as u32;
            let fd = syscall::map(syscall::ARRAY, size, slots, syscall::INNER_MAP)?;
            let table = Map::from_map_data(MapData::from_fd(fd)?)?;
            let table = Array::<MapData, Bucket>::try_from(table)?;
            outer.set(index, &table, 0)?;
            tables.insert(index, table);
        }
        Ok(tables)
    }

    /// A list for each service.
    fn make_lists(object: &mut Ebpf) -> Result<BTreeMap<u32, OwnedFd>> {
        let mut lists = BTreeMap::new();
        let outer = object.map_mut(map::LISTS).context("no map of lists")?;
        let mut outer =
            ArrayOfMaps::<&mut MapData, LpmTrie<MapData, Address, u32>>::try_from(outer)?;
        for index in 0..PROTECTIONS {
            let fd = syscall::list(LIST_ENTRIES)?;
            let list = Map::from_map_data(MapData::from_fd(fd.try_clone()?)?)?;
            outer.set(index, &LpmTrie::try_from(list)?, 0)?;
            lists.insert(index, fd);
        }
        Ok(lists)
    }

    /// Forgets what the programs wrote, and begins again with the model's state.
    pub(super) fn begin(&mut self, state: &State) -> Result<()> {
        for key in self.nat_flows(state)?.into_keys() {
            self.remove(map::NAT_FLOWS, &key)?;
        }
        for key in self.udp_replies()?.into_keys() {
            self.remove(map::UDP_REPLIES, &key)?;
        }
        for key in self.fragments(state)?.into_keys() {
            self.remove(map::FRAGMENTS, &key)?;
        }
        for key in self.affinities(state)?.into_keys() {
            self.remove(map::AFFINITIES, &key)?;
        }
        for key in self.flows()?.into_keys() {
            self.remove(map::FLOWS, &key)?;
        }
        forget_answers(&mut self.object)?;
        for key in self.rates(state)?.into_keys() {
            self.remove(map::RATES, &key)?;
        }
        for (key, connection) in self.connections(state)? {
            self.remove(map::CONNECTIONS, &key)?;
            for index in connection.counted {
                self.set(map::OPEN, index, 0u64)?;
            }
        }
        self.set(map::RUNTIME, 0, Runtime::default())?;
        self.set(map::SYN_FLOOD, 0, SynFlood::default())?;
        self.counted = self.all_backend_counters()?;
        self.failed = self.all_failures()?;
        self.began_ns = now_ns()?;
        self.follow(state)
    }

    /// How long the sequence has taken by the real clock.
    pub(super) fn elapsed_ns(&self) -> Result<u64> {
        Ok(now_ns()? - self.began_ns)
    }

    /// Writes what the agent writes, as far as it differs from what is there.
    pub(super) fn follow(&mut self, state: &State) -> Result<()> {
        if self.held.settings != Some(state.settings) {
            self.set(map::SETTINGS, 0, state.settings)?;
            self.held.settings = Some(state.settings);
        }
        if self.held.filter != Some(state.filter) {
            self.set(map::ADDRESS_FILTER, 0, state.filter)?;
            self.held.filter = Some(state.filter);
        }
        let real = |it: &Vip| Vip { lease_until_ns: self.real_ns(state, it.lease_until_ns) };
        let vips: HashMap<Address, Vip> =
            state.vips.iter().map(|(key, vip)| (*key, real(vip))).collect();
        let places = placed(&mut self.held.vip_places, vips.keys());
        for (key, place) in &places {
            if self.held.vips.get(key) != vips.get(key) {
                self.set(map::LEASES, *place, vips[key])?;
            }
        }
        let before = with_places(&self.held.vip_places, self.held.vips.keys());
        self.replace(map::VIPS, before, places)?;
        self.held.vips = vips;
        let peers = state.peers.iter().map(|mac| (PeerKey { mac: *mac, padding: [0; 2] }, 1u32));
        let held = std::mem::take(&mut self.held.peers);
        self.held.peers = self.replace(map::PEERS, held, peers.collect())?;
        let places = placed(&mut self.held.service_places, state.services.keys());
        for (key, place) in &places {
            let service = state.services[key];
            if self.held.services.get(key) != Some(&service) {
                self.set(map::SERVICE_VERSIONS, *place, ServiceVersions::new(service))?;
            }
        }
        let before = with_places(&self.held.service_places, self.held.services.keys());
        self.replace(map::SERVICES, before, places)?;
        self.held.services = state.services.clone();
        for index in 0..SLOTS {
            let wanted = state.interfaces.get(&index).copied().unwrap_or_default();
            if self.held.interfaces.get(&index).copied().unwrap_or_default() != wanted {
                self.set(map::INTERFACES, index, wanted)?;
                self.held.interfaces.insert(index, wanted);
            }
        }
        for (index, buckets) in &state.tables {
            if self.held.tables.get(index) == Some(buckets) {
                continue;
            }
            let table = self.tables.get_mut(index).context("a table that was not made")?;
            for (slot, bucket) in buckets.iter().enumerate() {
                table.set(slot as u32, bucket, 0)?;
            }
            self.held.tables.insert(*index, buckets.clone());
        }
        self.follow_protections(state)?;
        let ids = state.server_ids.iter().map(|(id, place)| (*id, *place)).collect();
        let held = std::mem::take(&mut self.held.server_ids);
        self.held.server_ids = self.replace(map::SERVER_IDS, held, ids)?;
        for (index, backend) in state.backends.iter().enumerate() {
            if self.held.backends[index] != *backend {
                self.set(map::BACKENDS, index as u32, *backend)?;
                self.held.backends[index] = *backend;
            }
        }
        Ok(())
    }

    fn follow_protections(&mut self, state: &State) -> Result<()> {
        for (index, protection) in &state.protections {
            if self.held.protections.get(index) != Some(protection) {
                self.set(map::PROTECTIONS, *index, *protection)?;
                self.held.protections.insert(*index, *protection);
            }
        }
        for (index, fd) in &self.lists {
            let wanted: HashMap<PrefixKey, u32> =
                state.lists.get(index).into_iter().flatten().copied().collect();
            let held = self.held.lists.entry(*index).or_default();
            for key in held.keys().filter(|key| !wanted.contains_key(key)) {
                syscall::delete(fd.as_fd(), key).context("a list")?;
            }
            for (key, value) in wanted.iter().filter(|(key, value)| held.get(key) != Some(value)) {
                syscall::update(fd.as_fd(), key, value).context("a list")?;
            }
            *held = wanted;
        }
        Ok(())
    }

    /// Brings a hash map from one content to another.
    fn replace<K: Pod + Eq + std::hash::Hash, V: Pod + PartialEq>(
        &mut self,
        name: &str,
        held: HashMap<K, V>,
        wanted: HashMap<K, V>,
    ) -> Result<HashMap<K, V>> {
        for key in held.keys().filter(|key| !wanted.contains_key(key)) {
            self.remove(name, key)?;
        }
        for (key, value) in wanted.iter().filter(|(key, value)| held.get(key) != Some(value)) {
            syscall::update(self.map(name)?, key, value)
                .with_context(|| format!("the map {name}"))?;
        }
        Ok(wanted)
    }

    /// Lets time pass for what the programs wrote. Leases are written anew by
    /// [`follow`](Self::follow).
    pub(super) fn wait(&mut self, state: &State, seconds: u64) -> Result<()> {
        let past_ns = seconds * SECOND_NS;
        for (key, mut entry) in self.entries::<FlowKey, NatEntry>(map::NAT_FLOWS, NAT_CAPACITY)? {
            let last_ns = entry.last_seen_ns.checked_sub(past_ns);
            entry.last_seen_ns = last_ns.context("this machine was started too recently")?;
            syscall::update(self.map(map::NAT_FLOWS)?, &key, &entry)?;
        }
        let fragments =
            self.entries::<FragmentKey, Fragment>(map::FRAGMENTS, FRAGMENTS as usize)?;
        for (key, mut first) in fragments {
            first.seen_ns = first.seen_ns.saturating_sub(past_ns);
            syscall::update(self.map(map::FRAGMENTS)?, &key, &first)?;
        }
        for (key, mut affinity) in
            self.entries::<FlowKey, Affinity>(map::AFFINITIES, AFFINITIES as usize)?
        {
            affinity.last_seen_ns = affinity.last_seen_ns.saturating_sub(past_ns);
            syscall::update(self.map(map::AFFINITIES)?, &key, &affinity)?;
        }
        for (key, until_ns) in self.entries::<SourceKey, u64>(map::RATES, RATES as usize)? {
            let until_ns = until_ns.checked_sub(past_ns);
            let until_ns = until_ns.context("this machine was started too recently")?;
            syscall::update(self.map(map::RATES)?, &key, &until_ns)?;
        }
        let connections =
            self.entries::<FlowKey, Connection>(map::CONNECTIONS, CONNECTIONS as usize)?;
        for (key, mut connection) in connections {
            let last_ns = connection.last_seen_ns.checked_sub(past_ns);
            connection.last_seen_ns = last_ns.context("this machine was started too recently")?;
            syscall::update(self.map(map::CONNECTIONS)?, &key, &connection)?;
        }
        self.age_syns(state, past_ns)?;
        let flood = self.syn_flood_as_it_is()?;
        self.set(
            map::SYN_FLOOD,
            0,
            SynFlood {
                paid_until_ns: flood.paid_until_ns.saturating_sub(past_ns),
                flooded_until_ns: flood.flooded_until_ns.saturating_sub(past_ns),
            },
        )?;
        let mut runtime = self.runtime_as_it_is()?;
        if runtime.cookie_seen_ns != 0 {
            runtime.cookie_seen_ns = runtime.cookie_seen_ns.saturating_sub(past_ns).max(1);
            self.set(map::RUNTIME, 0, runtime)?;
        }
        Ok(())
    }

    /// Removes entries that the model has not.
    pub(super) fn forget(&mut self, state: &State) -> Result<()> {
        for key in self.nat_flows(state)?.into_keys() {
            if !state.nat_flows.contains_key(&key) {
                self.remove(map::NAT_FLOWS, &key)?;
            }
        }
        Ok(())
    }

    /// Runs a program once on a frame. Nothing where the kernel gives no run of such a frame: tc has
    /// none for one that ends within the IP header that its ethertype promises.
    pub(super) fn run(&self, program: &str, frame: &[u8]) -> Result<Option<Run>> {
        let fd = self.object.program(program).with_context(|| format!("no program {program}"))?;
        let fd = fd.fd()?.as_fd();
        match syscall::test_run(fd, frame) {
            Ok(run) => Ok(Some(run)),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && is_short(frame) => Ok(None),
            Err(error) => Err(error)
                .with_context(|| format!("the kernel does not run {program} on {frame:02x?}")),
        }
    }

    /// The verdicts' counters, summed over the CPUs.
    pub(super) fn counters(&self) -> Result<Vec<u64>> {
        let cpus = nr_cpus().map_err(|(_, error)| error)?;
        let (_, values) =
            syscall::lookup_batch::<u32, u64>(self.map(map::COUNTERS)?, COUNTERS, cpus)?;
        Ok(values.chunks(cpus).map(|values| values.iter().sum()).collect())
    }

    fn all_backend_counters(&self) -> Result<BTreeMap<u32, BackendCounters>> {
        let cpus = nr_cpus().map_err(|(_, error)| error)?;
        let fd = self.map(map::BACKEND_COUNTERS)?;
        let (keys, values) =
            syscall::lookup_batch::<u32, BackendCounters>(fd, BACKENDS as usize, cpus)?;
        let sum = |values: &[BackendCounters]| BackendCounters {
            connections: values.iter().map(|it| it.connections).sum(),
            packets: values.iter().map(|it| it.packets).sum(),
            bytes: values.iter().map(|it| it.bytes).sum(),
        };
        Ok(keys.into_iter().zip(values.chunks(cpus).map(sum)).collect())
    }

    /// What was added since the sequence began, where anything was.
    pub(super) fn backend_counters(&self) -> Result<BTreeMap<u32, BackendCounters>> {
        let mut all = self.all_backend_counters()?;
        for (index, it) in &mut all {
            let before = self.counted.get(index).copied().unwrap_or_default();
            it.connections -= before.connections;
            it.packets -= before.packets;
            it.bytes -= before.bytes;
        }
        all.retain(|_, it| *it != BackendCounters::default());
        Ok(all)
    }

    /// Forgets the SYNs of a sequence that ended: all of them where the model need not know each place.
    pub(super) fn forget_syns(&self, state: &State, all: bool) -> Result<()> {
        let known = state.syns.keys().copied();
        let places: Vec<u32> = if all { (0..SYNS as u32).collect() } else { known.collect() };
        places.into_iter().try_for_each(|place| self.set(map::SYNS, place, 0u64))
    }

    /// Lets time pass for the SYNs that the model knows.
    fn age_syns(&self, state: &State, past_ns: u64) -> Result<()> {
        let data = self.object.map(map::SYNS).context("no map of SYNs")?;
        let syns = Array::<&MapData, u64>::try_from(data)?;
        for place in state.syns.keys() {
            self.set(map::SYNS, *place, aged(syns.get(place, 0)?, past_ns))?;
        }
        Ok(())
    }

    fn all_failures(&self) -> Result<BTreeMap<u32, Failures>> {
        let cpus = nr_cpus().map_err(|(_, error)| error)?;
        let fd = self.map(map::FAILURES)?;
        let (keys, values) =
            syscall::lookup_batch::<u32, BackendFailures>(fd, BACKENDS as usize, cpus)?;
        let sum = |values: &[BackendFailures]| Failures {
            refused: values.iter().map(|it| it.refused).sum(),
            unanswered: values.iter().map(|it| it.unanswered).sum(),
        };
        Ok(keys.into_iter().zip(values.chunks(cpus).map(sum)).collect())
    }

    /// What failed since the sequence began, where anything did.
    pub(super) fn failures(&self) -> Result<BTreeMap<u32, Failures>> {
        let mut all = self.all_failures()?;
        for (index, it) in &mut all {
            let before = self.failed.get(index).copied().unwrap_or_default();
            it.refused -= before.refused;
            it.unanswered -= before.unanswered;
        }
        all.retain(|_, it| *it != Failures::default());
        Ok(all)
    }

    /// Entries with their times by the model's clock, in whole seconds.
    pub(super) fn nat_flows(&self, state: &State) -> Result<HashMap<FlowKey, NatEntry>> {
        let mut entries = self.entries::<FlowKey, NatEntry>(map::NAT_FLOWS, NAT_CAPACITY)?;
        for entry in entries.values_mut() {
            entry.last_seen_ns = self.model_ns(state, entry.last_seen_ns);
        }
        Ok(entries)
    }

    pub(super) fn udp_replies(&self) -> Result<HashMap<FlowKey, Endpoint>> {
        self.entries(map::UDP_REPLIES, UDP_REPLIES as usize)
    }

    /// With their times by the model's clock, in whole seconds.
    pub(super) fn fragments(&self, state: &State) -> Result<HashMap<FragmentKey, Fragment>> {
        let mut firsts =
            self.entries::<FragmentKey, Fragment>(map::FRAGMENTS, FRAGMENTS as usize)?;
        for first in firsts.values_mut() {
            first.seen_ns = self.model_ns(state, first.seen_ns);
        }
        Ok(firsts)
    }

    /// With their times by the model's clock, in whole seconds.
    pub(super) fn affinities(&self, state: &State) -> Result<HashMap<FlowKey, Affinity>> {
        let mut all = self.entries::<FlowKey, Affinity>(map::AFFINITIES, AFFINITIES as usize)?;
        for affinity in all.values_mut() {
            affinity.last_seen_ns = self.model_ns(state, affinity.last_seen_ns);
        }
        Ok(all)
    }

    /// Without their times.
    pub(super) fn flows(&self) -> Result<HashMap<FlowKey, Flow>> {
        let mut all = self.entries::<FlowKey, Flow>(map::FLOWS, FLOWS as usize)?;
        for flow in all.values_mut() {
            (flow.seen, flow.since) = (0, 0);
        }
        Ok(all)
    }

    /// Until when sources have paid, by the model's clock, in whole seconds.
    pub(super) fn rates(&self, state: &State) -> Result<HashMap<SourceKey, u64>> {
        let mut rates = self.entries::<SourceKey, u64>(map::RATES, RATES as usize)?;
        rates.values_mut().for_each(|until_ns| *until_ns = self.model_ns(state, *until_ns));
        Ok(rates)
    }

    /// With their times by the model's clock, in whole seconds.
    pub(super) fn connections(&self, state: &State) -> Result<HashMap<FlowKey, Connection>> {
        let mut connections =
            self.entries::<FlowKey, Connection>(map::CONNECTIONS, CONNECTIONS as usize)?;
        for connection in connections.values_mut() {
            connection.last_seen_ns = self.model_ns(state, connection.last_seen_ns);
        }
        Ok(connections)
    }

    /// How many connections are open by one of the words in which they are counted.
    pub(super) fn open(&self, index: u32) -> Result<u64> {
        let map = self.object.map(map::OPEN).context("no map open")?;
        Ok(Array::<&MapData, u64>::try_from(map)?.get(&index, 0)?)
    }

    /// With its time by the model's clock, in whole seconds.
    pub(super) fn runtime(&self, state: &State) -> Result<Runtime> {
        let mut runtime = self.runtime_as_it_is()?;
        runtime.cookie_seen_ns = self.model_ns(state, runtime.cookie_seen_ns);
        Ok(runtime)
    }

    /// Until when a flood lasts, by the model's clock, in whole seconds; what was paid changes with each
    /// nanosecond of the real one.
    pub(super) fn flooded_until_ns(&self, state: &State) -> Result<u64> {
        Ok(self.model_ns(state, self.syn_flood_as_it_is()?.flooded_until_ns))
    }

    fn syn_flood_as_it_is(&self) -> Result<SynFlood> {
        let map = self.object.map(map::SYN_FLOOD).context("no map syn_flood")?;
        Ok(Array::<&MapData, SynFlood>::try_from(map)?.get(&0, 0)?)
    }

    fn runtime_as_it_is(&self) -> Result<Runtime> {
        let map = self.object.map(map::RUNTIME).context("no map runtime")?;
        Ok(Array::<&MapData, Runtime>::try_from(map)?.get(&0, 0)?)
    }

    /// A time of the model's clock by the real one; 0 is never with both.
    fn real_ns(&self, state: &State, time_ns: u64) -> u64 {
        let real_ns = (time_ns + self.began_ns).saturating_sub(state.now_ns);
        if time_ns == 0 { 0 } else { real_ns.max(1) }
    }

    /// The other way round, in whole seconds since the model's clock began.
    fn model_ns(&self, state: &State, time_ns: u64) -> u64 {
        let since_start_ns = state.now_ns - cast::START_NS;
        match time_ns {
            0 => 0,
            _ => {
                cast::START_NS
                    + (time_ns + since_start_ns).saturating_sub(self.began_ns) / SECOND_NS
                        * SECOND_NS
            }
        }
    }

    fn entries<K: Pod + Eq + std::hash::Hash, V: Pod>(
        &self,
        name: &str,
        most: usize,
    ) -> Result<HashMap<K, V>> {
        let (keys, values) = syscall::lookup_batch::<K, V>(self.map(name)?, most, 1)
            .with_context(|| format!("the map {name}"))?;
        Ok(keys.into_iter().zip(values).collect())
    }

    fn set<V: Pod>(&self, name: &str, index: u32, value: V) -> Result<()> {
        syscall::update(self.map(name)?, &index, &value).with_context(|| format!("the map {name}"))
    }

    fn remove<K: Pod>(&self, name: &str, key: &K) -> Result<()> {
        syscall::delete(self.map(name)?, key).with_context(|| format!("the map {name}"))
    }

    fn map(&self, name: &str) -> Result<BorrowedFd<'_>> {
        let map = self.object.map(name).with_context(|| format!("no map {name}"))?;
        let data = match map {
            Map::Array(data) | Map::HashMap(data) | Map::LruHashMap(data) => data,
            Map::PerCpuArray(data) => data,
            _ => anyhow::bail!("the map {name} is of a kind that is not written here"),
        };
        Ok(data.fd().as_fd())
    }
}

/// What is remembered of a SYN, as if it had come so much earlier, in whole steps.
const fn aged(syn: u64, past_ns: u64) -> u64 {
    let steps = (past_ns >> STEP) + 1;
    syn & !TIME_MASK | (syn.wrapping_sub(steps) & TIME_MASK)
}

/// Whether the frame ends within the header that its ethertype promises.
fn is_short(frame: &[u8]) -> bool {
    let needs = match frame.get(12..14) {
        Some([0x08, 0x00]) => 14 + 20,
        Some([0x86, 0xdd]) => 14 + 40,
        _ => return false,
    };
    frame.len() < needs
}

fn now_ns() -> Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE)?;
    Ok(now.tv_sec().cast_unsigned() * SECOND_NS + now.tv_nsec().cast_unsigned())
}
