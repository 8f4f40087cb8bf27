//! Reading the counters: per-CPU values added up.

use std::ops::Range;

use aya::maps::{MapData, PerCpuArray};
use lb_common::backend::BackendCounters;
use lb_common::counter::Verdict;
use lb_common::layout::map;

use super::error::DataPlaneError;

/// What this node steered to a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendTotals {
    pub connections: u64,
    pub packets: u64,
    pub bytes: u64,
}

pub(super) fn verdicts(counters: &PerCpuArray<MapData, u64>) -> Result<Vec<u64>, DataPlaneError> {
    Verdict::ALL
        .iter()
        .map(|verdict| {
            counters
                .get(&(*verdict as u32), 0)
                .map(|values| values.iter().sum())
                .map_err(|e| DataPlaneError::map("reading", map::COUNTERS, e))
        })
        .collect()
}

pub(super) fn backends(
    counters: &PerCpuArray<MapData, BackendCounters>,
    block: Range<u32>,
) -> Result<Vec<BackendTotals>, DataPlaneError> {
    block
        .map(|index| {
            let values = counters
                .get(&index, 0)
                .map_err(|e| DataPlaneError::map("reading", map::BACKEND_COUNTERS, e))?;
            Ok(values.iter().fold(BackendTotals::default(), |sum, value| BackendTotals {
                connections: sum.connections + value.connections,
                packets: sum.packets + value.packets,
                bytes: sum.bytes + value.bytes,
            }))
        })
        .collect()
}
