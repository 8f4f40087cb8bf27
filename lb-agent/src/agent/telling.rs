//! Tells the clients of backends that are gone, beside the loop: there may be many, and some must be told more
//! than once.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lb_common::flow::{Flow, FlowKey};
use lb_common::service::ServiceKey;
use pnet::packet::tcp::TcpFlags;
use tokio::task::JoinError;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};
use tracing::{info, warn};

use super::census::Place;
use super::core::Agent;
use crate::absence::{Segment, Sender};
use crate::dataplane::{DataPlaneError, Flows, Noted};
use crate::netlink;

/// Pauses before each round: an answer gets lost while another node has not found yet that the backend is gone.
const ROUNDS: [Duration; 14] = [
    Duration::ZERO,
    Duration::from_millis(100),
    Duration::from_millis(100),
    Duration::from_millis(100),
    Duration::from_millis(100),
    Duration::from_millis(150),
    Duration::from_millis(150),
    Duration::from_millis(300),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(3),
    Duration::from_secs(5),
    Duration::from_secs(5),
];
/// In this round those are asked, too, whose backend is not known for sure.
const OTHERS: usize = 8;

/// So many segments go out together, once in a [`PAUSE`]: 5,000 in a second.
const TOGETHER: usize = 50;
const PAUSE: Duration = Duration::from_millis(10);

const TTL: u8 = 64;

/// What all the tellings share.
#[derive(Clone, Debug)]
pub(super) struct Teller {
    flows: Arc<Flows>,
    sender: Arc<Sender>,
    pace: Arc<tokio::sync::Mutex<Interval>>,
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    /// Backends that are gone, with their indexes.
    gone: HashMap<Place, u32>,
    /// How many connections to each ended when their clients were told.
    told: HashMap<Place, u64>,
}

impl Teller {
    pub(super) fn new(flows: Flows) -> Self {
        let mut pace = interval(PAUSE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            flows: Arc::new(flows),
            sender: Arc::new(Sender::open()),
            pace: Arc::new(tokio::sync::Mutex::new(pace)),
            known: Arc::default(),
        }
    }

    /// Tells nobody any more, until another plan says who is gone.
    pub(super) fn rest(&self) {
        self.lock().gone.clear();
    }

    pub(super) fn told(&self, place: &Place) -> u64 {
        self.lock().told.get(place).copied().unwrap_or(0)
    }

    /// What this lock guards is whole between any two statements.
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those of these that are still gone.
    fn still(&self, places: &HashMap<Place, u32>) -> HashMap<Place, u32> {
        let known = self.lock();
        let still = places.iter().filter(|(place, index)| known.gone.get(place) == Some(index));
        still.map(|(place, index)| (*place, *index)).collect()
    }

    fn count(&self, place: Place, connections: u64) {
        *self.lock().told.entry(place).or_insert(0) += connections;
    }

    async fn tell(self, places: HashMap<Place, u32>) {
        if let Err(error) = self.end_own(&places).await {
            warn!(%error, "own connections to a backend that is gone are not ended");
        }
        if let Err(error) = self.tell_clients(&places).await {
            warn!(%error, "clients of a backend that is gone are not told");
        }
    }

    /// Ends the connections of this node's own processes, which the hooks sent to the backends.
    async fn end_own(&self, places: &HashMap<Place, u32>) -> Result<(), TellingError> {
        let backends: HashSet<SocketAddr> = places.keys().map(|(_, backend)| *backend).collect();
        let flows = Arc::clone(&self.flows);
        let ended = tokio::task::spawn_blocking(move || {
            let sockets = flows.own_sockets(&backends)?;
            if sockets.is_empty() {
                return Ok(0);
            }
            Ok::<u64, TellingError>(netlink::end_connections(&backends, &sockets)?)
        });
        let ended = ended.await??;
        if ended > 0 {
            info!(
                event = "clients-told",
                ended, "connections of this node's processes to a backend that is gone were ended"
            );
        }
        Ok(())
    }

    async fn tell_clients(&self, places: &HashMap<Place, u32>) -> Result<(), TellingError> {
        let mut asked: HashMap<FlowKey, Place> = HashMap::new();
        let mut told = 0;
        for (round, pause) in ROUNDS.into_iter().enumerate() {
            sleep(pause).await;
            let places = self.still(places);
            if places.is_empty() {
                break;
            }
            let Noted { of, others } = self.connections(&places).await?;
            let by_index: HashMap<u32, Place> =
                places.iter().map(|(place, index)| (*index, *place)).collect();
            let left: HashSet<FlowKey> = of.iter().map(|(_, key, _)| *key).collect();
            asked.retain(|key, place| {
                let over = !left.contains(key);
                if over {
                    told += 1;
                    self.count(*place, 1);
                }
                !over
            });
            for (index, key, _) in &of {
                asked.extend(by_index.get(index).map(|place| (*key, *place)));
            }
            self.ask(of.iter().map(|(_, key, flow)| (key, flow))).await;
            if round == OTHERS {
                self.ask(others.iter().map(|(key, flow)| (key, flow))).await;
            }
            if round >= OTHERS && asked.is_empty() {
                break;
            }
        }
        if told > 0 || !asked.is_empty() {
            info!(
                event = "clients-told",
                told,
                left = asked.len(),
                "clients of backends that are gone were told"
            );
        }
        Ok(())
    }

