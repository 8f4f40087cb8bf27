//! Another configuration while the agent runs: the difference is worked out, and then all of it is done or nothing.

mod beside;

use std::collections::{HashMap, HashSet};
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use tracing::{info, warn};

use super::core::{Agent, Events, Health};
use super::doors::Scraped;
use super::election::Moved;
use super::error::AgentError;
use super::replicas::Replicas;
use super::standings::{BackendStanding, ServiceStanding};
use super::{read_config, this_node};
use crate::config::{Change, Config};
use crate::control::api;
use crate::control::server::Refusal;
use crate::health;
use crate::lists;
use crate::netlink::Monitor;
use crate::plan::{Lists, Tables};
use crate::standing::Manner;

/// How often it was tried, and when it was last done, at the start of the agent at first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reloads {
    pub(super) applied: u64,
    pub(super) refused: u64,
    pub(super) last: SystemTime,
}

/// Everything that another configuration replaces.
struct Replaced {
    config: Arc<Config>,
    tables: Tables,
    lists: Lists,
    standings: Vec<ServiceStanding>,
}

/// What may not be to be had, and stands ready beside what is in use.
struct Prepared {
    /// Where metrics are asked for from now on; none where that does not change.
    metrics: Option<Option<Scraped>>,
    replicas: Option<Replicas>,
}

impl Agent {
    /// Reads the configuration anew and does what is different in it, or only says what that is. Where any of it
    /// cannot be done nothing is.
    pub(super) async fn reload(
        &mut self,
        dry_run: bool,
        events: &mut Events,
    ) -> Result<api::Reload, Refusal> {
        const ABOUT: &str = "configuration";
        let outcome = self.try_reload(dry_run, events).await;
        if dry_run {
            return outcome;
        }
        match &outcome {
            Ok(_) => {
                self.reloads.applied += 1;
                self.reloads.last = SystemTime::now();
                self.failures.remove(ABOUT);
            }
            Err(refusal) => {
                self.reloads.refused += 1;
                warn!("not reloaded: {}", refusal.sentence);
                let sentence = format!("the last reload was refused: {}", refusal.sentence);
                self.failures.insert(ABOUT.to_owned(), sentence);
            }
        }
        outcome
    }

    async fn try_reload(
        &mut self,
        dry_run: bool,
        events: &mut Events,
    ) -> Result<api::Reload, Refusal> {
        let refused = |error: AgentError| Refusal { callers: true, sentence: error.to_string() };
        if self.upgrading {
            // It has read the file.
            let sentence = "another agent is about to follow this one: wait for its end".to_owned();
            return Err(Refusal { callers: true, sentence });
        }
        let config = read_config(&self.options).map_err(refused)?;
        let changes = self.possible_changes(&config)?;
        let tables = Tables::build_after(&config, &self.tables).map_err(|e| refused(e.into()))?;
        let lists = lists::read(&config).map_err(|error| refused(error.into()))?;
        let prepared = self.prepare(&config).map_err(refused)?;
        let answer = api::Reload {
            applied: !dry_run,
            changes: changes.into_iter().map(|change| change.what).collect(),
        };
        if dry_run {
            return Ok(answer);
        }
        let standings = self.carried_standings(&config);
        let config = Arc::new(config);
        let both = with_former_addresses(&self.config, &config);
        let former = self.exchange(Replaced { config: both, tables, lists, standings });
        let known = self.inherit_health();
        let moved = match self.take_up(&former.config, &config, &mut events.monitor).await {
            Ok(moved) => moved,
            Err(sentence) => {
                self.health.retain(|target, _| !known.contains(target));
                self.exchange(former);
                self.replan();
                return Err(Refusal { callers: true, sentence });
            }
        };
        // From here on nothing fails any more.
        self.config = config;
        self.settle_addresses(&former.config, moved, &mut events.monitor).await;
        self.take_over(prepared).await;
        self.follow_tracks(&former.config, events);
        self.follow_hooks(&former.config).await;
        self.set_targets(&events.checker);
        self.drop_what_went(&former.config);
        for change in &answer.changes {
            info!("reloaded: {change}");
        }
        if answer.changes.is_empty() {
            info!("reloaded: the configuration means what it meant before");
        }
        Ok(answer)
    }

