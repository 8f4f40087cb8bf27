//! Writing leases: until when this node answers ARP and ND for a VIP.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aya::maps::{HashMap, MapData};
use lb_common::Address;
use lb_common::layout::{map, size};
use lb_common::vip::Vip;

use super::error::DataPlaneError;
use super::maps::ignore_missing;
use super::monotonic_ns;
use super::pins::{Pins, descriptor, open_map};
use super::shared::SharedArray;

/// The map of VIPs, and the leases that it leads to.
#[derive(Debug)]
pub(super) struct Vips {
    map: HashMap<MapData, Address, u32>,
    /// What the map holds. Nobody else writes it, and a lease is renewed with each advertisement.
    places: BTreeMap<Address, u32>,
    leases: SharedArray,
}

impl Vips {
    pub(super) fn take(pins: &Pins) -> Result<Self, DataPlaneError> {
        let leases = descriptor(pins, map::LEASES)?;
        let leases = SharedArray::of::<Vip>(leases, size::VIPS as u32)
            .map_err(|e| DataPlaneError::io("mapping", map::LEASES, e))?;
        let map: HashMap<MapData, Address, u32> = open_map(pins, map::VIPS)?;
        let places = map.iter().collect::<Result<_, _>>();
        let places = places.map_err(|e| DataPlaneError::map("reading", map::VIPS, e))?;
        Ok(Self { map, places, leases })
    }

    /// Those that the map holds.
    pub(super) fn held(&self) -> impl Iterator<Item = Address> {
        self.places.keys().copied()
    }

    /// Ends a VIP's lease and removes it.
    pub(super) fn remove(&mut self, vip: &Address) -> Result<(), DataPlaneError> {
        if let Some(lease) = self.lease(vip) {
            lease.store(0, Ordering::Release);
        }
        ignore_missing(self.map.remove(vip))
            .map_err(|e| DataPlaneError::map("removing from", map::VIPS, e))?;
        self.places.remove(vip);
        Ok(())
    }

    /// Adds a VIP without a lease. Of those that were removed before no program reads any more.
    pub(super) fn add(&mut self, vip: Address) -> Result<(), DataPlaneError> {
        let used: BTreeSet<u32> = self.places.values().copied().collect();
        let mut all = 0..self.leases.len();
        let free = all.find(|place| !used.contains(place));
        let free = free.and_then(|place| Some((place, self.leases.get(place)?.first()?)));
        let (place, lease) =
            free.ok_or(DataPlaneError::Inconsistent("more VIPs than there are leases"))?;
        lease.store(0, Ordering::Release);
        self.map.insert(vip, place, 0).map_err(|e| DataPlaneError::map("writing", map::VIPS, e))?;
        self.places.insert(vip, place);
        Ok(())
    }

    pub(super) fn holds_lease(&self, now_ns: u64) -> bool {
        let mut leases = self.places.keys().filter_map(|vip| self.lease(vip));
        leases.any(|lease| lease.load(Ordering::Acquire) > now_ns)
    }

    /// The one word of a VIP's lease.
    fn lease(&self, vip: &Address) -> Option<&AtomicU64> {
        self.leases.get(*self.places.get(vip)?)?.first()
    }
}

/// The VIPs, for whoever holds them: a handle of its own.
#[derive(Debug)]
pub struct Leases {
    pub(super) vips: Arc<Mutex<Vips>>,
    pub(super) tables_written: Arc<AtomicBool>,
}

/// Locks the VIPs: for a few instructions or one system call, since the Active node renews its lease behind it. A
/// panic in between leaves them as they were.
pub(super) fn lock(vips: &Mutex<Vips>) -> MutexGuard<'_, Vips> {
    vips.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Exchanges what two hold: whoever has a handle on the one goes on with what the other read.
pub(super) fn exchange(one: &Mutex<Vips>, other: &Mutex<Vips>) {
    std::mem::swap(&mut *lock(one), &mut *lock(other));
}

impl Leases {
    /// Whether the tables of every service are in the kernel.
    pub fn tables_written(&self) -> bool {
        self.tables_written.load(Ordering::Acquire)
    }

    /// Lets this node answer ARP and ND for a VIP until `until_ns` on the kernel's monotonic clock;
    /// none ends that.
    ///
    /// # Errors
    /// Where the maps do not hold the VIP (yet), and there is something to begin.
    pub fn set(&self, vip: IpAddr, until_ns: Option<u64>) -> Result<(), DataPlaneError> {
        let vips = lock(&self.vips);
        let Some(lease) = vips.lease(&Address::from(vip)) else {
            let begins = until_ns.is_some_and(|until_ns| until_ns > monotonic_ns());
            return if begins { Err(DataPlaneError::NoVip { vip }) } else { Ok(()) };
        };
        lease.store(until_ns.unwrap_or(0), Ordering::Release);
        Ok(())
    }
}
