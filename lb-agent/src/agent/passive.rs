//! What clients' connections say of the backends: from the programs' bell and counters to what is known of each.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lb_common::service::ServiceKey;
use tracing::{info, warn};

use super::core::Agent;
use crate::config::{Check, Config, Service};
use crate::health::passive::{Failure, Rules, Witness};
use crate::health::{Checker, Found, Looks};

/// For so long after it rang for a backend its counters are read again. Of what fails in the 20 ms after that the bell
/// is silent, and the programs' clock has steps of up to 10 ms at both ends.
const SILENT: Duration = Duration::from_millis(40);
/// So soon for the first time, and after twice as long each time: at 5, 10, 20 and 40 ms.
const SOON: Duration = Duration::from_millis(5);
/// Of one that is out they are read after this: nothing is urgent then.
const WHILE_OUT: Duration = Duration::from_secs(1);

/// A backend of a service, by name.
pub(super) type Subject = (String, SocketAddr);

/// What is known of backends by their connections.
#[derive(Debug)]
pub(super) struct Passive {
    witnesses: HashMap<Subject, Witness>,
    /// The counts of each index of the map that were heard: refused, unanswered. Mostly there are none.
    heard: HashMap<u32, [u64; 2]>,
    /// Where the services' backends are whose counts were read when they came there.
    blocks: HashMap<ServiceKey, Range<u32>>,
    /// Indices that the bell rang for, and that are to be read again.
    again: BTreeMap<u32, Again>,
    looks: Looks<Subject>,
}

#[derive(Clone, Copy, Debug)]
struct Again {
    rang: Instant,
    at: Instant,
}

impl Again {
    /// After it was read at its time: when it is to be read next, if it is.
    fn next(self) -> Option<Self> {
        let since = self.at - self.rang;
        (since < SILENT).then(|| Self { at: self.at + since, ..self })
    }
}

impl Passive {
    pub(super) fn new(looks: Looks<Subject>) -> Self {
        let (witnesses, heard) = (HashMap::new(), HashMap::new());
        let (blocks, again) = (HashMap::new(), BTreeMap::new());
        Self { witnesses, heard, blocks, again, looks }
    }

    /// Why a backend is out, if it is.
    pub(super) fn reason(&self, service: &str, backend: SocketAddr) -> Option<&str> {
        // Mostly nothing is known of any.
        if self.witnesses.is_empty() {
            return None;
        }
        self.witnesses.get(&(service.to_owned(), backend))?.reason()
    }

    /// When something is to be done next.
    pub(super) fn next(&self) -> Option<Instant> {
        let again = self.again.values().map(|again| again.at);
        again.chain(self.witnesses.values().filter_map(Witness::next)).min()
    }

    /// Forgets what is known of backends that are no more.
    pub(super) fn keep_only(&mut self, config: &Config) {
        self.witnesses.retain(|(name, address), _| {
            let service = config.services.iter().find(|service| service.name == *name);
            service.is_some_and(|service| service.backends.iter().any(|b| b.address == *address))
        });
    }
}

/// Waits for a time that may never come.
pub(super) async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

pub(super) fn rules(service: &Service) -> Rules {
    let health = &service.health;
    Rules {
        max_fails: service.passive.max_fails,
        fail_timeout: service.passive.fail_timeout,
        checks: health.enabled.then_some((health.rise, health.interval)),
    }
}

impl Agent {
    /// What the counters hold for backends that have just come to their places is not theirs.
    pub(super) fn begin_to_hear(&mut self) {
        let mut blocks = HashMap::with_capacity(self.services.len());
        for service in &self.services {
            let Some(block) = self.dataplane.indices(&service.key) else { continue };
            if self.passive.blocks.get(&service.key) != Some(&block) {
                let Ok(failures) = self.dataplane.failures_at(block.clone()) else { continue };
                let counts = failures.iter().map(|it| [it.refused, it.unanswered]);
                for (index, counts) in block.clone().zip(counts) {
                    match counts {
                        [0, 0] => self.passive.heard.remove(&index),
                        counts => self.passive.heard.insert(index, counts),
                    };
                }
            }
            blocks.insert(service.key, block);
        }
        self.passive.blocks = blocks;
    }

    /// The bell rang for the backends at these indices.
    pub(super) fn rung(&mut self, indices: BTreeSet<u32>) {
        let new = indices.into_iter().filter(|index| !self.passive.again.contains_key(index));
        let new: Vec<u32> = new.collect();
        self.count(&new, true);
    }

