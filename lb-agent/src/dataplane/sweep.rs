//! Removing the NAT flows and counted connections that are over, on a thread of its own: a map of a million flows takes a good
//! part of a second, for which the agent's loop must not wait.

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lb_common::flow::FlowKey;
use lb_common::layout::map;
use lb_common::nat::{FROM_BACKEND, FROM_CLIENT, NatEntry};

use super::connections::Connections;
use super::error::DataPlaneError;
use super::hearsay::Hearsay;
use super::nat::{Census, FirstPort, NatTimeouts, client_key, is_over, number};
use super::{batch, monotonic_ns};

/// What a sweep found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Flows that stay.
    pub flows: u64,
    /// Flows that were over.
    pub removed: u64,
    /// TCP flows that were made anew in their middle: by their first port, which goes on, and by another one, which
    /// breaks.
    pub anew: u64,
    pub anew_elsewhere: u64,
    /// Connections that are open, to services that limit them.
    pub connections: u64,
    /// How long it took.
    pub took: Duration,
}

/// A handle of its own on the NAT flows and the counted connections.
#[derive(Debug)]
pub struct Sweeper {
    flows: OwnedFd,
    connections: Connections,
    hearsay: Arc<Hearsay>,
    stopped: Arc<AtomicBool>,
}

/// Ends a sweep that runs, when it is dropped: what is left of it is for the next agent.
#[derive(Debug)]
pub struct SweepStop(Arc<AtomicBool>);

impl Drop for SweepStop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Sweeper {
    pub(super) fn new(
        flows: OwnedFd,
        connections: Connections,
        hearsay: Arc<Hearsay>,
    ) -> (Self, SweepStop) {
        let stopped = Arc::new(AtomicBool::new(false));
        let sweeper = Self { flows, connections, hearsay, stopped: Arc::clone(&stopped) };
        (sweeper, SweepStop(stopped))
    }

    /// Looks at every flow and removes those that are over. Blocks for about half a microsecond an
    /// entry, and takes 16 bytes for each meanwhile.
    ///
    /// # Errors
    /// Where the kernel refuses to read the map or to remove from it.
    pub fn sweep(
        &self,
        timeouts: &NatTimeouts,
        first_port: &FirstPort,
    ) -> Result<Sweep, DataPlaneError> {
        let begun = Instant::now();
        let mut census = Census::default();
        let now_ns = monotonic_ns();
        let (mut anew, mut anew_elsewhere) = (0, 0);
        self.hearsay.begin_sweep();
        self.for_each(|key, entry| {
            let told = self.hearsay.met(number(&client_key(key, entry)));
            let entry = told.map_or(*entry, |told| told.applied(entry));
            match first_port.goes_on(key, &entry) {
                Some(true) => anew += 1,
                Some(false) => anew_elsewhere += 1,
                None => {}
            }
            census.note(key, &entry, now_ns);
        })?;
        if !self.stopped.load(Ordering::Relaxed) {
            self.hearsay.end_sweep();
        }
        let (over, mut flows) = census.over(timeouts);
        let mut removed = 0;
        if !over.is_empty() && !self.stopped.load(Ordering::Relaxed) {
            let over = over.into_iter().collect();
            let (gone, stayed) = self.remove(&over, timeouts)?;
            removed = gone;
            flows += stayed;
        }
        let connections = self.connections.sweep(timeouts, &self.stopped)?;
        let took = begun.elapsed();
        Ok(Sweep { flows, removed, anew, anew_elsewhere, connections, took })
    }

    /// How many flows lead to each of these backends, by index, that neither side has ended. Blocks as
    /// [`sweep`](Self::sweep) does.
    ///
    /// # Errors
    /// Where the kernel refuses to read the map.
    pub fn open_flows(&self, backends: &HashSet<u32>) -> Result<HashMap<u32, u64>, DataPlaneError> {
        let mut each: HashMap<u32, Census> = HashMap::new();
        let now_ns = monotonic_ns();
        self.for_each(|key, entry| {
            if backends.contains(&entry.backend) {
                each.entry(entry.backend).or_default().note(key, entry, now_ns);
            }
        })?;
        Ok(each.into_iter().map(|(backend, census)| (backend, census.open())).collect())
    }

    /// When a packet last came from each of these backends, by index, in the programs' clock: within a second.
    /// Blocks as [`sweep`](Self::sweep) does.
    ///
    /// # Errors
    /// Where the kernel refuses to read the map.
    pub fn last_heard(&self, backends: &HashSet<u32>) -> Result<HashMap<u32, u64>, DataPlaneError> {
        let mut heard = HashMap::new();
        self.for_each(|_, entry| {
            if entry.direction == FROM_BACKEND
                && entry.seen != 0
                && backends.contains(&entry.backend)
            {
                let last: &mut u64 = heard.entry(entry.backend).or_default();
                *last = entry.last_seen_ns.max(*last);
            }
        })?;
        Ok(heard)
    }

    /// Removes flows of these numbers. Returns how many went, and how many have come to life again.
    fn remove(
        &self,
        over: &HashSet<u64>,
        timeouts: &NatTimeouts,
    ) -> Result<(u64, u64), DataPlaneError> {
        let mut keys: Vec<(u64, FlowKey)> = Vec::new();
        self.for_each(|key, entry| {
            let number = number(&client_key(key, entry));
            if over.contains(&number) {
                keys.push((number, *key));
            }
        })?;
        keys.sort_unstable_by_key(|(number, _)| *number);
        let (mut removed, mut stayed) = (0, 0);
        for flow in keys.chunk_by(|(a, _), (b, _)| a == b) {
            if self.stopped.load(Ordering::Relaxed) {
                break;
            }
            if self.remove_if_over(flow, timeouts)? {
                removed += 1;
            } else {
                stayed += 1;
            }
        }
        Ok((removed, stayed))
    }

    /// The entries are read anew: packets may have come since they were counted.
    fn remove_if_over(
        &self,
        flow: &[(u64, FlowKey)],
        timeouts: &NatTimeouts,
    ) -> Result<bool, DataPlaneError> {
        let mut entries = Vec::with_capacity(2);
        for (number, key) in flow {
            let entry = batch::lookup(&self.flows, key, NatEntry::EMPTY)
                .map_err(|e| DataPlaneError::io("reading", map::NAT_FLOWS, e))?;
            let told = self.hearsay.of(*number);
            let applied = |entry| told.map_or(entry, |told| told.applied(&entry));
            entries.extend(entry.map(|entry| (*key, applied(entry))));
        }
        if !is_over(&entries, timeouts, monotonic_ns()) {
            return Ok(false);
        }
        // The client's first: without it a packet makes the flow anew, with another port if need be.
        entries.sort_by_key(|(_, entry)| entry.direction != FROM_CLIENT);
        for (key, _) in &entries {
            batch::remove(&self.flows, key)
                .map_err(|e| DataPlaneError::io("removing from", map::NAT_FLOWS, e))?;
        }
        Ok(true)
    }

    fn for_each(&self, mut each: impl FnMut(&FlowKey, &NatEntry)) -> Result<(), DataPlaneError> {
        let goes_on = |key: &FlowKey, entry: &NatEntry| {
            each(key, entry);
            !self.stopped.load(Ordering::Relaxed)
        };
        batch::for_each(&self.flows, NatEntry::EMPTY, goes_on)
            .map_err(|e| DataPlaneError::io("reading", map::NAT_FLOWS, e))
    }
}