    /// The connections to the services of these backends, told apart. Translations to them are forgotten.
    async fn connections(&self, places: &HashMap<Place, u32>) -> Result<Noted, TellingError> {
        let mut services: HashMap<ServiceKey, HashSet<u32>> = HashMap::new();
        for ((service, _), index) in places {
            services.entry(*service).or_default().insert(*index);
        }
        let indexes: HashSet<u32> = places.values().copied().collect();
        let flows = Arc::clone(&self.flows);
        let noted = tokio::task::spawn_blocking(move || {
            flows.forget_translations(&indexes)?;
            flows.to(&services)
        });
        Ok(noted.await??)
    }

    /// Asks each client whether it still means its connection.
    async fn ask<'a>(&self, flows: impl Iterator<Item = (&'a FlowKey, &'a Flow)>) {
        let mut room = 0;
        for (key, flow) in flows {
            if room == 0 {
                self.pace.lock().await.tick().await;
                room = TOGETHER;
            }
            room -= 1;
            // One that finds no room or no way is asked again in the next round.
            let _ = self.sender.send(&question(key, flow));
        }
    }
}

/// A segment from the service that its client must answer, since it is behind what was acknowledged (RFC 9293,
/// 3.10.7.4), as TCP's keep-alive sends it. With a byte in it, since Linux answers bare ones twice a second at most
/// (`tcp_oow_rate_limited`).
fn question(key: &FlowKey, flow: &Flow) -> Segment {
    Segment {
        source: SocketAddr::new(key.destination.into(), u16::from_be(key.destination_port_be)),
        destination: SocketAddr::new(key.source.into(), u16::from_be(key.source_port_be)),
        // The byte and its end are before what the client expects.
        sequence: u32::from_be(flow.acknowledged_be).wrapping_sub(2),
        acknowledgement: u32::from_be(flow.sequence_be),
        flags: TcpFlags::ACK,
        has_byte: true,
        ttl: TTL,
    }
}

#[derive(Debug, thiserror::Error)]
enum TellingError {
    #[error(transparent)]
    Flows(#[from] DataPlaneError),
    #[error(transparent)]
    Sockets(#[from] netlink::NetlinkError),
    #[error(transparent)]
    Ended(#[from] JoinError),
}

impl Agent {
    /// Begins to tell the clients of backends that have gone, as the plan in use has it.
    pub(super) fn tell_clients(&mut self) {
        let mut gone = HashMap::new();
        for service in &self.services {
            let standings = &self.standings[service.configured].backends;
            for backend in &service.backends {
                if standings.get(backend.place).is_some_and(|standing| standing.usable.gone)
                    && let Some(index) = self.dataplane.backend_index(&service.key, backend.address)
                {
                    gone.insert((service.key, backend.address), index);
                }
            }
        }
        let here = |(key, backend): &Place| {
            let service = self.services.iter().find(|service| service.key == *key);
            service.is_some_and(|service| service.backends.iter().any(|b| b.address == *backend))
        };
        let new = {
            let mut known = self.teller.lock();
            let former = std::mem::replace(&mut known.gone, gone);
            let is_new = |place: &Place| !former.contains_key(place);
            known.told.retain(|place, _| here(place));
            let new = known.gone.iter().filter(|(place, _)| is_new(place));
            new.map(|(place, index)| (*place, *index)).collect::<HashMap<_, _>>()
        };
        if !new.is_empty() {
            tokio::spawn(self.teller.clone().tell(new));
        }
    }
}

#[cfg(test)]
mod tests {
    use lb_common::Address;
    use lb_common::service::TCP;

    use super::*;

    #[test]
    fn a_client_is_asked_from_the_service_about_what_it_had_already() {
        let key = FlowKey {
            source: Address::from_v4([198, 51, 100, 7]),
            destination: Address::from_v4([192, 0, 2, 100]),
            source_port_be: 40_000u16.to_be(),
            destination_port_be: 8443u16.to_be(),
            protocol: TCP,
            padding: [0; 3],
        };
        let flow =
            Flow { sequence_be: 500u32.to_be(), acknowledged_be: 0u32.to_be(), ..Flow::default() };
        let segment = question(&key, &flow);
        assert_eq!(segment.source, "192.0.2.100:8443".parse().unwrap());
        assert_eq!(segment.destination, "198.51.100.7:40000".parse().unwrap());
        assert_eq!((segment.sequence, segment.acknowledgement), (u32::MAX - 1, 500));
        assert!(segment.has_byte);
    }
}
