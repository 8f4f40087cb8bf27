//! Reading the counters: per-CPU values added up.

use std::ops::Range;
use std::os::fd::OwnedFd;

use lb_common::backend::BackendCounters;
use lb_common::counter::Verdict;
use lb_common::layout::map;
pub use lb_common::passive::BackendFailures;

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
    let name = map::BACKEND_COUNTERS;
    of_each(counters, name, block, cpus, BackendCounters::default(), sum)
}

pub(super) fn failures(
    failures: &OwnedFd,
    block: Range<u32>,
    cpus: usize,
) -> Result<Vec<BackendFailures>, DataPlaneError> {
    of_each(failures, map::FAILURES, block, cpus, BackendFailures::default(), sum_failures)
}

/// What `sum` makes of the values that the CPUs have for each of these elements.
fn of_each<V: aya::Pod, T>(
    values: &OwnedFd,
    name: &'static str,
    block: Range<u32>,
    cpus: usize,
    empty: V,
    sum: fn(&[V]) -> T,
) -> Result<Vec<T>, DataPlaneError> {
    let mut sums = Vec::with_capacity(block.len());
    let mut first = block.start;
    while first < block.end {
        let count = (block.end - first).min(BACKENDS_AT_ONCE);
        let read = batch::read(values, first, count as usize, cpus, empty)
            .map_err(|e| DataPlaneError::io("reading", name, e))?;
        sums.extend(read.chunks_exact(cpus).map(sum));
        first += count;
    }
    Ok(sums)
}

fn sum_failures(of_cpus: &[BackendFailures]) -> BackendFailures {
    of_cpus.iter().fold(BackendFailures::default(), |sum, value| BackendFailures {
        refused: sum.refused + value.refused,
        unanswered: sum.unanswered + value.unanswered,
        untold: sum.untold + value.untold,
        told_ns: sum.told_ns.max(value.told_ns),
    })
}

fn sum(of_cpus: &[BackendCounters]) -> BackendTotals {
    of_cpus.iter().fold(BackendTotals::default(), |sum, value| BackendTotals {
        connections: sum.connections + value.connections,
        packets: sum.packets + value.packets,
        bytes: sum.bytes + value.bytes,
    })
}
