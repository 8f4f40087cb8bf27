//! The kernel side in the agent's hands: programs loaded and attached, maps filled, counters read.
//!
//! What is to be in the maps is decided in [`plan`](crate::plan); here a plan is compared with what
//! the maps hold, and only the difference is written.

mod attach;
mod batch;
mod bell;
mod clsact;
mod connections;
mod counters;
mod error;
mod flows;
mod grace;
mod hearsay;
mod hooks;
mod layout;
mod lease;
mod links;
mod load;
mod maps;
mod memory;
mod migrate;
mod nat;
mod pins;
mod protection;
mod server_ids;
mod services;
mod shared;
mod stages;
mod state;
mod sweep;
mod translations;
mod trial;

use std::collections::BTreeMap;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aya::Ebpf;
use lb_common::backend::Backend;
use lb_common::connection;
use lb_common::layout::map;
use nix::time::{ClockId, clock_gettime};
use tracing::info;

pub use attach::{Attached, Ladder, attach_words};
pub use bell::Bell;
pub use counters::{BackendFailures, BackendTotals};
pub use error::DataPlaneError;
pub use flows::{Flows, Noted};
pub use hearsay::Told;
pub use layout::{Carry, Changed, Convert, Former, Layout, resized};
pub use lease::Leases;
pub use load::{Capacity, object};
pub use memory::MapMemory;
pub use nat::{FirstPort, NatTimeouts};
pub use pins::Pins;
pub use stages::connect_stages;
pub use state::TablesMemory;
pub use sweep::{Sweep, SweepStop, Sweeper};
pub use translations::{Adopted, Half, Translation, Translations};
pub use trial::{Ran, TrialError};

use crate::config::Mode;
use crate::plan::Plan;
use connections::Connections;
use hearsay::Hearsay;
use layout::Direction;
use maps::Maps;
use migrate::{Migration, Pass};
use shared::SharedArray;

/// The data path of this node.
pub struct DataPlane {
    object: Ebpf,
    pins: Pins,
    capacity: Capacity,
    maps: Maps,
    /// For each of which a per-CPU map has a value.
    cpus: usize,
    attached: Vec<Attached>,
    /// Those that have an earlier agent's programs still, by index.
    inherited: Vec<u32>,
    hooks: Result<PathBuf, String>,
    /// What other nodes told of NAT flows.
    hearsay: Arc<Hearsay>,
    /// Whether a plan was written: what the holder of the VIPs waits for.
    tables_written: Arc<AtomicBool>,
    /// From another layout, until this one is settled.
    migration: Option<Migration>,
}

/// Programs that the kernel has verified, with the maps that they are to use: nothing runs yet, and no map
/// was changed. What this pinned is unpinned again where it comes to nothing.
pub struct Loaded {
    object: Option<Ebpf>,
    pins: Pins,
    capacity: Capacity,
    pinned: Vec<PathBuf>,
    migration: Option<Migration>,
}

impl Drop for Loaded {
    fn drop(&mut self) {
        if self.object.is_none() {
            return;
        }
        // Best effort, like all tidying on the way out.
        load::unpin(&self.pinned);
        if self.migration.is_some() {
            let _ = self.pins.remove();
        }
    }
}

impl Loaded {
    /// Loads the programs. `running` is the layout of an agent that goes on meanwhile, and is to be followed.
    ///
    /// # Errors
    /// What a user can mend is told apart. Nothing stays behind.
    pub fn load(
        base: &Path,
        layout: &Layout,
        running: Option<u32>,
        capacity: Capacity,
    ) -> Result<Self, DataPlaneError> {
        let pins = Pins::of(base, layout.version);
        let was_there = pins.exist();
        let migration = migrate::prepare(&pins, layout, running)?;
        // While nothing waits for it.
        let links = running.map_or_else(|| pins.clone(), |version| pins.sibling(version));
        let loaded = load::load(&pins, &capacity, attach::any_by_tc(&links));
        if loaded.is_err() && (migration.is_some() || !was_there) {
            // The error that matters is the first.
            let _ = pins.remove();
        }
        let load::Loaded { object, pinned } = loaded?;
        Ok(Self { object: Some(object), pins, capacity, pinned, migration })
    }

