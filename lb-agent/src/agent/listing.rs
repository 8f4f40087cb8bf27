//! The connections that this node knows, one after the other: sockets of its own, translations, and what was noted of
//! those that it carries. None of them is kept, however many there are.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use lb_common::backend::Delivery;
use lb_common::flow::{Flow, FlowKey};
use lb_common::hash::nat_port_hash;
use lb_common::nat::{NatEntry, SEEN_DATA, SEEN_FIN, SEEN_RST};
use lb_common::service::{ServiceKey, TCP, UDP};
use tokio::sync::mpsc;

use super::core::Agent;
use crate::config::Protocol;
use crate::control::api::{self, FlowLine, FlowsEnd, FlowsRequest};
use crate::control::server::Refusal;
use crate::dataplane::{Flows, monotonic_ns};
use crate::netlink::{self, Established};

/// Nothing depends on it.
const NUMBERS: u64 = 0x666c_6f77_6e75_6d62;

/// The backends of a service at one of its addresses.
struct Place {
    name: Arc<str>,
    block: Range<u32>,
    /// With the node that each is on, and whether frames are carried there.
    backends: Vec<(SocketAddr, Option<Arc<str>>, Delivery)>,
}

/// All that a list is made with, so that the loop goes on meanwhile.
struct Lister {
    places: HashMap<ServiceKey, Place>,
    flows: Flows,
    request: FlowsRequest,
    lines: mpsc::Sender<FlowLine>,
    listed: u64,
    /// Numbers of those that are sockets here: what was noted of them is passed over.
    here: HashSet<u64>,
}

impl Agent {
    /// Begins to list flows, beside the loop.
    pub(super) fn list_flows(
        &self,
        request: FlowsRequest,
        lines: mpsc::Sender<FlowLine>,
    ) -> Result<(), Refusal> {
        if let Some(name) = &request.service
            && !self.config.services.iter().any(|service| service.name == *name)
        {
            let sentence = format!("there is no service `{name}` (lbctl services)");
            return Err(Refusal { callers: true, sentence });
        }
        let flows = self.dataplane.flows();
        let flows =
            flows.map_err(|error| Refusal { callers: false, sentence: error.to_string() })?;
        let (places, here) = (self.listed_places(&request), HashSet::new());
        let lister = Lister { places, flows, request, lines, listed: 0, here };
        tokio::task::spawn_blocking(move || lister.run());
        Ok(())
    }

    fn listed_places(&self, request: &FlowsRequest) -> HashMap<ServiceKey, Place> {
        let nodes: HashMap<IpAddr, Arc<str>> = self
            .config
            .nodes
            .iter()
            .flat_map(|node| {
                let name: Arc<str> = node.name.as_str().into();
                node.addresses.iter().map(move |address| (*address, Arc::clone(&name)))
            })
            .collect();
        let services = self.services.iter().filter_map(|service| {
            let name = &self.config.services[service.configured].name;
            if request.service.as_ref().is_some_and(|wanted| wanted != name) {
                return None;
            }
            let backends = service.backends.iter().map(|backend| {
                let node = nodes.get(&backend.address.ip()).cloned();
                (backend.address, node, backend.intended)
            });
            let place = Place {
                name: name.as_str().into(),
                block: self.dataplane.indices(&service.key)?,
                backends: backends.collect(),
            };
            Some((service.key, place))
        });
        services.collect()
    }
}

impl Lister {
    fn run(mut self) {
        let listed = self.sockets().and_then(|()| self.translated()).and_then(|()| self.noted());
        let last = match listed {
            Ok(()) => {
                let more = self.is_full();
                FlowLine::End(FlowsEnd { flows: self.listed, more })
            }
            Err(why) => FlowLine::Failed(why),
        };
        // Whoever asked may have gone.
        drop(self.lines.blocking_send(last));
    }

    fn is_full(&self) -> bool {
        self.request.limit.is_some_and(|limit| self.listed >= limit)
    }

    fn is_wanted(&self, client: SocketAddr, backend: Option<SocketAddr>) -> bool {
        let FlowsRequest { client: address, client_port, backend: of, .. } = &self.request;
        address.is_none_or(|address| address == client.ip())
            && client_port.is_none_or(|port| port == client.port())
            && of.is_none_or(|of| Some(of) == backend)
    }

    /// Tells of a flow; false where nobody wants more. Waits for whoever reads.
    fn tell(&mut self, flow: api::Flow) -> bool {
        if self.is_full() {
            return false;
        }
        self.listed += 1;
        self.lines.blocking_send(FlowLine::Flow(Box::new(flow))).is_ok() && !self.is_full()
    }

    /// Of this node's servers.
    fn sockets(&mut self) -> Result<(), String> {
        let local = self.places.iter().filter(|(key, place)| {
            key.protocol == TCP && place.backends.iter().any(|it| it.2 == Delivery::Local)
        });
        let at: HashMap<SocketAddr, ServiceKey> =
            local.map(|(key, _)| (address(key), *key)).collect();
        if at.is_empty() || self.is_full() {
            return Ok(());
        }
        let addresses: HashSet<SocketAddr> = at.keys().copied().collect();
        let asked = netlink::for_each_established(&addresses, |socket| {
            let Some(key) = at.get(&socket.near) else { return true };
            self.here.insert(number(&tuple(key, socket.far)));
            let Some((flow, backend)) = self.of_socket(key, &socket) else { return true };
            !self.is_wanted(flow.client, backend) || self.tell(flow)
        });
        asked.map_err(|error| error.to_string())
    }

