//! What the API asks of the rebalancer, and what it says.

use std::collections::HashSet;
use std::net::SocketAddr;

use lb_common::backend::Delivery;
use tokio::sync::oneshot;
use tracing::warn;

use super::super::core::Agent;
use super::super::report::unix;
use super::{Course, End, Job, Rebalancer};
use crate::config::{Config, Protocol};
use crate::control::api;
use crate::control::server::{Rebalancing, Refusal};
use crate::metrics::Rebalanced;
use crate::rebalance::{Look, Obstacle};

/// What of a service has to be known beside the sockets.
struct About {
    name: String,
    backends: HashSet<SocketAddr>,
    /// Those by NAT, by index.
    translated: HashSet<u32>,
}

impl Agent {
    /// Answers beside the loop where sockets must be looked at.
    pub(in super::super) fn rebalance_asked(
        &self,
        service: String,
        asked: Rebalancing,
        reply: oneshot::Sender<Result<api::Rebalance, Refusal>>,
    ) {
        let about = match self.about(service) {
            Ok(about) => about,
            Err(sentence) => {
                return drop(reply.send(Err(Refusal { callers: true, sentence })));
            }
        };
        let (rebalancer, config) = (self.rebalancer.clone(), std::sync::Arc::clone(&self.config));
        let name = about.name.clone();
        match asked {
            Rebalancing::Show => drop(reply.send(Ok(rebalancer.told(&config, &name)))),
            Rebalancing::Stop => {
                rebalancer.finish(&name, None, &End::cut("stopped with lbctl"));
                drop(reply.send(Ok(rebalancer.told(&config, &name))));
            }
            Rebalancing::Begin(request) => {
                if self.upgrading {
                    let sentence = "another agent is about to follow this one: ask that".to_owned();
                    return drop(reply.send(Err(Refusal { callers: true, sentence })));
                }
                tokio::spawn(async move {
                    drop(reply.send(rebalancer.asked(&config, about, request).await));
                });
            }
        }
    }

    /// Of each service over TCP.
    pub(in super::super) fn rebalanced(&self) -> Vec<Rebalanced> {
        let services = self.config.services.iter();
        let services = services.filter(|service| service.protocol == Protocol::Tcp);
        let rebalanced = services.map(|service| {
            let (moved, misplaced) = self.rebalancer.figures(&service.name);
            Rebalanced { service: service.name.clone(), moved, misplaced }
        });
        rebalanced.collect()
    }

    fn about(&self, name: String) -> Result<About, String> {
        let configured = self.config.services.iter().position(|service| service.name == name);
        let Some(configured) = configured else {
            return Err(format!("there is no service `{name}` (lbctl services)"));
        };
        if self.config.services[configured].protocol == Protocol::Udp {
            return Err(format!("service `{name}` is over UDP: it has no connections to move"));
        }
        let mut about = About { name, backends: HashSet::new(), translated: HashSet::new() };
        for service in self.services.iter().filter(|service| service.configured == configured) {
            for backend in &service.backends {
                about.backends.insert(backend.address);
                if backend.intended == Delivery::Nat {
                    let index = self.dataplane.backend_index(&service.key, backend.address);
                    about.translated.extend(index);
                }
            }
        }
        Ok(about)
    }
}

impl Rebalancer {
    async fn asked(
        &self,
        config: &Config,
        about: About,
        request: api::RebalanceRequest,
    ) -> Result<api::Rebalance, Refusal> {
        let refused = |sentence| Refusal { callers: true, sentence };
        let name = &about.name;
        let ward = self.lock().services.get(name).and_then(|course| course.ward.clone());
        let obstacle = ward.as_ref().map_or(Some(Obstacle::NotHere), super::Ward::obstacle);
        if !request.dry_run {
            if let Some(obstacle) = obstacle {
                let sentence = obstacle.sentence();
                return Err(refused(format!("service `{name}` is not rebalanced: {sentence}")));
            }
            if self.is_moving(name) {
                let sentence = format!(
                    "connections of service `{name}` are being moved already: wait (--wait), or \
                     stop that first (--stop)"
                );
                return Err(refused(sentence));
            }
        }
        if let Some(ward) = ward {
            let done = if request.dry_run {
                let wards = std::iter::once((name.clone(), ward)).collect();
                self.look_at(wards, |_, _| ()).await.map(drop)
            } else {
                let per_minute = request.per_minute.unwrap_or(ward.terms.per_minute);
                self.begin(name, &ward, Some(per_minute)).await
            };
            done.map_err(|error| {
                let sentence = format!("the connections of `{name}` cannot be looked at: {error}");
                Refusal { callers: false, sentence }
            })?;
        }
        let mut told = self.told(config, name);
        self.count_others(about, &mut told).await;
        Ok(told)
    }

    /// Those that are not moved.
    async fn count_others(&self, about: About, told: &mut api::Rebalance) {
        let flows = std::sync::Arc::clone(&self.flows);
        let counting = tokio::task::spawn_blocking(move || {
            let own = flows.own_sockets(&about.backends)?.len() as u64;
            let translated = match about.translated.is_empty() {
                true => 0,
                false => flows.translated_to(&about.translated)?,
            };
            Ok::<_, crate::dataplane::DataPlaneError>((own, translated))
        });
        match counting.await {
            Ok(Ok((own, translated))) => {
                (told.own, told.translated) = (Some(own), Some(translated));
            }
            Ok(Err(error)) => warn!(%error, "counting connections that are not moved"),
            Err(error) => warn!(%error, "counting connections that are not moved"),
        }
    }

    /// What is known of a service.
    fn told(&self, config: &Config, name: &str) -> api::Rebalance {
        let terms = config.services.iter().find(|service| service.name == name);
        let terms = terms.map(|service| service.rebalance);
        let state = self.lock();
        let idle = Course::default();
        let course = state.services.get(name).unwrap_or(&idle);
        let obstacle = course.ward.as_ref().map_or(Some(Obstacle::NotHere), super::Ward::obstacle);
        let look = course.look.as_ref().map(|(at, look)| told_look(config, unix(*at), look));
        api::Rebalance {
            service: name.to_owned(),
            obstacle: obstacle.map(|obstacle| obstacle.sentence().to_owned()),
            automatic: terms.is_some_and(|terms| terms.automatic),
            per_minute: terms.map_or(0, |terms| terms.per_minute),
            look,
            job: course.job.as_ref().map(told_job),
            moved: course.moved,
            translated: None,
            own: None,
        }
    }
}

fn told_look(config: &Config, at: f64, look: &Look) -> api::RebalanceLook {
    let targets = look.targets.iter().map(|(&address, target)| api::RebalanceTarget {
        address,
        node: config.node_of(address.ip()).map(|node| node.name.clone()),
        misplaced: target.misplaced,
        movable: target.movable,
    });
    api::RebalanceLook {
        at,
        connections: look.connections,
        misplaced: look.misplaced,
        movable: look.movable,
        busy: look.busy,
        young: look.young,
        unsure: look.unsure,
        returns: look.returns,
        targets: targets.collect(),
    }
}

fn told_job(job: &Job) -> api::RebalanceJob {
    let (at, end) = job.ended.as_ref().map(|(at, end)| (*at, end)).unzip();
    api::RebalanceJob {
        number: job.number,
        automatic: job.automatic,
        per_minute: job.per_minute,
        begun: unix(job.begun),
        moved: job.moved,
        left: job.left,
        ended: at.map(unix),
        complete: end.is_some_and(|end| end.complete),
        reason: end.map(|end| end.reason.clone()),
    }
}
