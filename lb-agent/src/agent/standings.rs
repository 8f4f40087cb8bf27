//! What each backend is used for now, and what persons have said of it.

use std::net::{IpAddr, SocketAddr};
use std::time::{Instant, SystemTime};

use lb_common::backend::RELUCTANT;
use tracing::{info, warn};

use super::core::{Agent, unkept};
use super::report::unix;
use crate::control::api;
use crate::control::server::Refusal;
use crate::health::State;
use crate::plan;
use crate::standing::{Admin, Manner, Member, Ramp, Said, Standing, Usable, Uses};

/// Of a configured service.
#[derive(Debug)]
pub(super) struct ServiceStanding {
    pub(super) manner: Manner,
    /// In the configuration's order.
    pub(super) backends: Vec<BackendStanding>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct BackendStanding {
    pub(super) standing: Standing,
    pub(super) usable: Usable,
    /// While it starts slowly.
    pub(super) ramp: Option<Ramp>,
    /// Gets no new clients, and not only because the way to it fails: it starts slowly when it gets some again.
    /// One that was cut off was at work all the time.
    pub(super) cold: bool,
    /// When it became that.
    pub(super) since: SystemTime,
    /// How many times it became something else.
    pub(super) transitions: u64,
}

impl BackendStanding {
    /// Of one that nothing is known of yet.
    pub(super) const fn new(since: SystemTime) -> Self {
        let (standing, usable) = (Standing::Unknown, Usable::NOT);
        Self { standing, usable, ramp: None, cold: true, since, transitions: 0 }
    }

    /// Counts what it has become after another one.
    fn after(self, before: &Self) -> Self {
        let (since, transitions) = (before.since, before.transitions);
        if self.standing == before.standing {
            return Self { since, transitions, ..self };
        }
        Self { since: SystemTime::now(), transitions: transitions + 1, ..self }
    }
}

impl Agent {
    /// What a person has said of a backend; nothing if it is enabled.
    pub(super) fn said_of(&self, configured: usize, backend: SocketAddr) -> Option<Said> {
        self.said.value().of(&self.config.services[configured].name, backend)
    }

    fn members(&self, configured: usize) -> impl Iterator<Item = Member> {
        let service = &self.config.services[configured];
        // Most often nothing was said of any.
        let any_said = self.said.value().has(&service.name);
        let any_leaves = self.discovering.has_leaving(service);
        service.backends.iter().map(move |backend| {
            let said = any_said.then(|| self.said_of(configured, backend.address)).flatten();
            let health = self.state_of(configured, backend.address);
            let leaves = any_leaves && self.discovering.leaving(service, backend.address).is_some();
            let admin = match said.map_or(Admin::Enabled, |said| said.admin) {
                Admin::Enabled if leaves => Admin::Draining,
                admin => admin,
            };
            Member {
                health,
                admin,
                backup: backend.backup,
                weighted: backend.weight > 0,
                gone: health == State::Down && self.is_gone(configured, backend.address),
            }
        })
    }

    /// A backend's health without the words for it: down where checks, clients' connections or the way to it say so.
    pub(super) fn state_of(&self, configured: usize, address: SocketAddr) -> State {
        let service = &self.config.services[configured];
        if self.failing_path(service, address).is_some() {
            return State::Down;
        }
        self.health_of_itself(configured, address)
    }

    /// The same, whatever the way to it.
    pub(super) fn health_of_itself(&self, configured: usize, address: SocketAddr) -> State {
        let service = &self.config.services[configured];
        if self.passive.reason(&service.name, address).is_some() {
            return State::Down;
        }
        let target = Self::target(service, address);
        self.health.get(&target).map_or(State::Unknown, |health| health.state)
    }

    /// Works out what each backend is used for.
    pub(super) fn restand(&mut self) {
        let now = Instant::now();
        self.ramp_step = None;
        for configured in 0..self.config.services.len() {
            let members: Vec<Member> = self.members(configured).collect();
            let minimum = self.config.services[configured].health.minimum_healthy;
            let manner = Manner::of(members.iter().copied(), minimum);
            let before = self.standings.get(configured);
            if before.map_or(Uses::Primaries, |before| before.manner.uses) != manner.uses {
                self.tell_of_manner(configured, manner);
            }
            let known = before.map_or(&[][..], |before| &before.backends);
            let backends = members.iter().enumerate().map(|(place, &member)| {
                let known = known.get(place);
                let ramp = self.ramp_of(configured, place, known, manner, member, now);
                let reluctance = ramp.map_or(0, |ramp| ramp.reluctance(now));
                let usable = Usable { reluctance, ..manner.usable(member) };
                let standing = match manner.standing(member) {
                    Standing::Healthy | Standing::Unknown if ramp.is_some() => {
                        Standing::SlowStarting
                    }
                    standing => standing,
                };
                let was_cold = known.is_some_and(|known| known.cold || known.ramp.is_some());
                let cut_off = || self.is_cut_off(configured, place);
                let cold = !usable.accepts && (was_cold || !cut_off());
                let (since, transitions) = (self.started_at, 0);
                let becomes = BackendStanding { standing, usable, ramp, cold, since, transitions };
                known.map_or(becomes, |known| becomes.after(known))
            });
            let service = ServiceStanding { manner, backends: backends.collect() };
            let ramps = service.backends.iter().filter_map(|backend| backend.ramp);
            let steps = ramps.map(|ramp| now + ramp.step());
            self.ramp_step = self.ramp_step.into_iter().chain(steps).min();
            match self.standings.get_mut(configured) {
                Some(before) => *before = service,
                None => self.standings.push(service),
            }
        }
    }