    /// Takes the maps over with what they hold; another layout's elements are copied before. From here on
    /// nobody else may write them.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn open(mut self) -> Result<DataPlane, DataPlaneError> {
        if let Some(migration) = &self.migration {
            migration.share_links()?;
            let elements = migration.copy(Pass::First)?;
            info!(elements, "the maps of another layout were taken over");
        }
        let maps = Maps::take(&self.pins, &self.capacity)?;
        let cpus = aya::util::nr_cpus().map_err(|(_, source)| {
            DataPlaneError::io("counting CPUs for", map::COUNTERS, source)
        })?;
        let Some(object) = self.object.take() else {
            return Err(DataPlaneError::Inconsistent("nothing is loaded"));
        };
        Ok(DataPlane {
            object,
            pins: self.pins.clone(),
            capacity: self.capacity,
            maps,
            cpus,
            attached: Vec::new(),
            inherited: Vec::new(),
            hooks: Err("not attached yet".to_owned()),
            hearsay: Arc::new(Hearsay::new(self.capacity.nat_flows)),
            tables_written: Arc::new(AtomicBool::new(false)),
            migration: self.migration.take(),
        })
    }
}

/// Whether this process may use BPF at all, before anything is touched.
pub fn permitted() -> Result<(), DataPlaneError> {
    match batch::array_of(&[0u32], 0) {
        Ok(_) => Ok(()),
        Err(error) => match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Err(DataPlaneError::NotPermitted),
            Some(libc::ENOSYS) => Err(DataPlaneError::NoBpf),
            _ => Err(DataPlaneError::Map {
                operation: "making a first map",
                map: "probe".to_owned(),
                source: error,
            }),
        },
    }
}

impl DataPlane {
    /// Loads the programs of this version; maps that an agent that is gone pinned are taken over with what
    /// they hold.
    ///
    /// # Errors
    /// As [`Loaded::load`] and [`Loaded::open`].
    pub fn open(pins: Pins, capacity: Capacity) -> Result<Self, DataPlaneError> {
        let mut data_path = Loaded::load(pins.base(), &Layout::CURRENT, None, capacity)?.open()?;
        data_path.switch()?;
        Ok(data_path)
    }

    /// Finds the links that an earlier agent left; its programs stay in them until [`switch`](Self::switch).
    /// `name` tells an interface's name by index, or nothing where it is gone.
    pub fn inherit(&mut self, name: impl Fn(u32) -> Option<String>) -> Result<(), DataPlaneError> {
        for index in self.pins.interfaces() {
            match name(index).and_then(|name| attach::inherited(&self.pins, index, &name)) {
                Some(attached) => {
                    self.inherited.push(index);
                    self.attached.push(attached);
                }
                // The interface went, or its attachment was cut short: nothing steers there.
                None => attach::detach(&self.pins, index)?,
            }
        }
        Ok(())
    }

