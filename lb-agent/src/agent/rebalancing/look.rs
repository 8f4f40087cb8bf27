//! A look at the connections of services: one list of the kernel's for all of them, on a thread that may block.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::{Instant, SystemTime};

use tokio::task::JoinError;

use super::{Rebalancer, Ward};
use crate::netlink::{self, Established, NetlinkError};
use crate::rebalance::{Connection, Look, Movable, Placing, Sight, Sights, Survey};

/// Since when the connections at each service's address are there.
pub(super) type Sighted = HashMap<SocketAddr, Sights>;

/// What was found of each service.
pub(super) type Looks<K> = HashMap<String, (Look, Vec<Movable<K>>)>;

#[derive(Debug, thiserror::Error)]
pub(super) enum LookError {
    #[error(transparent)]
    Sockets(#[from] NetlinkError),
    #[error(transparent)]
    Ended(#[from] JoinError),
}

impl Rebalancer {
    /// Looks at the connections of these services, and keeps what it found. `keep` makes of a socket what is wanted
    /// of those that can be moved.
    pub(super) async fn look_at<K: Send + 'static>(
        &self,
        wards: HashMap<String, Ward>,
        keep: impl Fn(Established, Sight) -> K + Send + 'static,
    ) -> Result<Looks<K>, LookError> {
        let mut sighted = std::sync::Arc::clone(&self.sighted).lock_owned().await;
        let known: HashSet<SocketAddr> = self.addresses();
        let looking = tokio::task::spawn_blocking(move || {
            sighted.retain(|at, _| known.contains(at));
            look(&wards, &mut sighted, keep)
        });
        let looks = looking.await??;
        let mut state = self.lock();
        for (name, (look, _)) in &looks {
            if let Some(course) = state.services.get_mut(name) {
                course.look = Some((SystemTime::now(), look.clone()));
            }
        }
        drop(state);
        Ok(looks)
    }

    fn addresses(&self) -> HashSet<SocketAddr> {
        let state = self.lock();
        let wards = state.services.values().filter_map(|course| course.ward.as_ref());
        wards.flat_map(|ward| ward.addresses.iter().map(|frontage| frontage.at)).collect()
    }
}

fn look<K>(
    wards: &HashMap<String, Ward>,
    sighted: &mut Sighted,
    keep: impl Fn(Established, Sight) -> K,
) -> Result<Looks<K>, LookError> {
    let frontages = || wards.values().flat_map(|ward| &ward.addresses);
    let at: HashSet<SocketAddr> = frontages().map(|frontage| frontage.at).collect();
    let begun = Instant::now();
    let found = netlink::established(&at)?;
    let ended = Instant::now();
    let mut found_at: HashMap<SocketAddr, Vec<Established>> = HashMap::new();
    for connection in found {
        found_at.entry(connection.near).or_default().push(connection);
    }
    let mut looks = Looks::new();
    for (name, ward) in wards {
        let mut survey = Survey::default();
        for frontage in &ward.addresses {
            let found = found_at.remove(&frontage.at).unwrap_or_default();
            let sights = sighted.entry(frontage.at).or_default();
            sights.note(begun, ended, found.iter().map(|found| found.cookie));
            if found.is_empty() {
                // A table that is not needed is not built.
                continue;
            }
            let places = std::sync::Arc::clone(&frontage.places);
            let placing = Placing { places, buckets: frontage.table.buckets() };
            for found in found {
                let Some(sight) = sights.of(found.cookie) else { continue };
                let connection = connection(&found, sight, ward);
                let socket = keep(found, sight);
                survey.add(socket, &connection, &placing, &frontage.backends, &ward.terms);
            }
        }
        looks.insert(name.clone(), survey.done());
    }
    // The kernel has them, and here they are not needed until the next look.
    frontages().for_each(|frontage| frontage.table.release());
    Ok(looks)
}

pub(super) fn connection(found: &Established, sight: Sight, ward: &Ward) -> Connection {
    Connection {
        client: found.far,
        // Silence begins with the connection at the earliest.
        age: sight.age(Instant::now()).max(found.sent).max(found.received),
        sent: found.sent,
        received: found.received,
        pending: found.unacknowledged > 0 || found.unread > 0,
        // Until then other nodes may not have known it.
        returns: sight.is_after(ward.since + ward.terms.stable),
    }
}
