//! Backends that others tell of: what the loop has to do with it. They come and go as by a reload of the file.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::core::Agent;
use super::error::AgentError;
use super::kept::Kept;
use super::report::unix;
use crate::config::{Config, Service, Source};
use crate::control::api;
use crate::discovery::{Answer, Condition, Driver, Known, Verdict, unbuilt};
use crate::health::Checker;
use crate::netlink::Monitor;

/// Between two changes: a table is built for each, and a source may change its mind at any rate.
const APART: Duration = Duration::from_millis(250);

/// A backend that has just left may have connections that were not counted yet.
const COUNTED_AFTER: Duration = Duration::from_secs(5);

/// While another agent may be about to follow.
const LATER: Duration = Duration::from_secs(1);

/// What is told of a change that could not be made.
const UNDONE: &str = "discovered backends";

/// Named at most where an answer has what cannot be used.
const SHOWN: usize = 5;

pub(super) struct Discovering {
    known: Kept<Known>,
    driver: Driver,
    /// What is wrong with the last answer of a service, though there was one.
    flaws: BTreeMap<String, String>,
    /// Nothing is taken before this.
    rests_until: Instant,
}

/// What was learned before: whoever starts begins with it.
fn kept(config: &Config) -> Kept<Known> {
    let path = config.paths.state.join("discovered.json");
    Kept::read(path, "what was discovered of backends", Known::parse)
}

/// The configuration with the backends that were discovered last.
pub(super) fn recall(config: Config) -> Config {
    if config.services.iter().all(|service| service.discover.is_none()) {
        return config;
    }
    kept(&config).value().in_config(config)
}

impl Discovering {
    pub(super) fn new(config: &Config) -> Self {
        let (driver, flaws) = (Driver::default(), BTreeMap::new());
        Self { known: kept(config), driver, flaws, rests_until: Instant::now() }
    }

    /// Returns when an answer may be taken.
    pub(super) fn changed(&self) -> impl Future<Output = ()> + use<> {
        let board = Arc::clone(self.driver.board());
        let rests_until = self.rests_until;
        async move {
            sleep_until(rests_until).await;
            board.changed().await;
        }
    }

    /// Has time alone looked at, where somebody leaves.
    pub(super) fn tick(&self, config: &Config) {
        if config.services.iter().any(|service| self.has_leaving(service)) {
            self.driver.board().wake();
        }
    }

    /// The configuration with what is known.
    pub(super) fn in_config(&self, config: Config) -> Config {
        self.known.value().in_config(config)
    }

    /// Since when a backend is no longer told of.
    pub(super) fn leaving(&self, service: &Service, backend: SocketAddr) -> Option<f64> {
        self.known.value().leaving(service, backend)
    }

    pub(super) fn has_leaving(&self, service: &Service) -> bool {
        self.known.value().has_leaving(service)
    }

    /// Asks for what this configuration wants to know.
    pub(super) fn follow(&mut self, config: &Config) {
        self.driver.follow(config);
        let known = self.known.value();
        if known.clone().keep_only(config)
            && let Err(error) = self.known.change(|known| known.keep_only(config))
        {
            warn!(%error, "what was discovered of former services cannot be forgotten");
        }
        self.flaws.retain(|name, _| {
            config.services.iter().any(|s| s.name == *name && s.discover.is_some())
        });
    }

    /// What of a service's backends was learned from others, if it is to be.
    fn report(&self, service: &Service) -> Option<api::Discovery> {
        let discover = service.discover.as_ref()?;
        let Condition { heard, failing, answers, failures } =
            self.driver.board().condition(&service.name);
        let known = self.known.value().changed(service);
        let failing = failing.map(|(since, why)| (unix(since), why));
        Some(api::Discovery {
            source: discover.source.kind().to_owned(),
            about: discover.source.to_string(),
            // Before this agent has heard anything, what it knows is as old as its file.
            heard: heard.map(unix).or(known),
            age_seconds: heard.map_or_else(
                || known.map(|known| (unix(SystemTime::now()) - known).max(0.0)),
                |heard| Some(heard.elapsed().unwrap_or_default().as_secs_f64()),
            ),
            changed: known,
            failing_since: failing.as_ref().map(|(since, _)| *since),
            failure: failing.map(|(_, why)| why),
            flaw: self.flaws.get(&service.name).cloned(),
            answers,
            failures,
        })
    }
}

