//! Connections of this node that belong elsewhere: who gets new ones is followed here, the sockets are looked at
//! beside the loop now and then, and some are moved when somebody asks for it, or by themselves.

mod asked;
mod look;
mod mover;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use lb_common::backend::{ACCEPTS, Delivery};
use lb_common::service::{HAS_LOCAL, TCP};
use tokio::sync::watch;
use tracing::warn;

use self::look::Sighted;
use super::core::Agent;
use crate::config::Rebalance;
use crate::dataplane::Flows;
use crate::plan::{PlannedBackend, PlannedService, SharedTable};
use crate::rebalance::{self, Look, Obstacle, Pace, Place, Places};
use crate::standing::{Standing, Uses};

/// How often all connections are looked at, unless something is to be begun before that, and for which part of the
/// time at most: a machine may have a million.
const LOOK: Duration = Duration::from_secs(10);
const LOOK_SHARE: u32 = 100;

/// What the looks and the movers share.
#[derive(Clone, Debug)]
pub(super) struct Rebalancer {
    flows: Arc<Flows>,
    /// One look after the other.
    sighted: Arc<tokio::sync::Mutex<Sighted>>,
    state: Arc<Mutex<State>>,
    /// Something has changed that ends what is being done.
    changes: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    /// By the services' names.
    services: HashMap<String, Course>,
    /// All are being looked at.
    looking: bool,
    /// When they are to be again.
    due: Option<Instant>,
    /// The last one's number.
    job: u64,
}

/// A service.
#[derive(Debug, Default)]
struct Course {
    /// None: it is not here, or not any more.
    ward: Option<Ward>,
    look: Option<(SystemTime, Look)>,
    job: Option<Job>,
    pace: Pace,
    /// Since the agent's start.
    moved: u64,
}

/// A service with a backend on this node, as the plan in use has it.
#[derive(Clone, Debug)]
struct Ward {
    terms: Rebalance,
    addresses: Vec<Frontage>,
    /// Since when the same backends get new connections by the same table.
    since: Instant,
}

/// A service at one of its addresses.
#[derive(Clone, Debug)]
struct Frontage {
    at: SocketAddr,
    places: Arc<Places>,
    /// Of the places.
    backends: Arc<[SocketAddr]>,
    table: Arc<SharedTable>,
}

/// Connections are moved, or were.
#[derive(Clone, Debug)]
struct Job {
    number: u64,
    automatic: bool,
    per_minute: u32,
    begun: SystemTime,
    moved: u64,
    /// That could still be moved, as far as it was looked at.
    left: u64,
    /// When it ended, and why.
    ended: Option<(SystemTime, End)>,
}

/// Why a job is over.
#[derive(Clone, Debug)]
struct End {
    reason: String,
    /// None was left that could be moved.
    complete: bool,
}

impl End {
    fn cut(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), complete: false }
    }
}

impl Ward {
    fn obstacle(&self) -> Option<Obstacle> {
        self.addresses.iter().find_map(|frontage| frontage.places.obstacle())
    }

    fn is_placed_as(&self, other: &Self) -> bool {
        let alike = |(one, other): (&Frontage, &Frontage)| {
            one.at == other.at
                && one.places == other.places
                && one.backends == other.backends
                && one.table.is_like(&other.table)
        };
        self.addresses.len() == other.addresses.len()
            && self.addresses.iter().zip(&other.addresses).all(alike)
    }
}

impl Rebalancer {
    pub(super) fn new(flows: Flows) -> Self {
        Self {
            flows: Arc::new(flows),
            sighted: Arc::default(),
            state: Arc::default(),
            changes: watch::Sender::new(()),
        }
    }

    /// What this lock guards is whole between any two statements.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves nothing any more, until another plan says what is where.
    pub(super) fn rest(&self) {
        self.lock().services.values_mut().for_each(|course| course.ward = None);
        self.changes.send_replace(());
    }

    /// How many connections of a service were moved, and how many belonged elsewhere at the last look, if it was
    /// looked at.
    pub(super) fn figures(&self, service: &str) -> (u64, Option<u64>) {
        let state = self.lock();
        let course = state.services.get(service);
        let misplaced = course.and_then(|course| Some(course.look.as_ref()?.1.misplaced));
        (course.map_or(0, |course| course.moved), misplaced)
    }

