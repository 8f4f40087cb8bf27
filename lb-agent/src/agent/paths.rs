//! The ways that clients' frames take to backends on other nodes: which are probed, and what follows.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use lb_common::backend::Delivery;
use lb_common::service::TCP;
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::core::{Agent, Health};
use crate::config::Service;
use crate::control::api;
use crate::health::path::{Event, Prober, Target, Way};
use crate::health::{Schedule, State};
use crate::plan::{PlannedBackend, PlannedService};

/// What is known of them.
#[derive(Debug)]
pub(super) struct Paths {
    prober: Prober,
    /// Of each that is probed.
    known: HashMap<Way, (State, String)>,
    /// How many of those fail: mostly none.
    failing: usize,
}

impl Paths {
    pub(super) fn new(prober: Prober) -> Self {
        Self { prober, known: HashMap::new(), failing: 0 }
    }

    fn count(&mut self) {
        self.failing = self.known.values().filter(|(state, _)| *state == State::Down).count();
    }
}

impl Agent {
    /// Has the ways probed that the plan in use takes, and forgets those that it does not take any more.
    pub(super) fn probe_paths(&mut self) {
        let mut own: HashMap<(u32, bool), Option<IpAddr>> = HashMap::new();
        let mut known: HashMap<Way, usize> = HashMap::new();
        let mut targets: Vec<Target> = Vec::new();
        for service in &self.services {
            let configured = &self.config.services[service.configured];
            let health = &configured.health;
            // A datagram is not answered by whoever gets it.
            if service.key.protocol != TCP || !health.enabled || !health.probe_path {
                continue;
            }
            for backend in service.backends.iter().filter(|backend| is_probed(backend)) {
                let ifindex = backend.entry.ifindex;
                let from = own
                    .entry((ifindex, service.address.is_ipv4()))
                    .or_insert_with(|| self.own_address(ifindex, service.address));
                let Some(from) = *from else { continue };
                let way = way(service, backend);
                let drains = self.said_of(service.configured, backend.address).is_some();
                if let Some(&at) = known.get(&way) {
                    targets[at].drains &= drains;
                    continue;
                }
                known.insert(way, targets.len());
                let (mac, schedule) = (backend.entry.mac, Schedule::of(health));
                targets.push(Target { way, ifindex, mac, from, schedule, drains });
            }
        }
        self.paths.known.retain(|way, _| known.contains_key(way));
        for way in known.into_keys() {
            let not_yet = || (State::Unknown, "not probed yet".to_owned());
            self.paths.known.entry(way).or_insert_with(not_yet);
        }
        self.paths.count();
        self.paths.prober.set_targets(targets);
    }

    /// What is known of ways changed.
    pub(super) fn hear_paths(&mut self, event: Event, further: &mut mpsc::Receiver<Event>) {
        self.note_path(event);
        while let Ok(event) = further.try_recv() {
            self.note_path(event);
        }
        self.replan();
    }

    fn note_path(&mut self, event: Event) {
        let Event { way, state, reason } = event;
        let Some(known) = self.paths.known.get_mut(&way) else { return };
        let Way { service, node } = way;
        let node = self.config.node_of(node).map_or_else(|| node.to_string(), |n| n.name.clone());
        match state {
            _ if state == known.0 => {}
            State::Down => {
                warn!(event = "path-fails", %service, node, reason, "what is carried to a node is not served there")
            }
            _ => {
                info!(event = "path-answers", %service, node, reason, "what is carried to a node is served there")
            }
        }
        *known = (state, reason);
        self.paths.count();
    }

    /// The way to a backend that fails, if one of its service's addresses has such, and how.
    pub(super) fn failing_path(
        &self,
        service: &Service,
        backend: SocketAddr,
    ) -> Option<(SocketAddr, &str)> {
        if self.paths.failing == 0 {
            return None;
        }
        service.addresses.iter().find_map(|&address| {
            let at = SocketAddr::new(address, service.port);
            match self.paths.known.get(&Way { service: at, node: backend.ip() }) {
                Some((State::Down, reason)) => Some((at, reason.as_str())),
                _ => None,
            }
        })
    }

    /// Whether clients are kept from a backend by nothing but the way to it: it is well, and used by others.
    pub(super) fn is_cut_off(&self, configured: usize, place: usize) -> bool {
        let service = &self.config.services[configured];
        let Some(backend) = service.backends.get(place) else { return false };
        let of_itself = self.health_of_itself(configured, backend.address);
        of_itself != State::Down
            && self.said_of(configured, backend.address).is_none()
            && self.failing_path(service, backend.address).is_some()
    }

    /// The health of a backend by its checks; where these do not fail, with what the way to it has to say.
    pub(super) fn with_path(
        &self,
        service: &Service,
        backend: SocketAddr,
        checked: Health,
    ) -> Health {
        if checked.state == State::Down {
            return checked;
        }
        let Some((at, why)) = self.failing_path(service, backend) else { return checked };
        let node = self.config.node_of(backend.ip()).map_or("its node", |node| &node.name);
        let reason = format!(
            "{node} does not serve what is carried to it for {at}: {why}; is lb-agent attached there, and the \
             backend in use (lbctl status, lbctl backends)? By itself it is well: {}",
            checked.reason
        );
        Health { state: State::Down, reason, ..checked }
    }

    /// What is known of the way to a backend; nothing where it is not probed.
    pub(super) fn path_state(
        &self,
        service: &PlannedService,
        backend: &PlannedBackend,
    ) -> Option<api::PathState> {
        if !is_probed(backend) {
            return None;
        }
        let (state, _) = self.paths.known.get(&way(service, backend))?;
        Some(match state {
            State::Unknown => api::PathState::Unknown,
            State::Healthy => api::PathState::Answers,
            State::Down => api::PathState::Fails,
        })
    }
}

/// Whether frames are carried to it, and by what MAC is known. Without a weight no client is meant for it, and
/// where it moves to the agent may not be yet.
fn is_probed(backend: &PlannedBackend) -> bool {
    backend.intended == Delivery::Direct && backend.weight > 0 && backend.entry.mac != [0; 6]
}

fn way(service: &PlannedService, backend: &PlannedBackend) -> Way {
    let port = u16::from_be(service.key.port_be);
    Way { service: SocketAddr::new(service.address, port), node: backend.address.ip() }
}
