//! What the kernel takes for the maps, by its own account.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

use aya::maps::MapData;
use lb_common::layout::map;

use super::error::DataPlaneError;
use super::pins::Pins;

/// A map as the kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapMemory {
    pub name: &'static str,
    /// Elements that it has room for.
    pub max_entries: u32,
    /// Of kernel memory: from Linux 6.4 on what it takes (`map_mem_usage`, kernel commit
    /// 90a5527d7686), before that the kernel's estimate of keys and values. Maps of maps without the
    /// maps in them.
    pub bytes: u64,
}

/// All pinned maps.
pub(super) fn of_maps(pins: &Pins) -> Result<Vec<MapMemory>, DataPlaneError> {
    map::ALL
        .into_iter()
        .map(|name| {
            let data = MapData::from_pin(pins.map(name))
                .map_err(|e| DataPlaneError::map("opening", name, e))?;
            let info = data.info().map_err(|e| DataPlaneError::map("reading", name, e))?;
            let bytes = memlock(data.fd()).map_err(|e| DataPlaneError::io("measuring", name, e))?;
            Ok(MapMemory { name, max_entries: info.max_entries(), bytes })
        })
        .collect()
}

/// The kernel memory of a map, by the line `memlock` of what /proc tells of its descriptor.
pub(super) fn memlock(map: impl AsFd) -> io::Result<u64> {
    let descriptor = map.as_fd().as_raw_fd();
    let told = std::fs::read_to_string(format!("/proc/self/fdinfo/{descriptor}"))?;
    read_memlock(&told)
        .ok_or_else(|| io::Error::other("the kernel does not tell a map's memory (no `memlock`)"))
}

fn read_memlock(told: &str) -> Option<u64> {
    told.lines().find_map(|line| line.strip_prefix("memlock:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_is_read_from_among_other_lines() {
        let told =
            "pos:\t0\nflags:\t02\nmap_type:\t1\nmax_entries:\t4\nmemlock:\t4096\nmap_id:\t7\n";
        assert_eq!(read_memlock(told), Some(4096));
        assert_eq!(read_memlock("pos:\t0\n"), None);
        assert_eq!(read_memlock("memlock:\tmany\n"), None);
    }
}