impl Agent {
    pub(super) fn discovery_of(&self, service: &Service) -> Option<api::Discovery> {
        self.discovering.report(service)
    }

    /// Where a service's present backends come from.
    pub(super) fn source_of(&self, service: &Service) -> api::BackendSource {
        match &service.discover {
            Some(discover) if self.discovering.known.value().changed(service).is_some() => {
                match &discover.source {
                    Source::Dns(_) => api::BackendSource::Dns,
                    Source::Kubernetes(_) => api::BackendSource::Kubernetes,
                }
            }
            _ => api::BackendSource::File,
        }
    }

    pub(super) fn leaving_since(&self, service: &Service, backend: SocketAddr) -> Option<f64> {
        self.discovering.leaving(service, backend)
    }

    /// Takes what was heard, and lets go who has left; both as a reload would.
    pub(super) async fn note_discovered(&mut self, monitor: &mut Monitor, checker: &Checker) {
        if self.upgrading {
            // Another agent has begun with what is known, and hears of this itself. Should it not get there, this one
            // takes it later.
            self.discovering.rests_until = Instant::now() + LATER;
            self.discovering.driver.board().wake();
            return;
        }
        self.discovering.rests_until = Instant::now() + APART;
        let now = unix(SystemTime::now());
        // What could not be done is tried again.
        let mut changed = self.failures.contains_key(UNDONE);
        for (name, answer) in self.discovering.driver.board().take() {
            changed |= self.take_answer(&name, &answer, now);
        }
        changed |= self.let_go(now);
        if !changed {
            return;
        }
        if let Err(error) = self.discovering.known.change(|_| ()) {
            let sentence = format!("what is discovered will not outlive a restart: {error}");
            self.failures.insert("discovered".to_owned(), sentence);
        } else {
            self.failures.remove("discovered");
        }
        let config = self.discovering.in_config(Config::clone(&self.config));
        if let Err(error) = self.adopt_backends(config, monitor, checker).await {
            warn!(%error, "discovered backends");
            self.failures.insert(UNDONE.to_owned(), format!("discovered backends: {error}"));
        } else {
            self.failures.remove(UNDONE);
        }
    }

    fn take_answer(&mut self, name: &str, answer: &Answer, now: f64) -> bool {
        let config = Arc::clone(&self.config);
        let Some(service) = config.services.iter().find(|service| service.name == name) else {
            return false;
        };
        let mut verdict = None;
        // Written once, below, with all others.
        self.discovering.known.alter(|known| {
            verdict = Some(known.answer(&config, service, answer, now));
        });
        let Some(verdict) = verdict else { return false };
        self.note_flaw(service, &verdict);
        verdict.changed
    }

    fn note_flaw(&mut self, service: &Service, verdict: &Verdict) {
        let flaw = flaw(service, verdict);
        let flaws = &mut self.discovering.flaws;
        let before = match &flaw {
            Some(flaw) => flaws.insert(service.name.clone(), flaw.clone()),
            None => flaws.remove(&service.name),
        };
        if let Some(flaw) = flaw
            && before.as_ref() != Some(&flaw)
        {
            warn!(service = service.name, "{flaw}");
        }
    }

