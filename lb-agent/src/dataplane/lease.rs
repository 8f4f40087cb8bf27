//! Writing leases: until when this node answers ARP and ND for a VIP.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use aya::maps::{HashMap, Map, MapData};
use lb_common::Address;
use lb_common::layout::map;
use lb_common::vip::Vip;

use super::error::DataPlaneError;
use super::pins::Pins;

/// The map of VIPs, by a handle of its own.
#[derive(Debug)]
pub struct Leases {
    /// Locked by the holder alone; aya wants a map that nobody else writes meanwhile.
    vips: Mutex<HashMap<MapData, Address, Vip>>,
    tables_written: Arc<AtomicBool>,
}

impl Leases {
    pub(super) fn open(
        pins: &Pins,
        tables_written: Arc<AtomicBool>,
    ) -> Result<Self, DataPlaneError> {
        let vips = MapData::from_pin(pins.map(map::VIPS))
            .and_then(Map::from_map_data)
            .and_then(HashMap::try_from)
            .map_err(|e| DataPlaneError::map("opening", map::VIPS, e))?;
        Ok(Self { vips: Mutex::new(vips), tables_written })
    }
}

impl Leases {
    /// Whether the tables of every service are in the kernel.
    pub fn tables_written(&self) -> bool {
        self.tables_written.load(Ordering::Acquire)
    }

    /// Lets this node answer ARP and ND for a VIP until `until_ns` on the kernel's monotonic clock;
    /// none ends that.
    pub fn set(&self, vip: IpAddr, until_ns: Option<u64>) -> Result<(), DataPlaneError> {
        let lease = Vip { lease_until_ns: until_ns.unwrap_or(0) };
        // A panic while it was locked leaves the map as it was.
        let mut vips = self.vips.lock().unwrap_or_else(PoisonError::into_inner);
        vips.insert(Address::from(vip), lease, 0)
            .map_err(|e| DataPlaneError::map("writing a lease to", map::VIPS, e))
    }
}