    fn of_socket(
        &self,
        key: &ServiceKey,
        socket: &Established,
    ) -> Option<(api::Flow, Option<SocketAddr>)> {
        let place = self.places.get(key)?;
        let backend = place.backends.iter().find(|it| it.2 == Delivery::Local);
        let address = backend.map(|it| it.0);
        let flow = api::Flow {
            client: canonical(socket.far),
            address: socket.near,
            protocol: Protocol::Tcp,
            service: place.name.to_string(),
            backend: address,
            node: backend.and_then(|it| it.1.as_deref()).map(str::to_owned),
            delivery: api::Delivery::Local,
            source: None,
            state: Some("established".to_owned()),
            age_seconds: None,
            idle_seconds: socket.sent.min(socket.received).as_secs_f64(),
            packets: (socket.segments > 0).then_some(socket.segments),
            bytes: (socket.segments > 0).then_some(socket.bytes),
        };
        Some((flow, address))
    }

    /// Through NAT by this node.
    fn translated(&mut self) -> Result<(), String> {
        let (now, flows) = (monotonic_ns(), self.handle()?);
        let read = flows.for_each_translated(|key, entry| {
            let Some(flow) = self.of_entry(key, entry, now) else { return true };
            !self.is_wanted(flow.client, flow.backend) || self.tell(flow)
        });
        read.map_err(|error| error.to_string())
    }

    fn of_entry(&self, key: &FlowKey, entry: &NatEntry, now_ns: u64) -> Option<api::Flow> {
        let place = self.places.get(&service(key))?;
        let port = |port_be: u16| u16::from_be(port_be);
        let to = SocketAddr::new(entry.destination.into(), port(entry.destination_port_be));
        let backend = place.backends.iter().find(|it| it.0 == to);
        let state = match entry.seen {
            _ if entry.is_only_told() => "told",
            seen if seen & (SEEN_FIN | SEEN_RST) != 0 => "closing",
            seen if seen & SEEN_DATA != 0 => "established",
            _ => "opening",
        };
        let idle = Duration::from_nanos(now_ns.saturating_sub(entry.last_seen_ns));
        Some(api::Flow {
            client: client(key),
            address: SocketAddr::new(key.destination.into(), port(key.destination_port_be)),
            protocol: if key.protocol == UDP { Protocol::Udp } else { Protocol::Tcp },
            service: place.name.to_string(),
            backend: Some(to),
            node: backend.and_then(|it| it.1.as_deref()).map(str::to_owned),
            delivery: api::Delivery::Nat,
            source: Some(SocketAddr::new(entry.source.into(), port(entry.source_port_be))),
            state: Some(state.to_owned()),
            age_seconds: None,
            idle_seconds: idle.as_secs_f64(),
            packets: None,
            bytes: None,
        })
    }

    /// Carried to other nodes, as far as they were noted.
    fn noted(&mut self) -> Result<(), String> {
        let (now, flows) = (Flow::time(monotonic_ns()), self.handle()?);
        let read = flows.for_each_noted(|key, noted| {
            if self.here.contains(&number(key)) {
                return true;
            }
            let Some(flow) = self.of_note(key, noted, now) else { return true };
            !self.is_wanted(flow.client, flow.backend) || self.tell(flow)
        });
        read.map_err(|error| error.to_string())
    }

    /// None of those through NAT, which have been told.
    fn of_note(&self, key: &FlowKey, noted: &Flow, now: u32) -> Option<api::Flow> {
        let place = self.places.get(&service(key))?;
        let at = noted.backend.checked_sub(place.block.start);
        let backend = at.and_then(|at| place.backends.get(at as usize));
        let delivery = match backend.map(|it| it.2) {
            Some(Delivery::Nat) => return None,
            Some(Delivery::Local) => api::Delivery::Local,
            _ => api::Delivery::Direct,
        };
        // In units of 2^30 ns, which is a second as nearly as matters.
        let since = |time: u32| f64::from(now.wrapping_sub(time)) * 1.073_741_824;
        Some(api::Flow {
            client: client(key),
            address: SocketAddr::new(key.destination.into(), u16::from_be(key.destination_port_be)),
            protocol: Protocol::Tcp,
            service: place.name.to_string(),
            backend: backend.map(|it| it.0),
            node: backend.and_then(|it| it.1.as_deref()).map(str::to_owned),
            delivery,
            source: None,
            state: None,
            age_seconds: Some(since(noted.since)),
            idle_seconds: since(noted.seen),
            packets: None,
            bytes: None,
        })
    }

    /// Another handle on the maps, so that this can change meanwhile.
    fn handle(&self) -> Result<Flows, String> {
        self.flows.try_clone().map_err(|error| error.to_string())
    }
}

fn address(key: &ServiceKey) -> SocketAddr {
    SocketAddr::new(key.address.into(), u16::from_be(key.port_be))
}

fn client(key: &FlowKey) -> SocketAddr {
    SocketAddr::new(key.source.into(), u16::from_be(key.source_port_be))
}

/// A socket of IPv6 tells of an IPv4 client in its own way.
fn canonical(far: SocketAddr) -> SocketAddr {
    SocketAddr::new(far.ip().to_canonical(), far.port())
}

const fn service(key: &FlowKey) -> ServiceKey {
    ServiceKey {
        address: key.destination,
        port_be: key.destination_port_be,
        protocol: key.protocol,
        padding: 0,
    }
}

fn tuple(key: &ServiceKey, far: SocketAddr) -> FlowKey {
    FlowKey {
        source: far.ip().to_canonical().into(),
        destination: key.address,
        source_port_be: far.port().to_be(),
        destination_port_be: key.port_be,
        protocol: key.protocol,
        padding: [0; 3],
    }
}

/// Two flows have the same once in 2^64 pairs.
const fn number(key: &FlowKey) -> u64 {
    nat_port_hash(NUMBERS, key)
}