    /// Does what is due by now.
    pub(super) fn pass_time(&mut self) {
        let now = Instant::now();
        let due = self.passive.again.iter().filter(|(_, again)| again.at <= now);
        let due: Vec<u32> = due.map(|(index, _)| *index).collect();
        for index in &due {
            if let Some(next) = self.passive.again.remove(index).and_then(Again::next) {
                self.passive.again.insert(*index, next);
            }
        }
        self.count(&due, false);
        let config = Arc::clone(&self.config);
        self.judge(|witnesses| {
            for (subject, witness) in witnesses {
                if let Some(service) = config.services.iter().find(|s| s.name == subject.0) {
                    witness.pass(now, &rules(service));
                }
            }
        });
    }

    /// A check that was made for this found something.
    pub(super) fn looked(&mut self, subject: &Subject, found: &Found) {
        let config = Arc::clone(&self.config);
        let Some(service) = config.services.iter().find(|s| s.name == subject.0) else { return };
        let found = found.as_ref().map(|found| found.as_ref().copied().map_err(String::as_str));
        self.judge(|witnesses| {
            if let Some(witness) = witnesses.get_mut(subject) {
                witness.looked(found, Instant::now(), &rules(service));
            }
        });
    }

    /// Begins the checks that are wanted.
    pub(super) fn begin_looks(&mut self, checker: &Checker) {
        let now = Instant::now();
        let Passive { witnesses, looks, .. } = &mut self.passive;
        for (subject, witness) in witnesses.iter_mut().filter(|(_, w)| w.next().is_some()) {
            let service = self.config.services.iter().find(|s| s.name == subject.0);
            let Some(Service { health, .. }) = service else { continue };
            if witness.takes_look(now) {
                // One that is not to be checked is connected to, no more.
                let check =
                    if health.enabled { Arc::clone(&health.check) } else { Arc::new(Check::Tcp) };
                checker.look(subject.1, check, health.timeout, looks, subject.clone());
            }
        }
    }

    /// Reads the counters at these indices; `again` has them read again.
    fn count(&mut self, indices: &[u32], again: bool) {
        let now = Instant::now();
        let config = Arc::clone(&self.config);
        let mut news = Vec::new();
        for &index in indices {
            let Some((service, backend)) = self.backend_at(index) else { continue };
            let Ok(read) = self.dataplane.failures_at(index..index + 1) else { continue };
            let Some(counts) = read.first().map(|it| [it.refused, it.unanswered]) else { continue };
            let heard = self.passive.heard.insert(index, counts).unwrap_or_default();
            let service = &config.services[service];
            news.push((
                index,
                service,
                backend,
                [0, 1].map(|at| counts[at].wrapping_sub(heard[at])),
            ));
        }
        self.judge(|witnesses| {
            for (_, service, backend, [refused, unanswered]) in &news {
                let subject = (service.name.clone(), *backend);
                let (witness, rules) = (witnesses.entry(subject).or_default(), rules(service));
                witness.failed(Failure::Refused, *refused, now, &rules);
                witness.failed(Failure::Unanswered, *unanswered, now, &rules);
            }
        });
        for (index, service, backend, _) in news.iter().filter(|_| again) {
            let witness = self.passive.witnesses.get(&(service.name.clone(), *backend));
            let out = witness.is_some_and(|witness| witness.reason().is_some());
            let pause = if out { WHILE_OUT.min(service.passive.fail_timeout) } else { SOON };
            self.passive.again.insert(*index, Again { rang: now, at: now + pause });
        }
    }

    /// The configured service and the address of the backend at this index of the map.
    fn backend_at(&self, index: u32) -> Option<(usize, SocketAddr)> {
        self.services.iter().find_map(|service| {
            let block = self.passive.blocks.get(&service.key)?;
            let place = block.contains(&index).then(|| (index - block.start) as usize)?;
            Some((service.configured, service.backends.get(place)?.address))
        })
    }

    /// Changes what is known, and follows where somebody is out or back by that.
    fn judge(&mut self, change: impl FnOnce(&mut HashMap<Subject, Witness>)) {
        let out = |witnesses: &HashMap<Subject, Witness>| -> BTreeMap<Subject, String> {
            let out = witnesses.iter();
            out.filter_map(|(who, it)| Some((who.clone(), it.reason()?.to_owned()))).collect()
        };
        let before = out(&self.passive.witnesses);
        change(&mut self.passive.witnesses);
        let after = out(&self.passive.witnesses);
        if before == after {
            return;
        }
        for ((service, backend), reason) in &after {
            if !before.contains_key(&(service.clone(), *backend)) {
                warn!(event = "backend-out", service, %backend, reason, "backend is out by its clients' connections");
            }
        }
        for (service, backend) in before.keys().filter(|subject| !after.contains_key(*subject)) {
            info!(event = "backend-back", service, %backend, "backend is tried again");
        }
        self.replan();
    }
}
