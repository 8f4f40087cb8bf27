//! The agent that is to follow another one: it prepares without touching anything, and takes over when it is told.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::channel::Channel;
use super::outgoing::identities;
use super::words::{Hello, Known, Offer, Order, PROTOCOL, Report};
use crate::agent::core::Agent;
use crate::agent::doors::Doors;
use crate::agent::election::Election;
use crate::agent::error::AgentError;
use crate::agent::seats::Tasks;
use crate::agent::{
    Crew, Edition, Found, Gathered, Holders, Options, Signals, assemble, capacity, discovering,
    gather, read_config, serve, tell_remarks,
};
use crate::config::Config;
use crate::dataplane::{self, Loaded};
use crate::events::journal;
use crate::health;
use crate::vrrp::Course;

/// How long VRRP may take until it has its sockets.
const BEGUN: Duration = Duration::from_millis(80);
const LOOK: Duration = Duration::from_millis(1);
/// A packet that goes astray may have been caught in a change of the maps.
const TRIES: usize = 3;

/// What the agent before knew.
pub(in crate::agent) struct Inheritance {
    known: Known,
}

impl Inheritance {
    /// Before anything is planned: what is known to be down is not tried by clients.
    pub(in crate::agent) fn tell(&self, agent: &mut Agent) {
        let known = self.known.backends.iter().map(|backend| (backend.address, backend));
        let known: std::collections::HashMap<_, _> = known.collect();
        let services = agent.config.services.iter().filter(|service| service.health.enabled);
        let targets = services.flat_map(|s| s.backends.iter().map(|b| Agent::target(s, b.address)));
        for target in targets.collect::<Vec<_>>() {
            if let Some(backend) = known.get(&target.address) {
                let state = state(backend.healthy);
                agent.know(target, state, backend.reason.clone());
            }
        }
        for track in &self.known.tracks {
            agent.board.recall(&track.name, track.good, &track.reason);
        }
        if let (Election::Static(roles), Some((role, reason))) = (&agent.election, &self.known.role)
        {
            roles.resume((*role).into(), reason.clone());
        }
    }

    fn backends(&self) -> Vec<(std::net::SocketAddr, health::State, String)> {
        let backends = self.known.backends.iter();
        backends.map(|b| (b.address, state(b.healthy), b.reason.clone())).collect()
    }
}

const fn state(healthy: bool) -> health::State {
    if healthy { health::State::Healthy } else { health::State::Down }
}

/// Follows the agent at the other end of standard input, and serves until a signal ends it. Where that agent goes
/// away before it has told this one to take over, nothing has happened.
pub(in crate::agent) async fn take_over(
    edition: &'static Edition,
    options: &Options,
) -> Result<(), AgentError> {
    let channel = Channel::of_standard_input();
    let mut channel = channel
        .map_err(|source| AgentError::System { operation: "--take-over is for agents", source })?;
    match follow(edition, options, &mut channel).await {
        Ok(Some(followed)) => {
            let Followed { agent, holders, crew } = *followed;
            Box::pin(serve(agent, holders, crew)).await
        }
        Ok(None) => Ok(()),
        Err(error) => {
            // Where it does not get there, the end of this process says as much.
            let _ = channel.say(&Report::Refused(error.to_string())).await;
            Err(error)
        }
    }
}

struct Followed {
    agent: Agent,
    holders: Tasks,
    crew: Crew,
}

async fn follow(
    edition: &'static Edition,
    options: &Options,
    channel: &mut Channel,
) -> Result<Option<Box<Followed>>, AgentError> {
    let hello = Hello {
        protocol: PROTOCOL,
        version: edition.version.to_owned(),
        layout: edition.layout.version,
        tables: lb_common::layout::TABLE_VERSION,
    };
    channel.say(&Report::Hello(hello)).await.map_err(lost)?;
    let Some(Order::Prepare(offer)) = channel.hear().await.map_err(lost)? else { return Ok(None) };
    let Prepared { config, gathered, doors, loaded, signals } =
        prepare(edition, options, &offer, channel).await?;
    channel
        .say(&Report::Step("the kernel has verified its programs".to_owned()))
        .await
        .map_err(lost)?;
    channel.say(&Report::Prepared).await.map_err(lost)?;
    let Some(Order::TakeOver(known)) = channel.hear().await.map_err(lost)? else {
        return Ok(None);
    };
    let mut inheritance = Inheritance { known };
    if let Some((run, events)) = inheritance.known.events.take() {
        journal().inherit(run, events);
    }
    let Gathered { mut monitor, netlink, network, node, tables, lists } = gathered;
    let (vrrp_events, vrrp) = tokio::sync::mpsc::channel(crate::vrrp::QUEUE);
    let found = Found { node, netlink, network, tables, lists, vrrp_events, doors, edition };
    let dataplane = loaded.open()?;
    let (mut agent, holders, inboxes) =
        assemble(options, config, found, dataplane, &mut monitor, Some(&inheritance)).await?;
    let holders = match go_on(&mut agent, holders, channel).await {
        Ok(holders) => holders,
        Err(error) => {
            // What it holds is the other agent's: nobody is to be told of its end.
            std::mem::forget(agent);
            return Err(error);
        }
    };
    if let Err(error) = agent.dataplane.settle() {
        warn!(%error, "removing what the agent before has pinned");
    }
    info!(event = "agent-follows", version = edition.version, "took over from the agent before");
    let known = inheritance.backends();
    let crew = Crew { monitor, signals, vrrp, inboxes, known };
    Ok(Some(Box::new(Followed { agent, holders, crew })))
}