    /// Takes what the plan says; whatever else is known of a service stays.
    fn take(&self, wards: HashMap<String, Ward>, known: impl Fn(&str) -> bool) {
        let mut state = self.lock();
        state.services.retain(|name, _| known(name));
        let gone = state.services.iter_mut().filter(|(name, _)| !wards.contains_key(*name));
        gone.for_each(|(_, course)| (course.ward, course.look) = (None, None));
        for (name, mut ward) in wards {
            let course = state.services.entry(name).or_default();
            if let Some(former) = course.ward.take()
                && former.is_placed_as(&ward)
            {
                ward.since = former.since;
            }
            course.ward = Some(ward);
        }
        drop(state);
        self.changes.send_replace(());
    }

    /// Looks at all connections if it is time to, and begins to move those of services that want it.
    pub(super) fn look_around(&self) {
        let now = Instant::now();
        let mut state = self.lock();
        if state.looking || state.due.is_some_and(|due| now < due) {
            return;
        }
        let wards: HashMap<String, Ward> = state
            .services
            .iter()
            .filter_map(|(name, course)| Some((name.clone(), course.ward.clone()?)))
            .collect();
        if wards.is_empty() {
            return;
        }
        state.looking = true;
        drop(state);
        let this = self.clone();
        let stable = wards.values().filter(|ward| ward.terms.automatic).map(|w| w.terms.stable);
        let pause = stable.fold(LOOK, Duration::min);
        tokio::spawn(async move {
            if let Err(error) = this.looked_around(wards).await {
                warn!(%error, "looking for connections that belong elsewhere");
            }
            let mut state = this.lock();
            state.looking = false;
            state.due = Some(Instant::now() + pause.max(now.elapsed() * LOOK_SHARE));
        });
    }

    async fn looked_around(&self, wards: HashMap<String, Ward>) -> Result<(), look::LookError> {
        let automatic: Vec<(String, Ward)> = wards
            .iter()
            .filter(|(_, ward)| ward.terms.automatic && ward.obstacle().is_none())
            .map(|(name, ward)| (name.clone(), ward.clone()))
            .collect();
        let looks = self.look_at(wards, |_, _| ()).await?;
        for (name, ward) in automatic {
            let Some((look, _)) = looks.get(&name) else { continue };
            if rebalance::begins(look, ward.since.elapsed(), &ward.terms) && !self.is_moving(&name)
            {
                self.begin(&name, &ward, None).await?;
            }
        }
        Ok(())
    }

    fn is_moving(&self, service: &str) -> bool {
        let state = self.lock();
        let job = state.services.get(service).and_then(|course| course.job.as_ref());
        job.is_some_and(|job| job.ended.is_none())
    }
}

impl Agent {
    /// Has the rebalancer follow the plan in use.
    pub(super) fn follow_placing(&self) {
        let now = Instant::now();
        let mut wards: HashMap<String, Ward> = HashMap::new();
        let here = |s: &&PlannedService| s.flags & HAS_LOCAL != 0 && s.key.protocol == TCP;
        for service in self.services.iter().filter(here) {
            let configured = &self.config.services[service.configured];
            let ward = wards.entry(configured.name.clone()).or_insert_with(|| Ward {
                terms: configured.rebalance,
                addresses: Vec::new(),
                since: now,
            });
            ward.addresses.push(self.frontage(service));
        }
        let config = &self.config;
        self.rebalancer.take(wards, |name| config.services.iter().any(|s| s.name == name));
    }

    fn frontage(&self, service: &PlannedService) -> Frontage {
        let port = u16::from_be(service.key.port_be);
        let standing = &self.standings[service.configured];
        let place = |backend: &PlannedBackend| self.place(service.configured, backend);
        Frontage {
            at: SocketAddr::new(service.address, port),
            places: Arc::new(Places {
                seed: service.seed,
                by_port: service.flags & lb_common::service::HASH_PORT != 0,
                backends: service.backends.iter().map(place).collect(),
                everybody: standing.manner.uses == Uses::Everybody,
            }),
            backends: service.backends.iter().map(|backend| backend.address).collect(),
            table: Arc::clone(&service.table),
        }
    }

    fn place(&self, configured: usize, backend: &PlannedBackend) -> Place {
        let standing = self.standings[configured].backends[backend.place].standing;
        let delivery = backend.entry.delivery;
        let unchecked = !self.config.services[configured].health.enabled;
        let accepts = backend.entry.state & ACCEPTS != 0 && delivery != Delivery::None as u8;
        Place {
            accepts,
            healthy: accepts
                && (standing == Standing::Healthy || unchecked && standing == Standing::Unknown),
            here: backend.intended == Delivery::Local,
            keeps: matches!(standing, Standing::Disabled | Standing::Down | Standing::Draining),
        }
    }
}