    /// Opens what there may be no way to have.
    fn prepare(&self, config: &Config) -> Result<Prepared, AgentError> {
        let metrics = (config.metrics.listen != self.doors.metrics())
            .then(|| config.metrics.listen.map(Scraped::open).transpose());
        Ok(Prepared {
            metrics: metrics.transpose()?,
            replicas: Replicas::after(&self.config, config, &self.node)?,
        })
    }

    /// What is different; refused where some of it needs a restart, or this node is another in it.
    fn possible_changes(&self, config: &Config) -> Result<Vec<Change>, Refusal> {
        let refused = |sentence| Refusal { callers: true, sentence };
        let node = this_node(&self.options, config, &self.network);
        let node = node.map_err(|error| refused(error.to_string()))?;
        if node != self.node {
            return Err(refused(format!(
                "this node is {node} there and {} here: restart the agent",
                self.node
            )));
        }
        let changes = self.config.changes_to(config);
        match why_not(&changes) {
            None => Ok(changes),
            Some(why) => Err(refused(why)),
        }
    }

    fn exchange(&mut self, new: Replaced) -> Replaced {
        Replaced {
            config: mem::replace(&mut self.config, new.config),
            tables: mem::replace(&mut self.tables, new.tables),
            lists: mem::replace(&mut self.lists, new.lists),
            standings: mem::replace(&mut self.standings, new.standings),
        }
    }

    /// Services and backends stand as they did, wherever they are in the other file.
    fn carried_standings(&self, new: &Config) -> Vec<ServiceStanding> {
        let now = SystemTime::now();
        let known = self.config.services.iter().zip(&self.standings);
        let known: HashMap<&str, _> =
            known.map(|(service, of)| (service.name.as_str(), (service, of))).collect();
        let carried = new.services.iter().map(|service| {
            let Some((old, of)) = known.get(service.name.as_str()) else {
                let backends = vec![BackendStanding::new(now); service.backends.len()];
                return ServiceStanding { manner: Manner::default(), backends };
            };
            let backends = old.backends.iter().map(|backend| backend.address);
            let of_backend: HashMap<SocketAddr, _> = backends.zip(&of.backends).collect();
            let backends = service.backends.iter().map(|backend| {
                let known = of_backend.get(&backend.address);
                known.map_or_else(|| BackendStanding::new(now), |known| **known)
            });
            ServiceStanding { manner: of.manner, backends: backends.collect() }
        });
        carried.collect()
    }

    /// A backend that is checked in another way from now on is as well as it was, until the new checks have found
    /// out for themselves. Returns those of whom only that is known.
    fn inherit_health(&mut self) -> HashSet<health::Target> {
        let mut by_address: HashMap<SocketAddr, Health> = HashMap::new();
        for (target, health) in &self.health {
            // Where checks disagree it counts as healthy, as for the checker.
            let known = by_address.entry(target.address).or_insert_with(|| health.clone());
            if health.state == health::State::Healthy {
                known.clone_from(health);
            }
        }
        let config = Arc::clone(&self.config);
        let mut inherited = HashSet::new();
        for service in config.services.iter().filter(|service| service.health.enabled) {
            for backend in &service.backends {
                let target = Self::target(service, backend.address);
                if let Some(health) = by_address.get(&backend.address)
                    && !self.health.contains_key(&target)
                {
                    self.health.insert(target.clone(), health.clone());
                    inherited.insert(target);
                }
            }
        }
        inherited
    }

    /// Makes the data path and the election what the present configuration says. On an error what came with it is
    /// gone again, but for the maps.
    async fn take_up(
        &mut self,
        former: &Config,
        wanted: &Config,
        monitor: &mut Monitor,
    ) -> Result<Moved, String> {
        self.wait_for_neighbours(monitor).await;
        let mut attached = Vec::new();
        let outcome = self.attach_wanted(former, &mut attached).and_then(|()| {
            self.replan();
            self.failures.get("maps").map_or(Ok(()), |why| Err(why.clone()))
        });
        let outcome = outcome.and_then(|()| self.grant(former, wanted));
        let outcome = outcome.and_then(|()| self.change_election(former));
        if outcome.is_err() {
            if let Err(error) = self.grant(wanted, former) {
                warn!(error, "the control socket");
            }
            for name in attached {
                if let Err(error) = self.dataplane.detach(&name) {
                    warn!(%error, "detaching");
                }
            }
        }
        outcome
    }