    /// How a backend starts slowly, if it does. Where all are used though they are not well nobody is spared.
    fn ramp_of(
        &self,
        configured: usize,
        place: usize,
        known: Option<&BackendStanding>,
        manner: Manner,
        member: Member,
        now: Instant,
    ) -> Option<Ramp> {
        let service = &self.config.services[configured];
        let lasts = service.health.slow_start;
        let accepts = manner.uses == Uses::Primaries && manner.usable(member).accepts;
        let (ramp, cold) = match known {
            Some(known) => (known.ramp, known.cold),
            // The agent has just begun: as the one before it left it.
            None => {
                let address = service.addresses.first()?;
                let key = plan::key(*address, service);
                let held = self.dataplane.backend(&key, service.backends[place].address);
                let left = held.map_or(0, |held| held.reluctance);
                (Ramp::resumed(left, lasts, now), false)
            }
        };
        Ramp::after(ramp, (cold, accepts), lasts, now)
    }

    fn tell_of_manner(&self, configured: usize, manner: Manner) {
        let service = &self.config.services[configured];
        let (name, healthy, of) = (&service.name, manner.healthy, service.backends.len());
        match manner.uses {
            Uses::Primaries => {
                info!(
                    event = "service-uses",
                    service = name,
                    healthy,
                    of,
                    "healthy backends are used again"
                )
            }
            Uses::Backups => warn!(
                event = "service-uses",
                service = name,
                healthy,
                of,
                "only backups are left, and used"
            ),
            Uses::Everybody => {
                let minimum = service.health.minimum_healthy;
                warn!(
                    event = "service-uses",
                    service = name,
                    healthy,
                    of,
                    minimum,
                    "too few are healthy: all are used"
                );
            }
        }
    }

    /// Why a backend is what it is, but for its health.
    pub(super) fn why_so(&self, configured: usize, place: usize) -> Option<String> {
        let service = &self.config.services[configured];
        let backend = service.backends.get(place)?;
        let of = self.standings.get(configured)?;
        let standing = of.backends.get(place)?;
        let said = self.said_of(configured, backend.address).map(|said| said.admin);
        let why = match (standing.standing, said) {
            (Standing::Disabled, _) => "disabled with lbctl".to_owned(),
            (_, Some(Admin::Draining)) => "drained with lbctl".to_owned(),
            (Standing::Draining, _)
                if self.discovering.leaving(service, backend.address).is_some() =>
            {
                "leaves: it is no longer told of".to_owned()
            }
            (Standing::Draining, _) => "its weight is 0".to_owned(),
            (Standing::Backup, _) => "a backup, while others are healthy".to_owned(),
            (Standing::SlowStarting, _) => slowly(standing),
            (_, _)
                if backend.backup && of.manner.uses == Uses::Backups && standing.usable.accepts =>
            {
                "a backup, since no other is healthy".to_owned()
            }
            (Standing::Down, _) if standing.usable.accepts => too_few(of, service),
            (Standing::Down, _) if standing.usable.gone => "gone: its clients are told".to_owned(),
            _ => return None,
        };
        Some(why)
    }

    /// What a person should know of how services use their backends.
    pub(super) fn manner_warnings(&self) -> impl Iterator<Item = String> {
        let services = self.config.services.iter().zip(&self.standings);
        services.filter_map(|(service, of)| {
            let name = &service.name;
            match of.manner.uses {
                Uses::Primaries => None,
                Uses::Backups => Some(format!("service {name}: only its backups are healthy")),
                Uses::Everybody => Some(format!("service {name}: {}", too_few(of, service))),
            }
        })
    }

    /// Has backends drained, disabled or enabled, of all services at once or of none. Returns them as they
    /// are then.
    pub(super) fn admin_asked(
        &mut self,
        change: &api::AdminChange,
    ) -> Result<Vec<api::Backend>, Refusal> {
        let refused = |sentence| Refusal { callers: true, sentence };
        let found = self.meant(change).map_err(refused)?;
        if change.admin != Admin::Enabled && !change.force {
            self.leaves_somebody(&found, change.admin).map_err(refused)?;
        }
        let since = unix(SystemTime::now());
        let admin = change.admin;
        let config = &self.config;
        let written = self.said.change(|said| {
            for &(configured, place) in &found {
                let service = &config.services[configured];
                let backend = service.backends[place].address;
                let known = said.of(&service.name, backend);
                // Said once more, it holds since the first time.
                if known.map_or(Admin::Enabled, |known| known.admin) != admin {
                    info!(event = "backend-admin", service = service.name, %backend, ?admin, "a backend's use set by hand");
                    said.say(&service.name, backend, Said { admin, since });
                }
            }
        });
        self.recount = true;
        self.replan();
        written.map_err(|error| unkept(&error))?;
        self.backends_at(&found)
            .map_err(|error| Refusal { callers: false, sentence: error.to_string() })
    }