    /// Those that leave and have no connection any more, as far as this node counts them, or whose time is over.
    fn let_go(&mut self, now: f64) -> bool {
        let config = Arc::clone(&self.config);
        let mut gone = false;
        for service in config.services.iter().filter(|service| service.discover.is_some()) {
            if !self.discovering.has_leaving(service) {
                continue;
            }
            let known = self.discovering.known.value();
            let empty: Vec<SocketAddr> = service
                .backends
                .iter()
                .map(|backend| backend.address)
                .filter(|&address| {
                    let since = known.leaving(service, address);
                    since.is_some_and(|since| now - since >= COUNTED_AFTER.as_secs_f64())
                        && self.none_left(service, address)
                })
                .collect();
            self.discovering.known.alter(|known| {
                gone |= known.expire(service, now, |address| empty.contains(&address));
            });
        }
        gone
    }

    /// Whether a backend was counted, at each of its service's addresses, and has nothing.
    fn none_left(&self, service: &Service, backend: SocketAddr) -> bool {
        service.addresses.iter().all(|&address| {
            let place = (crate::plan::key(address, service), backend);
            self.connections_left.get(&place) == Some(&0)
        })
    }

    /// What a person should know of what others tell, or do not.
    pub(super) fn discovery_warnings(&self) -> Vec<String> {
        let services = self.config.services.iter();
        let warnings = services.filter_map(|service| {
            let report = self.discovering.report(service)?;
            let name = &service.name;
            let kept = service.backends.len();
            let since = if report.changed.is_some() { "the last known" } else { "the file's" };
            let discover = service.discover.as_ref()?;
            Some(match (unbuilt(&discover.source), report.failure, report.flaw) {
                (Some(why), _, _) => format!("service {name}: {why}"),
                (None, Some(why), _) => format!(
                    "service {name}: {} is not known anew, {since} {kept} backends are kept: {why}",
                    report.about
                ),
                (None, None, Some(flaw)) => format!("service {name}: {flaw}"),
                (None, None, None) => return None,
            })
        });
        warnings.collect()
    }
}

/// What is wrong with an answer, for people.
fn flaw(service: &Service, verdict: &Verdict) -> Option<String> {
    let source = service.discover.as_ref().map(|discover| &discover.source)?;
    let mut parts = Vec::new();
    if verdict.empty {
        parts.push(
            "it names no backend that can be used: those that were known are kept".to_owned(),
        );
    }
    if !verdict.unusable.is_empty() {
        let shown: Vec<String> =
            verdict.unusable.iter().take(SHOWN).map(ToString::to_string).collect();
        let more = if verdict.unusable.len() > SHOWN { ", .." } else { "" };
        parts.push(format!("cannot be backends here: {}{more}", shown.join(", ")));
    }
    if verdict.too_many > 0 {
        parts.push(format!("{} more than `max_backends` are left out", verdict.too_many));
    }
    (!parts.is_empty()).then(|| format!("{source}: {}", parts.join("; ")))
}

impl Agent {
    /// Begins to ask.
    pub(super) fn begin_discovering(&mut self) {
        let config = Arc::clone(&self.config);
        for service in config.services.iter().filter(|service| service.discover.is_some()) {
            let (name, backends) = (&service.name, service.backends.len());
            match self.discovering.known.value().changed(service) {
                Some(_) => info!(service = name, backends, "begins with the last known backends"),
                None => info!(service = name, backends, "begins with the file's backends"),
            }
        }
        self.discovering.follow(&config);
    }

    /// As [`reload`](Self::reload) does it, with other backends alone.
    async fn adopt_backends(
        &mut self,
        config: Config,
        monitor: &mut Monitor,
        checker: &Checker,
    ) -> Result<(), String> {
        let changes = self.config.changes_to(&config);
        let said = |error: AgentError| error.to_string();
        let tables = crate::plan::Tables::build_after(&config, &self.tables);
        let tables = tables.map_err(|error| said(error.into()))?;
        let lists = self.lists.clone();
        self.put_in_place(config, tables, lists, monitor, checker).await?;
        for change in changes {
            info!("discovered: {}", change.what);
        }
        Ok(())
    }
}
