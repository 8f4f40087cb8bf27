//! What is known of discovered backends, and what becomes of it by an answer. Pure; kept in a file over restarts.
//!
//! A backend that is no longer told of **leaves**: it gets no new clients, keeps those that it has, and is gone once it
//! has none or its time is over. One that comes back before that is as before. So a record that was taken away a moment
//! too early, a pod that terminates, and a rolling change of all of them break no connection.
//!
//! An answer without a single usable backend changes nothing. It is what a name that was mistyped, a selector that
//! matches nothing and a server that has just lost its zone look like, and a service without backends serves nobody;
//! backends that are really gone are found out by their checks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::Answer;
use crate::config::{Config, Discover, Service};

/// By service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Known {
    services: BTreeMap<String, Set>,
}

/// Of one service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Set {
    /// What was asked for: of something else it says nothing.
    source: String,
    backends: BTreeSet<SocketAddr>,
    /// Since when, in seconds since the Unix epoch.
    leaving: BTreeMap<SocketAddr, f64>,
    /// When the set became this, in the same.
    changed: f64,
}

/// What became of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The service's backends are others, or used otherwise.
    pub changed: bool,
    /// It named nobody who can be used: nothing was changed.
    pub empty: bool,
    /// Addresses that cannot be a backend of this service.
    pub unusable: BTreeSet<SocketAddr>,
    /// Backends beyond the most that there may be.
    pub too_many: usize,
}

impl Known {
    /// Reads what [`serde_json`] wrote of it, or says what is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let read: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let times = |set: &Set| {
            let all: Vec<f64> = set.leaving.values().copied().chain([set.changed]).collect();
            all
        };
        let mut times = read.services.values().flat_map(times);
        match times.find(|at| !at.is_finite() || *at < 0.0) {
            Some(at) => Err(format!("{at} is no point in time")),
            None => Ok(read),
        }
    }

    /// Gives the services of a file that discover their backends those that are known. What nothing is known of keeps
    /// what the file says.
    #[must_use]
    pub fn in_config(&self, mut config: Config) -> Config {
        for at in 0..config.services.len() {
            let service = &config.services[at];
            let Some(set) = self.of(service) else { continue };
            let discover = service.discover.as_ref();
            let most = discover.map_or(0, |discover| discover.max_backends as usize);
            let addresses: Vec<SocketAddr> = set
                .backends
                .iter()
                .chain(set.leaving.keys())
                .copied()
                .filter(|&address| config.takes_backend(service, address))
                .take(most)
                .collect();
            config = config.with_backends(at, &addresses);
        }
        config
    }

    /// What is known of what this service asks for.
    fn of(&self, service: &Service) -> Option<&Set> {
        let source = service.discover.as_ref()?.source.to_string();
        self.services.get(&service.name).filter(|set| set.source == source)
    }

    /// When the set became what it is, in seconds since the Unix epoch; None where nothing was ever learned.
    pub fn changed(&self, service: &Service) -> Option<f64> {
        self.of(service).map(|set| set.changed)
    }

    /// Since when a backend is no longer told of; None where it is.
    pub fn leaving(&self, service: &Service, backend: SocketAddr) -> Option<f64> {
        self.of(service)?.leaving.get(&backend).copied()
    }

    /// Whether anybody leaves this service.
    pub fn has_leaving(&self, service: &Service) -> bool {
        self.of(service).is_some_and(|set| !set.leaving.is_empty())
    }

    /// Takes an answer about one of `config`'s services. `now` in seconds since the Unix epoch.
    pub fn answer(
        &mut self,
        config: &Config,
        service: &Service,
        answer: &Answer,
        now: f64,
    ) -> Verdict {
        let Some(discover) = &service.discover else { return Verdict::nothing() };
        let takes = |address: &&SocketAddr| config.takes_backend(service, **address);
        let most = discover.max_backends as usize;
        let all = answer.wanted.union(&answer.leaving);
        let unusable: BTreeSet<SocketAddr> = all.filter(|at| !takes(at)).copied().collect();
        let usable: Vec<SocketAddr> = answer.wanted.iter().filter(takes).copied().collect();
        // In order of their addresses, so that all nodes leave the same ones out.
        let wanted: BTreeSet<SocketAddr> = usable.iter().take(most).copied().collect();
        let too_many = usable.len() - wanted.len();
        let mut verdict = Verdict { unusable, too_many, ..Verdict::nothing() };
        if wanted.is_empty() {
            verdict.empty = true;
            return verdict;
        }
        let known = self.of(service);
        let before = service.backends.iter().map(|backend| backend.address);
        let mut leaving: BTreeMap<SocketAddr, f64> = before
            .chain(answer.leaving.iter().filter(takes).copied())
            .filter(|address| !wanted.contains(address))
            .map(|address| {
                let since = known.and_then(|set| set.leaving.get(&address)).copied();
                (address, since.unwrap_or(now))
            })
            .collect();
        keep_latest(&mut leaving, most - wanted.len());
        if known.is_some_and(|set| set.backends == wanted && set.leaving == leaving) {
            return verdict;
        }
        verdict.changed = true;
        let source = discover.source.to_string();
        let set = Set { source, backends: wanted, leaving, changed: now };
        self.services.insert(service.name.clone(), set);
        verdict
    }

    /// Lets those go whose time to leave is over, or who have nothing left to keep. Whether there were any.
    pub fn expire(
        &mut self,
        service: &Service,
        now: f64,
        has_nothing: impl Fn(SocketAddr) -> bool,
    ) -> bool {
        let Some(discover) = &service.discover else { return false };
        if !self.has_leaving(service) {
            return false;
        }
        let Some(set) = self.services.get_mut(&service.name) else { return false };
        let before = set.leaving.len();
        set.leaving.retain(|&address, since| {
            // A clock that was set back keeps nobody for longer than a whole time.
            *since = since.min(now);
            !is_over(discover, *since, now) && !has_nothing(address)
        });
        let gone = set.leaving.len() < before;
        if gone {
            set.changed = now;
        }
        gone
    }

    /// Forgets services that are no more, or that ask for something else. Whether there were any.
    pub fn keep_only(&mut self, config: &Config) -> bool {
        let before = self.services.len();
        let wanted: BTreeMap<&str, String> = config
            .services
            .iter()
            .filter_map(|service| {
                Some((&*service.name, service.discover.as_ref()?.source.to_string()))
            })
            .collect();
        self.services.retain(|name, set| wanted.get(name.as_str()) == Some(&set.source));
        self.services.len() < before
    }
}

fn is_over(discover: &Discover, since: f64, now: f64) -> bool {
    now - since >= discover.linger.as_secs_f64()
}

/// Of more than there is room for, those go that leave for the longest time.
fn keep_latest(leaving: &mut BTreeMap<SocketAddr, f64>, most: usize) {
    while leaving.len() > most {
        let oldest = leaving.iter().min_by(|one, other| one.1.total_cmp(other.1));
        let Some((&oldest, _)) = oldest else { return };
        leaving.remove(&oldest);
    }
}

impl Verdict {
    const fn nothing() -> Self {
        Self { changed: false, empty: false, unusable: BTreeSet::new(), too_many: 0 }
    }
}
