//! Reading the counters: per-CPU values added up.

use std::ops::Range;
use std::os::fd::OwnedFd;

use lb_common::backend::BackendCounters;
use lb_common::counter::Verdict;
use lb_common::layout::map;

use super::batch;
use super::error::DataPlaneError;

/// What this node steered to a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendTotals {
    pub connections: u64,
    pub packets: u64,
    pub bytes: u64,
}

/// A system call's worth of backends: what is read stays in the cache.
const BACKENDS_AT_ONCE: u32 = 4096;

pub(super) fn verdicts(counters: &OwnedFd, cpus: usize) -> Result<Vec<u64>, DataPlaneError> {
    let values = batch::read(counters, 0, Verdict::ALL.len(), cpus, 0u64)
        .map_err(|e| DataPlaneError::io("reading", map::COUNTERS, e))?;
    Ok(values.chunks_exact(cpus).map(|of_one| of_one.iter().sum()).collect())
}

pub(super) fn backends(
    counters: &OwnedFd,
    block: Range<u32>,
    cpus: usize,
) -> Result<Vec<BackendTotals>, DataPlaneError> {
    let mut totals = Vec::with_capacity(block.len());
    let mut first = block.start;
    while first < block.end {
        let count = (block.end - first).min(BACKENDS_AT_ONCE);
        let values = batch::read(counters, first, count as usize, cpus, BackendCounters::default())
            .map_err(|e| DataPlaneError::io("reading", map::BACKEND_COUNTERS, e))?;
        totals.extend(values.chunks_exact(cpus).map(sum));
        first += count;
    }
    Ok(totals)
}

fn sum(of_cpus: &[BackendCounters]) -> BackendTotals {
    of_cpus.iter().fold(BackendTotals::default(), |sum, value| BackendTotals {
        connections: sum.connections + value.connections,
        packets: sum.packets + value.packets,
        bytes: sum.bytes + value.bytes,
    })
}