    fn attach_wanted(&mut self, former: &Config, attached: &mut Vec<String>) -> Result<(), String> {
        let config = Arc::clone(&self.config);
        for name in self.attachments.wanted(&config.interfaces) {
            if self.dataplane.attached().iter().any(|known| known.name == name) {
                continue;
            }
            match self.attach(&name) {
                Ok(_) => attached.push(name),
                Err(error) if former.interfaces.contains(&name) => {
                    // As before: it is attached when it comes.
                    warn!(%error, "an interface");
                }
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }

    /// Interfaces, hooks, and what was known or said of backends that are no more.
    fn drop_what_went(&mut self, former: &Config) {
        let config = Arc::clone(&self.config);
        let wanted = self.attachments.wanted(&config.interfaces);
        for name in former.interfaces.iter().filter(|name| !wanted.contains(name)) {
            // One that is not there any more has gone already.
            if self.dataplane.attached().iter().any(|known| known.name == *name)
                && let Err(error) = self.dataplane.detach(name)
            {
                warn!(%error, "detaching");
            }
        }
        if former.interfaces != config.interfaces {
            self.replan();
        }
        if former.host.enabled != config.host.enabled {
            self.dataplane.set_hooks(config.host.enabled, config.host.cgroup.as_deref());
        }
        let services = config.services.iter();
        let targets: HashSet<health::Target> = services
            .flat_map(|service| service.backends.iter().map(|b| Self::target(service, b.address)))
            .collect();
        self.health.retain(|target, _| targets.contains(target));
        self.forget_strangers();
        self.passive.keep_only(&config);
        self.pass_time();
        self.recount = true;
    }
}

/// The other configuration, with the VIPs of the one before: until those are given up the maps hold them.
fn with_former_addresses(former: &Config, config: &Arc<Config>) -> Arc<Config> {
    let has = |vip: &IpAddr| config.virtual_addresses.contains(vip);
    let gone: Vec<IpAddr> =
        former.virtual_addresses.iter().copied().filter(|vip| !has(vip)).collect();
    if gone.is_empty() {
        return Arc::clone(config);
    }
    let virtual_addresses = config.virtual_addresses.iter().copied().chain(gone).collect();
    Arc::new(Config { virtual_addresses, ..Config::clone(config) })
}

/// Why a running agent cannot make these changes, and what can; none where it can.
fn why_not(changes: &[Change]) -> Option<String> {
    let fixed = changes.iter().filter_map(|change| Some((&change.what, change.fixed?)));
    let fixed: Vec<_> = fixed.collect();
    if fixed.is_empty() {
        return None;
    }
    let named: Vec<String> =
        fixed.iter().map(|(what, fixed)| format!("{what} ({})", fixed.why)).collect();
    let remedy = if fixed.iter().all(|(_, fixed)| fixed.upgrade) {
        "lbctl upgrade takes it over without a gap"
    } else {
        "restart the agent"
    };
    Some(format!(
        "nothing was changed, since a running agent cannot change this: {}; {remedy}",
        named.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Fixed;

    #[test]
    fn an_upgrade_is_named_where_it_is_enough() {
        let change = |what: &str, upgrade| Change {
            what: what.to_owned(),
            fixed: Some(Fixed { why: "so it is", upgrade }),
        };
        let live = Change { what: "a port".to_owned(), fixed: None };
        assert_eq!(why_not(std::slice::from_ref(&live)), None);
        let why = why_not(&[live, change("[lease] is different", true)]).unwrap();
        assert!(why.contains("[lease] is different (so it is); lbctl upgrade"), "{why}");
        assert!(!why.contains("a port"), "{why}");
        let why = why_not(&[change("[lease]", true), change("[limits]", false)]).unwrap();
        assert!(why.ends_with("[limits] (so it is); restart the agent"), "{why}");
    }

    #[test]
    fn former_addresses_stay_until_they_are_given_up() {
        let parse = |vip: &str| {
            let file = include_str!("../../tests/fixtures/config/taken/ten-lines.toml");
            let file = file.replace("192.168.139.150", vip);
            Arc::new(Config::parse(&file).unwrap_or_else(|e| panic!("{}", e.report(""))))
        };
        let (one, other) = (parse("192.168.139.150"), parse("192.168.139.151"));
        let both = with_former_addresses(&one, &other);
        assert_eq!(
            both.virtual_addresses,
            [151, 150].map(|last| IpAddr::from([192, 168, 139, last]))
        );
        assert_eq!(both.services, other.services);
        assert!(Arc::ptr_eq(&with_former_addresses(&one, &one), &one));
    }
}