    /// Puts this agent's programs into the links that an earlier one left. The maps must hold what packets
    /// need by then.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn switch(&mut self) -> Result<(), DataPlaneError> {
        let migration = &self.migration;
        // What has come since it was copied before, as late as can be, and what has come meanwhile.
        let copy_again = || match migration {
            Some(migration) => migration.copy(Pass::Again).map(drop),
            None => Ok(()),
        };
        let inherited = std::mem::take(&mut self.inherited);
        let inherited = self.attached.iter().filter(|it| inherited.contains(&it.index));
        if inherited.clone().any(|attached| attached.mode == Mode::Tc) {
            load::load_steering_by_tc(&mut self.object)?;
        }
        connect_stages(&mut self.object)?;
        for attached in inherited {
            attach::switch(&mut self.object, &self.pins, attached, copy_again)?;
        }
        copy_again()
    }

    /// This agent is in charge: what other layouts' agents pinned goes.
    ///
    /// # Errors
    /// Where it cannot be removed; the next agent tries again.
    pub fn settle(&mut self) -> Result<(), DataPlaneError> {
        self.migration = None;
        let failed = |e| DataPlaneError::file("settling", self.pins.root(), e);
        self.pins.settle().map_err(failed)?;
        for other in self.pins.others()?.into_iter().filter_map(|other| other.pins) {
            other.remove().map_err(failed)?;
        }
        Ok(())
    }

    /// Makes room for an agent of an earlier layout that is to follow this one.
    ///
    /// # Errors
    /// Where that layout is not known, or the kernel refuses.
    pub fn prepare_for(&self, layout: &Layout, version: u32) -> Result<Successor, DataPlaneError> {
        let pins = self.pins.sibling(version);
        let former = layout.former(version);
        let former = former.ok_or(DataPlaneError::UnknownLayout { version })?;
        pins.remove().map_err(|e| DataPlaneError::file("removing", pins.root(), e))?;
        let way = Migration::begin(self.pins.clone(), pins, former, Direction::Down)?;
        Ok(Successor(way))
    }

    /// Takes the data path back from an agent that was to follow and has ended: this one's programs are put
    /// back into the links, and the maps are read anew. What it pinned stays.
    ///
    /// # Errors
    /// Where the kernel refuses; an interface that is lost is named.
    pub fn take_back(&mut self) -> Result<(), DataPlaneError> {
        let maps = Maps::take(&self.pins, &self.capacity)?;
        let mut former = std::mem::replace(&mut self.maps, maps);
        lease::exchange(&former.vips, &self.maps.vips);
        // Others have handles on it.
        std::mem::swap(&mut former.vips, &mut self.maps.vips);
        self.inherited = self.attached.iter().map(|attached| attached.index).collect();
        self.switch()
    }

    /// Removes what an agent of this layout pinned that does not follow after all. Of the own layout it is
    /// nothing that harms.
    ///
    /// # Errors
    /// Where it cannot be removed.
    pub fn forget_successor(&self, layout: u32) -> Result<(), DataPlaneError> {
        if layout == self.pins.version() {
            return Ok(());
        }
        let pins = self.pins.sibling(layout);
        pins.remove().map_err(|e| DataPlaneError::file("removing", pins.root(), e))
    }

    /// Attaches to an interface; nothing happens where that is done already.
    pub fn attach(
        &mut self,
        index: u32,
        name: &str,
        ladder: Ladder<'_>,
    ) -> Result<&Attached, DataPlaneError> {
        if let Some(at) = self.attached.iter().position(|attached| attached.index == index) {
            return Ok(&self.attached[at]);
        }
        let slot = index % lb_common::interface::SLOTS;
        let other = self.attached.iter().find(|a| a.index % lb_common::interface::SLOTS == slot);
        if let Some(other) = other {
            return Err(DataPlaneError::SlotTaken {
                name: name.to_owned(),
                index,
                other: other.name.clone(),
            });
        }
        let attached = attach::attach(&mut self.object, &self.pins, index, name, ladder)?;
        let at = self.attached.len();
        self.attached.push(attached);
        Ok(&self.attached[at])
    }

    pub fn detach(&mut self, name: &str) -> Result<(), DataPlaneError> {
        let at = self
            .attached
            .iter()
            .position(|attached| attached.name == name)
            .ok_or_else(|| DataPlaneError::NotAttached { name: name.to_owned() })?;
        let attached = self.attached.remove(at);
        attach::detach(&self.pins, attached.index)
    }

    /// Forgets an interface that the kernel removed.
    pub fn forget(&mut self, index: u32) -> Result<(), DataPlaneError> {
        self.attached.retain(|attached| attached.index != index);
        attach::detach(&self.pins, index)
    }

    pub fn attached(&self) -> &[Attached] {
        &self.attached
    }

    /// Attaches the hooks for the node's own processes, or detaches them.
    pub fn set_hooks(&mut self, enabled: bool, cgroup: Option<&Path>) {
        self.hooks = if enabled {
            hooks::attach(&mut self.object, &self.pins, cgroup)
        } else {
            match hooks::detach(&self.pins) {
                Ok(()) => Err("off in the configuration (host.enabled)".to_owned()),
                Err(error) => Err(error.to_string()),
            }
        };
    }

    /// Where the hooks are attached, or why they are not.
    pub fn hooks(&self) -> &Result<PathBuf, String> {
        &self.hooks
    }

    /// Makes the maps hold what the plan says.
    pub fn apply(&mut self, plan: &Plan) -> Result<(), DataPlaneError> {
        self.maps.apply(plan, &self.capacity)?;
        self.tables_written.store(true, Ordering::Release);
        Ok(())
    }

    /// Gives back what former tables took; to be called now and then.
    pub fn tidy(&mut self) -> Result<(), DataPlaneError> {
        self.maps.tidy()
    }

    /// A handle of its own on the leases, so that nothing else of the agent can delay them.
    pub fn leases(&self) -> Leases {
        let tables_written = Arc::clone(&self.tables_written);
        Leases { vips: Arc::clone(&self.maps.vips), tables_written }
    }

    /// A loaded program, for measurements.
    pub fn program(&self, name: &str) -> Option<BorrowedFd<'_>> {
        Some(self.object.program(name)?.fd().ok()?.as_fd())
    }

    /// How many instructions the verifier went through for each program.
    pub fn verified_instructions(&self) -> BTreeMap<String, u32> {
        self.object
            .programs()
            .filter_map(|(name, program)| {
                let count = program.info().ok()?.verified_instruction_count()?;
                Some((name.to_owned(), count))
            })
            .collect()
    }

    /// The backends that the maps hold already, from an agent that was here before.
    pub fn pinned_backends(&self) -> impl Iterator<Item = &Backend> {
        self.maps.state.services.values().flat_map(|applied| applied.backends.iter())
    }

    /// Whether a lease still runs, from an agent that was here a moment ago.
    pub fn holds_lease(&self) -> bool {
        self.maps.holds_lease(monotonic_ns())
    }

    /// Packets by verdict since the maps were made, in the order of `Verdict::ALL`.
    pub fn verdicts(&self) -> Result<Vec<u64>, DataPlaneError> {
        counters::verdicts(&self.maps.counters, self.cpus)
    }

    /// What was steered to the backends of a service, in its canonical order.
    pub fn backend_totals(
        &self,
        key: &lb_common::service::ServiceKey,
    ) -> Result<Vec<BackendTotals>, DataPlaneError> {
        let Some(applied) = self.maps.state.services.get(key) else { return Ok(Vec::new()) };
        counters::backends(&self.maps.backend_counters, applied.block.clone(), self.cpus)
    }

    /// What came of new connections to the backends of a service, in its canonical order.
    pub fn failures(
        &self,
        key: &lb_common::service::ServiceKey,
    ) -> Result<Vec<BackendFailures>, DataPlaneError> {
        self.failures_at(self.indices(key).unwrap_or_default())
    }

    /// The same for the backends at these indices of the map.
    pub fn failures_at(&self, block: Range<u32>) -> Result<Vec<BackendFailures>, DataPlaneError> {
        counters::failures(&self.maps.failures, block, self.cpus)
    }

    /// Where in the map of backends those of a service are.
    pub fn indices(&self, key: &lb_common::service::ServiceKey) -> Option<Range<u32>> {
        Some(self.maps.state.services.get(key)?.block.clone())
    }

    /// The bell of the programs, which rings for one listener.
    pub fn bell(&self) -> Result<Bell, DataPlaneError> {
        Bell::open(&self.pins)
    }

    /// The index of a service's backend in the map of backends.
    pub fn backend_index(
        &self,
        key: &lb_common::service::ServiceKey,
        backend: std::net::SocketAddr,
    ) -> Option<u32> {
        let (applied, at) = self.held(key, backend)?;
        Some(applied.block.start + u32::try_from(at).ok()?)
    }

    /// What the maps hold for a service's backend.
    pub fn backend(
        &self,
        key: &lb_common::service::ServiceKey,
        backend: std::net::SocketAddr,
    ) -> Option<&Backend> {
        let (applied, at) = self.held(key, backend)?;
        applied.backends.get(at)
    }

    /// A service, and the place of a backend among its own.
    fn held(
        &self,
        key: &lb_common::service::ServiceKey,
        backend: std::net::SocketAddr,
    ) -> Option<(&state::Applied, usize)> {
        let applied = self.maps.state.services.get(key)?;
        let (address, port_be) = (backend.ip().into(), backend.port().to_be());
        let is_it = |b: &Backend| b.address == address && b.port_be == port_be;
        Some((applied, applied.backends.iter().position(is_it)?))
    }

    /// A handle of its own on the NAT flows and the counted connections, for a thread that may block,
    /// and what ends its work.
    pub fn sweeper(&self) -> Result<(Sweeper, SweepStop), DataPlaneError> {
        let flows = self.maps.nat_flows.try_clone();
        let flows = flows.map_err(|e| DataPlaneError::io("duplicating", map::NAT_FLOWS, e))?;
        let known = self.maps.connections.try_clone();
        let known = known.map_err(|e| DataPlaneError::io("duplicating", map::CONNECTIONS, e))?;
        let open = SharedArray::of::<u64>(&self.maps.open, connection::OPEN)
            .map_err(|e| DataPlaneError::io("mapping", map::OPEN, e))?;
        Ok(Sweeper::new(flows, Connections { known, open }, Arc::clone(&self.hearsay)))
    }

    /// A handle of its own on the NAT flows, for what other nodes tell of theirs.
    pub fn translations(&self) -> Result<Translations, DataPlaneError> {
        let flows = self.maps.nat_flows.try_clone();
        let flows = flows.map_err(|e| DataPlaneError::io("duplicating", map::NAT_FLOWS, e))?;
        Ok(Translations { flows: Arc::new(flows), hearsay: Arc::clone(&self.hearsay) })
    }

    /// Handles of its own on the connections that are noted.
    pub fn flows(&self) -> Result<Flows, DataPlaneError> {
        let of = |fd: &OwnedFd, name| {
            fd.try_clone().map_err(|e| DataPlaneError::io("duplicating", name, e))
        };
        Ok(Flows {
            noted: of(&self.maps.flows, map::FLOWS)?,
            translated: of(&self.maps.nat_flows, map::NAT_FLOWS)?,
            origins: of(&self.maps.host_origins, map::HOST_ORIGINS)?,
        })
    }

    /// What the kernel takes for the maps, but for the tables.
    pub fn memory(&self) -> Result<Vec<MapMemory>, DataPlaneError> {
        memory::of_maps(&self.pins)
    }

    /// What the kernel takes for the tables.
    pub fn tables_memory(&self) -> TablesMemory {
        self.maps.state.tables_memory()
    }

    /// The table of a service: its index, and what the kernel takes for it.
    pub fn table_of(&self, key: &lb_common::service::ServiceKey) -> Option<(u32, u64)> {
        self.maps.state.table_of(key)
    }

    /// CPUs for each of which a backend has counters of its own.
    pub const fn cpus(&self) -> usize {
        self.cpus
    }

    /// Leaves nothing behind: detaches everything and removes what is pinned.
    pub fn close(self) -> Result<(), DataPlaneError> {
        for attached in &self.attached {
            attach::detach(&self.pins, attached.index)?;
        }
        hooks::detach(&self.pins)?;
        self.pins.remove().map_err(|e| DataPlaneError::file("removing", map::ALL[0], e))
    }
}

/// The way to the maps of an agent of an earlier layout that is to follow.
#[derive(Debug)]
pub struct Successor(Migration);

impl Successor {
    /// Copies what it does not share, once nobody writes it.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn hand_over(&self) -> Result<(), DataPlaneError> {
        self.0.share_links()?;
        self.0.copy(Pass::First).map(drop)
    }

    /// Copies what has come since.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn hand_over_rest(&self) -> Result<(), DataPlaneError> {
        self.0.copy(Pass::Again).map(drop)
    }
}

/// The clock of leases and NAT entries: `CLOCK_MONOTONIC` in nanoseconds, as in the programs.
pub fn monotonic_ns() -> u64 {
    // CLOCK_MONOTONIC always exists and never is negative.
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