    /// The backends that a change is for, by service and place.
    fn meant(&self, change: &api::AdminChange) -> Result<Vec<(usize, usize)>, String> {
        let services = || self.config.services.iter().enumerate();
        if let Some(service) = &change.service
            && !services().any(|(_, known)| known.name == *service)
        {
            return Err(format!("there is no service `{service}` (lbctl services)"));
        }
        let wanted = Wanted::parse(&change.backend, self);
        let mut found = Vec::new();
        for (configured, service) in services() {
            if change.service.as_ref().is_some_and(|wanted| *wanted != service.name) {
                continue;
            }
            let backends = service.backends.iter().enumerate();
            let fitting = backends.filter(|(_, backend)| wanted.fits(backend.address));
            found.extend(fitting.map(|(place, _)| (configured, place)));
        }
        if found.is_empty() {
            let of =
                change.service.as_ref().map_or_else(String::new, |s| format!(" of service `{s}`"));
            return Err(format!(
                "no backend{of} is `{}`: name it by ADDRESS:PORT, by ADDRESS, or by the name of its node \
                 (lbctl backends)",
                change.backend
            ));
        }
        Ok(found)
    }

    /// Whether each service has somebody for new clients once these have none; else which has not.
    fn leaves_somebody(&self, found: &[(usize, usize)], admin: Admin) -> Result<(), String> {
        for these in found.chunk_by(|(one, _), (other, _)| one == other) {
            let configured = these[0].0;
            let service = &self.config.services[configured];
            let minimum = service.health.minimum_healthy;
            let mut members: Vec<Member> = self.members(configured).collect();
            let serves =
                |members: &[Member]| Manner::of(members.iter().copied(), minimum).healthy > 0;
            let before = serves(&members);
            for &(_, place) in these {
                members[place].admin = admin;
            }
            if before && !serves(&members) {
                return Err(format!(
                    "service `{}` would have no healthy backend left for new clients: if that is meant, \
                     say --force (\"force\": true)",
                    service.name
                ));
            }
        }
        Ok(())
    }

    /// Forgets what was said of backends that the configuration has no more. One that is discovered may come back.
    pub(super) fn forget_strangers(&mut self) {
        let config = &self.config;
        let is_there = |service: &str, backend: SocketAddr| {
            let service = config.services.iter().find(|known| known.name == service);
            service.is_some_and(|service| {
                service.discover.is_some() || service.backends.iter().any(|b| b.address == backend)
            })
        };
        if self.said.value().all(is_there) {
            return;
        }
        match self.said.change(|said| said.keep_only(is_there)) {
            Ok(gone) => info!(gone, "what lbctl said of former backends is forgotten"),
            Err(error) => warn!(%error, "what lbctl said of former backends cannot be forgotten"),
        }
    }
}

fn slowly(standing: &BackendStanding) -> String {
    let left = standing.ramp.map_or(0, |ramp| ramp.left(Instant::now()).as_secs());
    let percent = taken(standing.usable.reluctance) * 100.0;
    format!("starts slowly: takes {percent:.0} % of its clients, all of them in {left} s")
}

/// The part of its clients that a backend takes.
pub(super) fn taken(reluctance: u32) -> f64 {
    1.0 - f64::from(reluctance) / f64::from(RELUCTANT)
}

fn too_few(of: &ServiceStanding, service: &crate::config::Service) -> String {
    format!(
        "{} of {} backends are healthy, fewer than minimum_healthy = {}: all are used",
        of.manner.healthy,
        service.backends.len(),
        service.health.minimum_healthy
    )
}

/// Which backends somebody means.
enum Wanted {
    One(SocketAddr),
    /// On any port of these.
    At(Vec<IpAddr>),
}

impl Wanted {
    fn parse(text: &str, agent: &Agent) -> Self {
        if let Ok(one) = text.parse() {
            return Self::One(one);
        }
        if let Ok(address) = text.parse() {
            return Self::At(vec![address]);
        }
        let node = agent.config.nodes.iter().find(|node| node.name == text);
        Self::At(node.map_or_else(Vec::new, |node| node.addresses.clone()))
    }

    fn fits(&self, backend: SocketAddr) -> bool {
        match self {
            Self::One(one) => *one == backend,
            Self::At(addresses) => addresses.contains(&backend.ip()),
        }
    }
}

/// As the API names it.
pub(super) const fn api_state(standing: Standing) -> api::BackendState {
    match standing {
        Standing::Disabled => api::BackendState::Disabled,
        Standing::Down => api::BackendState::Down,
        Standing::Draining => api::BackendState::Draining,
        Standing::Backup => api::BackendState::Backup,
        Standing::SlowStarting => api::BackendState::SlowStarting,
        Standing::Healthy => api::BackendState::Healthy,
        Standing::Unknown => api::BackendState::Unknown,
    }
}
