//! Which of the backends that are down are gone: nothing is left of them that a client could wait for.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use lb_common::backend::Delivery;
use lb_common::service::TCP;
use tokio::task::{JoinError, JoinHandle};
use tracing::{debug, info, warn};

use super::core::Agent;
use crate::absence::{Question, is_there};
use crate::config::ResetClients;
use crate::dataplane::{Sweeper, monotonic_ns};
use crate::health::{Silence, State};
use crate::plan::{PlannedBackend, PlannedService};

/// Nodes that are asked at the same time, each by a thread.
const ASKED_AT_ONCE: usize = 32;

/// A backend by NAT that sent something so lately is there, whatever the checks say. The programs note it once a
/// second.
const LATELY: Duration = Duration::from_millis(1300);
/// How often one is listened to, before it is asked again with all the others.
const LOOKS: u32 = 2;

/// What is known of backends from which no check comes back.
#[derive(Debug, Default)]
pub(super) struct Absences {
    /// Those of which the last that was heard of their checks is that nothing comes back.
    unheard: HashSet<SocketAddr>,
    /// Whether there was a sign of life, of each that was asked.
    answers: HashMap<SocketAddr, bool>,
    /// They are to be asked.
    due: bool,
}

/// What came of asking; nothing of those that could not be asked.
pub(super) type Answers = HashMap<SocketAddr, bool>;

impl Absences {
    /// Has them asked once more, if there are any.
    pub(super) fn ask(&mut self) {
        self.due = !self.unheard.is_empty();
    }

    pub(super) fn take_due(&mut self) -> bool {
        std::mem::take(&mut self.due)
    }
}

/// How each of them is asked.
#[derive(Debug, Default)]
struct Wanted {
    nodes: Vec<(SocketAddr, Question)>,
    /// By index in the map of backends.
    translated: HashMap<u32, SocketAddr>,
    /// There is no way to them.
    unreached: Vec<SocketAddr>,
}

impl Agent {
    pub(super) fn note_silence(&mut self, backend: SocketAddr, silence: Silence) {
        match silence {
            Silence::Unreachable => {
                self.absences.unheard.insert(backend);
                self.absences.ask();
            }
            Silence::Silent | Silence::None => {
                self.absences.unheard.remove(&backend);
                self.absences.answers.remove(&backend);
            }
        }
    }

    /// Whether a backend that is down is so in a way that its clients are to be told of.
    pub(super) fn is_gone(&self, configured: usize, backend: SocketAddr) -> bool {
        let service = &self.config.services[configured];
        let Some(health) = self.health.get(&Self::target(service, backend)) else { return false };
        let told = match service.health.reset_clients {
            ResetClients::Never => return false,
            ResetClients::Unreachable => Silence::Unreachable,
            ResetClients::Silent => Silence::Silent,
            ResetClients::Down => Silence::None,
        };
        match health.silence {
            // The fault may be this node's.
            Silence::Unreachable => self.absences.answers.get(&backend) == Some(&false),
            silence => silence <= told,
        }
    }

    /// Begins to ask those of whom no check comes back; nothing where there are none.
    pub(super) fn begin_asking(&mut self, sweeper: &Arc<Sweeper>) -> Option<JoinHandle<Answers>> {
        let wanted = self.unheard();
        let Wanted { nodes, translated, unreached } = wanted;
        if nodes.is_empty() && translated.is_empty() && unreached.is_empty() {
            self.absences = Absences::default();
            return None;
        }
        let sweeper = Arc::clone(sweeper);
        Some(tokio::spawn(async move {
            let mut answers: Answers =
                unreached.into_iter().map(|backend| (backend, false)).collect();
            let asked = futures::stream::iter(nodes).map(|(backend, question)| async move {
                let asked = tokio::task::spawn_blocking(move || is_there(&question)).await;
                (backend, asked)
            });
            let mut asked = asked.buffer_unordered(ASKED_AT_ONCE);
            while let Some((backend, asked)) = asked.next().await {
                match asked.map_err(io::Error::other).and_then(|asked| asked) {
                    Ok(there) => drop(answers.insert(backend, there)),
                    // Its own link is down, or it lacks a right: it says nothing of the other one.
                    Err(error) => debug!(%backend, %error, "cannot ask for a sign of life"),
                }
            }
            answers.extend(listen(sweeper, translated).await);
            answers
        }))
    }

