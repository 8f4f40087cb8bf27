//! The programs' bell: which backends have failed connections to look at, as soon as they have.

#![expect(unsafe_code, reason = "AsyncFd's constructor is unsafe")]

use std::collections::BTreeSet;

use aya::maps::{MapData, RingBuf};
use lb_common::layout::map;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::error::DataPlaneError;
use super::pins::{Pins, open_map};

/// The ring buffer that the programs put indices of backends into.
pub struct Bell(AsyncFd<RingBuf<MapData>>);

impl Bell {
    /// The pinned one, on the current tokio runtime.
    pub(super) fn open(pins: &Pins) -> Result<Self, DataPlaneError> {
        let ring: RingBuf<MapData> = open_map(pins, map::BELL)?;
        // SAFETY: the ring owns the map's descriptor, and neither closes nor replaces it.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
        ring.map(Self).map_err(|e| DataPlaneError::io("watching", map::BELL, e.into()))
    }

    /// Waits until it rings. Returns the indices of the backends that it rang for, each once: as many as the ring
    /// has room for at most. Nothing is lost where this is dropped while it waits.
    pub async fn rung(&mut self) -> BTreeSet<u32> {
        let mut indices = BTreeSet::new();
        loop {
            // It fails only once the runtime ends, with which the agent does.
            let Ok(mut ready) = self.0.readable_mut().await else {
                return std::future::pending().await;
            };
            while let Some(item) = ready.get_inner_mut().next() {
                if let Ok(index) = <[u8; 4]>::try_from(&*item) {
                    indices.insert(u32::from_ne_bytes(index));
                }
            }
            ready.clear_ready();
            if !indices.is_empty() {
                return indices;
            }
        }
    }
}