/// From a data path that is its own to VRRP and the VIPs.
async fn go_on(
    agent: &mut Agent,
    holders: Holders,
    channel: &mut Channel,
) -> Result<Tasks, AgentError> {
    agent.try_out()?;
    channel.say(&Report::Ready).await.map_err(lost)?;
    let courses = match channel.hear().await {
        Ok(Some(Order::GoOn(courses))) => courses,
        // It has gone, or says what nobody understands: this one has the data path, and goes on.
        other => {
            warn!(?other, "the agent before has ended without a word");
            Vec::new()
        }
    };
    agent.go_on(&courses);
    let holders = holders.begin();
    agent.begin_election();
    agent.election_begun(!courses.is_empty()).await?;
    if channel.say(&Report::Serving).await.is_err() {
        warn!("the agent before has ended without a word");
    }
    Ok(holders)
}

fn lost(source: std::io::Error) -> AgentError {
    AgentError::System { operation: "talking to the agent that runs", source }
}

struct Prepared {
    config: Config,
    gathered: Gathered,
    doors: Doors,
    loaded: Loaded,
    signals: Signals,
}

/// Everything that can be found out without a change to anything.
async fn prepare(
    edition: &'static Edition,
    options: &Options,
    offer: &Offer,
    channel: &mut Channel,
) -> Result<Prepared, AgentError> {
    let config = read_config(options)?;
    tell_remarks(&config);
    let config = discovering::recall(config);
    dataplane::permitted()?;
    let signals = Signals::watch()?;
    let gathered = gather(options, &config).await?;
    agree(&config, &gathered.node, offer)?;
    let said = Report::Step("the configuration is understood".to_owned());
    channel.say(&said).await.map_err(lost)?;
    let doors =
        Doors::inherit(&config, (&offer.socket, offer.metrics), channel.take_descriptors())?;
    let (base, capacity) = (config.paths.bpf.clone(), capacity(&config));
    let running = offer.layout;
    let loading = tokio::task::spawn_blocking(move || {
        Loaded::load(&base, &edition.layout, Some(running), capacity)
    });
    let loaded = loading.await.map_err(|error| AgentError::Follow(error.to_string()))??;
    Ok(Prepared { config, gathered, doors, loaded, signals })
}

/// What an agent cannot go on with where another one was.
fn agree(config: &Config, node: &str, offer: &Offer) -> Result<(), AgentError> {
    let differs = |what: String| {
        Err(AgentError::Follow(format!(
            "{what} since the agent was started: undo it, or restart the agent instead"
        )))
    };
    if offer.node != node {
        return differs(format!("this node was {} and is {node} in the configuration", offer.node));
    }
    if offer.routers != identities(config) {
        return differs(
            "[vrrp] or the virtual addresses are others in the configuration".to_owned(),
        );
    }
    Ok(())
}

impl Agent {
    /// Whether packets find their way through the programs that were just attached.
    fn try_out(&self) -> Result<(), AgentError> {
        if let Some(why) = self.failures.get("maps") {
            return Err(AgentError::Follow(why.clone()));
        }
        let mut last = Ok(String::new());
        for _ in 0..TRIES {
            last = self.try_packet();
            if last.is_ok() {
                return Ok(());
            }
        }
        last.map(drop).map_err(AgentError::Follow)
    }

    /// Goes on where VRRP was in the agent before.
    fn go_on(&mut self, courses: &[Course]) {
        let Election::Waiting(attractors) = &mut self.election else { return };
        for attractor in attractors {
            let v4 = attractor.vips.iter().any(std::net::IpAddr::is_ipv4);
            let course = courses.iter().find(|course| {
                course.router_id == attractor.router.router_id && course.address.is_ipv4() == v4
            });
            if let Some(course) = course {
                attractor.go_on(course);
            }
        }
    }

    /// Waits until VRRP can send, where it is to go on at once.
    async fn election_begun(&self, at_once: bool) -> Result<(), AgentError> {
        if !at_once {
            return Ok(());
        }
        let until = Instant::now() + BEGUN;
        loop {
            let Election::Vrrp(elected) = &self.election else {
                let why = self.failures.get("vrrp").cloned();
                return Err(AgentError::Follow(
                    why.unwrap_or_else(|| "vrrp does not begin".to_owned()),
                ));
            };
            let status = elected.vrrp.status();
            if let Some(obstacle) = status.iter().find_map(|router| router.obstacle.clone()) {
                return Err(AgentError::Follow(obstacle));
            }
            if !status.is_empty() {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(AgentError::Follow("vrrp does not begin in time".to_owned()));
            }
            sleep(LOOK).await;
        }
    }
}
