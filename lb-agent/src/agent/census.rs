//! How many connections are left to backends that take no new ones, counted beside the loop: a machine may
//! have a million.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use lb_common::backend::Delivery;
use lb_common::service::{ServiceKey, TCP};
use tokio::task::JoinHandle;
use tracing::warn;

use super::core::Agent;
use crate::dataplane::{DataPlaneError, Sweeper};
use crate::netlink::{self, NetlinkError};
use crate::plan::{PlannedBackend, PlannedService};

/// A backend of a service at one of its addresses.
pub(super) type Place = (ServiceKey, SocketAddr);

/// What was counted.
pub(super) type Counts = HashMap<Place, u64>;

/// Those to count: the way tells where their connections can be found.
#[derive(Debug, Default)]
struct Wanted {
    /// By the address that this machine's sockets have.
    here: Vec<(SocketAddr, Place)>,
    /// By index in the map of backends.
    translated: HashMap<u32, Place>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum CensusError {
    #[error(transparent)]
    Sockets(#[from] NetlinkError),
    #[error(transparent)]
    Flows(#[from] DataPlaneError),
}

impl Agent {
    /// Begins to count; nothing where there is nobody to count for.
    pub(super) fn begin_census(
        &mut self,
        sweeper: &Arc<Sweeper>,
    ) -> Option<JoinHandle<Result<Counts, CensusError>>> {
        let wanted = self.leaving();
        if wanted.here.is_empty() && wanted.translated.is_empty() {
            self.connections_left.clear();
            return None;
        }
        let sweeper = Arc::clone(sweeper);
        Some(tokio::task::spawn_blocking(move || {
            let mut counts = Counts::new();
            if !wanted.here.is_empty() {
                let addresses = wanted.here.iter().map(|(address, _)| *address).collect();
                let open = netlink::open_connections(&addresses)?;
                let count = |address| open.get(&address).copied().unwrap_or(0);
                counts.extend(wanted.here.iter().map(|&(address, place)| (place, count(address))));
            }
            if !wanted.translated.is_empty() {
                let backends: HashSet<u32> = wanted.translated.keys().copied().collect();
                let open = sweeper.open_flows(&backends)?;
                let count = |index| open.get(index).copied().unwrap_or(0);
                counts
                    .extend(wanted.translated.iter().map(|(index, place)| (*place, count(index))));
            }
            Ok(counts)
        }))
    }

    fn leaving(&self) -> Wanted {
        let mut wanted = Wanted::default();
        for service in &self.services {
            let of = &self.config.services[service.configured];
            if !self.said.value().has(&of.name) && !self.discovering.has_leaving(of) {
                continue;
            }
            let is_leaving = |backend: &&PlannedBackend| {
                self.said_of(service.configured, backend.address).is_some()
                    || self.discovering.leaving(of, backend.address).is_some()
            };
            for backend in service.backends.iter().filter(is_leaving) {
                self.note_wanted(service, backend, &mut wanted);
            }
        }
        wanted
    }

    fn note_wanted(&self, service: &PlannedService, backend: &PlannedBackend, wanted: &mut Wanted) {
        let place = (service.key, backend.address);
        let port = u16::from_be(service.key.port_be);
        if backend.entry.delivery == Delivery::Local as u8 && service.key.protocol == TCP {
            // An accepted socket has the address that the client connected to.
            wanted.here.push((SocketAddr::new(service.address, port), place));
        } else if backend.entry.delivery == Delivery::Nat as u8
            && let Some(index) = self.dataplane.backend_index(&service.key, backend.address)
        {
            wanted.translated.insert(index, place);
        }
    }

    pub(super) fn note_census(
        &mut self,
        result: Result<Result<Counts, CensusError>, tokio::task::JoinError>,
    ) {
        const ABOUT: &str = "connections left";
        let error = match result {
            Ok(Ok(counts)) => {
                self.connections_left = counts;
                self.failures.remove(ABOUT);
                return;
            }
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        let sentence = format!("connections of draining backends cannot be counted: {error}");
        if self.failures.insert(ABOUT.to_owned(), sentence.clone()).is_none() {
            warn!("{sentence}");
        }
    }
}