    /// Those of whom no check comes back, each once.
    fn unheard(&self) -> Wanted {
        let mut wanted = Wanted::default();
        let mut known = HashSet::new();
        for service in self.services.iter().filter(|service| service.key.protocol == TCP) {
            let configured = &self.config.services[service.configured];
            if configured.health.reset_clients == ResetClients::Never {
                continue;
            }
            for backend in &service.backends {
                let health = self.health.get(&Self::target(configured, backend.address));
                let unheard = health.is_some_and(|health| {
                    health.state == State::Down && health.silence == Silence::Unreachable
                });
                if unheard && known.insert(backend.address) {
                    self.note_unheard(service, backend, &mut wanted);
                }
            }
        }
        wanted
    }

    fn note_unheard(
        &self,
        service: &PlannedService,
        backend: &PlannedBackend,
        wanted: &mut Wanted,
    ) {
        let at = backend.address;
        match backend.intended {
            Delivery::Nat => {
                if let Some(index) = self.dataplane.backend_index(&service.key, at) {
                    wanted.translated.insert(index, at);
                }
            }
            Delivery::Direct if backend.entry.mac == [0; 6] => wanted.unreached.push(at),
            Delivery::Direct => {
                let ifindex = backend.entry.ifindex;
                let port = u16::from_be(service.key.port_be);
                if let Some(from) = self.own_address(ifindex, service.address) {
                    let service = SocketAddr::new(service.address, port);
                    let question = Question { ifindex, mac: backend.entry.mac, from, service };
                    wanted.nodes.push((at, question));
                }
            }
            // This node's own kernel speaks for its processes; where there never was a way there are no
            // clients.
            Delivery::Local | Delivery::None | Delivery::Tunnel => {}
        }
    }

    /// An address of this node on an interface, of the same family, that is no VIP.
    pub(super) fn own_address(&self, ifindex: u32, family_of: IpAddr) -> Option<IpAddr> {
        let vips = &self.config.virtual_addresses;
        let own = self.config.nodes.iter().find(|node| node.name == self.node);
        let here = || {
            let all = self.network.addresses_of(ifindex).map(|address| address.address);
            all.filter(|a| a.is_ipv4() == family_of.is_ipv4() && !vips.contains(a))
        };
        here().find(|a| own.is_some_and(|own| own.addresses.contains(a))).or_else(|| here().next())
    }

    /// Takes what came of asking. Whether anything is known now that was not before.
    pub(super) fn note_answers(&mut self, answers: Result<Answers, JoinError>) -> bool {
        let answers = match answers {
            Ok(answers) => answers,
            Err(error) => {
                warn!(%error, "asking silent backends for a sign of life");
                return false;
            }
        };
        let mut news = false;
        for (backend, there) in answers {
            if self.absences.answers.insert(backend, there) == Some(there) {
                continue;
            }
            news = true;
            if there {
                info!(event = "backend-silent", %backend, "no check comes back, but there are signs of life: its connections stay");
            } else {
                warn!(event = "backend-gone", %backend, "no check comes back, and there is no sign of life");
            }
        }
        news
    }
}

/// Whether backends by NAT send anything; those that did lately are listened to for a moment more.
async fn listen(sweeper: Arc<Sweeper>, backends: HashMap<u32, SocketAddr>) -> Answers {
    let mut answers = Answers::new();
    let (mut left, mut pause) = (backends, Duration::ZERO);
    for _ in 0..LOOKS {
        if left.is_empty() {
            break;
        }
        tokio::time::sleep(pause).await;
        let (sweeper, asked) = (Arc::clone(&sweeper), left.keys().copied().collect());
        let heard = tokio::task::spawn_blocking(move || sweeper.last_heard(&asked)).await;
        let heard =
            heard.map_err(io::Error::other).and_then(|heard| heard.map_err(io::Error::other));
        let heard = match heard {
            Ok(heard) => heard,
            Err(error) => {
                warn!(%error, "listening to backends");
                return Answers::new();
            }
        };
        let now_ns = monotonic_ns();
        let silent = |index: &u32| {
            let last_ns = heard.get(index).copied().unwrap_or(0);
            Duration::from_nanos(now_ns.saturating_sub(last_ns))
        };
        answers.extend(left.iter().map(|(index, backend)| (*backend, silent(index) < LATELY)));
        left.retain(|index, _| silent(index) < LATELY);
        // Until the last of them would have been silent for long enough.
        let shortest = left.keys().map(silent).min().unwrap_or_default();
        pause = LATELY.saturating_sub(shortest);
    }
    answers
}
