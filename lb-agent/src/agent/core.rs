//! The agent's loop: it owns the data path and what is known of network and health, and answers
//! one event after the other.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::absences::Absences;
use super::attachments::Attachments;
use super::census::Counts;
use super::discovering::Discovering;
use super::doors::Doors;
use super::election::Election;
use super::error::AgentError;
use super::happened::happened;
use super::kept::Kept;
use super::options::Options;
use super::passive::{self, Passive, Subject};
use super::paths::Paths;
use super::process::Edition;
use super::rebalancing::Rebalancer;
use super::reload::Reloads;
use super::replicas::Replicas;
use super::seats::{Seats, Tasks};
use super::standings::ServiceStanding;
use super::telling::Teller;
use super::tracking::Occasion;
use super::{chronicle, notices, upgrade};
use crate::announce::Interface;
use crate::config::{Config, Service};
use crate::control::api;
use crate::control::server::{Command, Refusal};
use crate::dataplane::{
    Bell, DataPlane, DataPlaneError, FirstPort, Ladder, NatTimeouts, Sweep, SweepStop, Sweeper,
};
use crate::health::{self, Checker, Schedule, Target};
use crate::kernel;
use crate::netlink::{Link, Mac, Monitor, Netlink, Network, NextHop, ProbePace};
use crate::notify::Hooks;
use crate::plan::{Inputs, Lists, Plan, PlannedService, Tables};
use crate::role::{Claim, Placement, Role};
use crate::standing::Sayings;
use crate::track::{self, Board};
use crate::vrrp;

/// How often NAT flows are looked at, and for which part of the time at most: a sweep of millions
/// takes seconds of a core.
const NAT_SWEEP: Duration = Duration::from_secs(5);
const NAT_SWEEP_SHARE: u32 = 20;

/// How often unresolved neighbours are asked for again, at the soonest.
const TICK: Duration = Duration::from_secs(1);

/// How long a node that starts waits for its neighbours' answers. Those who are there answer within a
/// millisecond; one that is not must not keep the node from its work.
const RESOLUTION: Duration = Duration::from_secs(1);

/// What is known of a backend's health.
#[derive(Clone, Debug)]
pub(super) struct Health {
    pub(super) state: health::State,
    pub(super) reason: String,
    /// Why it cannot be checked now.
    pub(super) unchecked: Option<String>,
    pub(super) silence: health::Silence,
}

pub(super) struct Agent {
    pub(super) config: Arc<Config>,
    pub(super) options: Options,
    pub(super) edition: &'static Edition,
    /// The file that this process was started from.
    pub(super) program: PathBuf,
    pub(super) doors: Arc<Doors>,
    /// Another agent is to follow this one.
    pub(super) upgrading: bool,
    pub(super) upgrade_events: mpsc::Sender<upgrade::Event>,
    /// What tells the hooks of a static role.
    pub(super) followers: Tasks,
    /// The holders that came by a reload.
    pub(super) further_holders: Tasks,
    pub(super) node: String,
    pub(super) started: Instant,
    pub(super) dataplane: DataPlane,
    pub(super) seats: Seats,
    pub(super) election: Election,
    /// Where VRRP is to put what happens to it.
    pub(super) vrrp_events: mpsc::Sender<vrrp::Event>,
    /// Who is told of changes.
    pub(super) hooks: Arc<Hooks>,
    /// Where each VIP is held.
    pub(super) placements: Vec<Placement>,
    pub(super) board: Board,
    pub(super) network: Network,
    pub(super) services: Vec<PlannedService>,
    pub(super) attached_since: HashMap<u32, SystemTime>,
    /// What goes on failing, by what it concerns.
    pub(super) failures: BTreeMap<String, String>,
    pub(super) first_port: FirstPort,
    /// What the last sweep of the NAT flows found.
    pub(super) swept: Sweep,
    pub(super) netlink_overruns: u64,
    pub(super) plans_failed: u64,
    pub(super) health: HashMap<Target, Health>,
    pub(super) passive: Passive,
    pub(super) paths: Paths,
    /// Of each configured service, once it was planned for.
    pub(super) standings: Vec<ServiceStanding>,
    /// When a backend that starts slowly is to take more.
    pub(super) ramp_step: Option<Instant>,
    /// What persons said of backends.
    pub(super) said: Kept<Sayings>,
    /// Of those of whom something was said, as far as it was counted.
    pub(super) connections_left: Counts,
    /// They are to be counted anew.
    pub(super) recount: bool,
    pub(super) reloads: Reloads,
    pub(super) alarms: chronicle::Alarms,
    pub(super) discovering: Discovering,
    pub(super) absences: Absences,
    pub(super) replicas: Replicas,
    pub(super) teller: Teller,
    pub(super) rebalancer: Rebalancer,
    pub(super) started_at: SystemTime,
    pub(super) tables: Tables,
    pub(super) lists: Lists,
    pub(super) netlink: Netlink,
    pub(super) attachments: Attachments,
    pub(super) known_macs: HashMap<(u32, IpAddr), Mac>,
    pub(super) pace: ProbePace,
    pub(super) unresolved: Vec<(u32, IpAddr)>,
}

/// What wakes the loop.
pub(super) struct Events {
    pub(super) monitor: Monitor,
    /// Where health comes from.
    pub(super) checker: Checker,
    pub(super) health: mpsc::Receiver<health::Event>,
    /// What checks for an occasion found.
    pub(super) looks: mpsc::Receiver<(Subject, health::Found)>,
    /// What is known of ways to other nodes.
    pub(super) paths: mpsc::Receiver<health::path::Event>,
    /// Backends have failed connections.
    pub(super) bell: Bell,
    pub(super) tracks: mpsc::Receiver<track::Event>,
    pub(super) watcher: track::Watcher,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) vrrp: mpsc::Receiver<vrrp::Event>,
    /// SIGHUP: the configuration is to be read anew.
    pub(super) hangups: Signal,
    pub(super) upgrades: mpsc::Receiver<upgrade::Event>,
}

/// Why the loop ends.
pub(super) enum End {
    Stop(&'static str),
    /// Another agent is to take over.
    Follow(Box<upgrade::Talk>),
}

impl Agent {
    /// Serves events until `stop` is told, or another agent is to take over. Then nothing of it writes maps any
    /// more, but for the leases.
    pub(super) async fn run(
        &mut self,
        events: &mut Events,
        sweeper: Sweeper,
        sweep_stop: SweepStop,
        stop: &mut mpsc::Receiver<&'static str>,
    ) -> End {
        let sweeper = Arc::new(sweeper);
        let (mut sweeping, mut counting, mut asking) = (None, None, None);
        let mut sweep = interval(NAT_SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Here, where all that it needs stands: holders, routes, programs.
            self.begin_election();
            self.begin_looks(&events.checker);
            if counting.is_none() && std::mem::take(&mut self.recount) {
                counting = self.begin_census(&sweeper);
            }
            if asking.is_none() && self.absences.take_due() {
                asking = self.begin_asking(&sweeper);
            }
            tokio::select! {
                reason = stop.recv() => {
                    return End::Stop(reason.unwrap_or("the agent's own end"));
                }
                Some(event) = events.upgrades.recv() => {
                    if let Some(talk) = self.note_upgrade(event) {
                        drop(sweep_stop);
                        if let Some(sweeping) = sweeping {
                            drop(sweeping.await);
                        }
                        if let Some(counting) = counting {
                            drop(counting.await);
                        }
                        return End::Follow(talk);
                    }
                }
                change = events.monitor.changed() => {
                    self.netlink_overruns = events.monitor.overruns();
                    if change.vip_removed {
                        self.restore_routes().await;
                        self.seats.restore();
                    }
                    self.network_changed().await;
                }
                Some(event) = events.health.recv() => {
                    self.note_health(event);
                    while let Ok(event) = events.health.try_recv() {
                        self.note_health(event);
                    }
                    self.replan();
                }
                Some(event) = events.paths.recv() => self.hear_paths(event, &mut events.paths),
                indices = events.bell.rung() => self.rung(indices),
                () = passive::until(self.passive.next()) => self.pass_time(),
                () = passive::until(self.ramp_step) => self.replan(),
                Some((subject, found)) = events.looks.recv() => self.looked(&subject, &found),
                Some(event) = events.vrrp.recv() => happened(&event, &self.config, &self.hooks),
                Some(event) = events.tracks.recv() => self.note_track(event),
                () = self.replicas.changed() => self.tell(),
                () = self.discovering.changed() => {
                    let Events { monitor, checker, .. } = &mut *events;
                    self.note_discovered(monitor, checker).await;
                }
                Some(command) = events.commands.recv() => match command {
                    Command::Reload(dry_run, reply) =>
                        drop(reply.send(self.reload(dry_run, events).await)),
                    command => self.answer(command).await,
                },
                Some(()) = events.hangups.recv() => {
                    // What went wrong is in the log and in the status.
                    drop(self.reload(false, events).await);
                }
                _ = sweep.tick(), if sweeping.is_none() => {
                    sweeping = Some(self.begin_sweep(&sweeper));
                }
                result = ended(&mut sweeping) => {
                    sweeping = None;
                    self.note_sweep(result);
                    sweep.reset_after(NAT_SWEEP.max(self.swept.took * NAT_SWEEP_SHARE));
                }
                result = ended(&mut counting) => {
                    counting = None;
                    self.note_census(result);
                }
                result = ended(&mut asking) => {
                    asking = None;
                    if self.note_answers(result) {
                        self.replan();
                    }
                }
                _ = tick.tick() => {
                    self.recount = true;
                    self.hear_alarms();
                    self.absences.ask();
                    self.discovering.tick(&self.config);
                    self.rebalancer.look_around();
                    self.look(Occasion::Tick);
                    if let Err(error) = self.dataplane.tidy() {
                        warn!(%error, "giving back the memory of former tables");
                    }
                    self.probe().await;
                }
            }
        }
    }

    /// The target of a configured backend's checks.
    pub(super) fn target(service: &Service, address: SocketAddr) -> Target {
        let health = &service.health;
        Target { address, check: Arc::clone(&health.check), schedule: Schedule::of(health) }
    }

    /// Has the backends of every checked service checked. A datagram service has no connection to
    /// try by itself, so it is checked, by TCP, only where the configuration asks for it.
    pub(super) fn set_targets(&self, checker: &Checker) {
        let checked = self.config.services.iter().filter(|service| service.health.enabled);
        checker.set_targets(
            checked.flat_map(|s| s.backends.iter().map(|b| Self::target(s, b.address))),
        );
    }

    /// Takes what another agent has found out.
    pub(super) fn know(&mut self, target: Target, state: health::State, reason: String) {
        let silence = health::Silence::None;
        self.health.insert(target, Health { state, reason, unchecked: None, silence });
    }

    /// Has the hooks told of the roles that no VRRP decides; `known`: but for those that they are.
    pub(super) fn follow_roles(&mut self, known: bool) {
        for follower in std::mem::take(&mut self.followers) {
            follower.abort();
        }
        if let Election::Static(_) = &self.election {
            self.followers = notices::follow_roles(&self.hooks, &self.seats, &self.config, known);
        }
    }

    fn note_health(&mut self, event: health::Event) {
        let health::Event { target, state, reason, unchecked, silence } = event;
        let before = self.health.get(&target).map_or(health::State::Unknown, |known| known.state);
        chronicle::tell_health(target.address, before, state, &reason);
        self.note_silence(target.address, silence);
        self.health.insert(target, Health { state, reason, unchecked, silence });
    }

    /// Reads the network anew and brings the maps up to date with it.
    pub(super) async fn network_changed(&mut self) {
        if !self.read_network().await {
            return;
        }
        self.remember_macs();
        self.follow_links();
        self.replan();
        if self.follow_virtual_links().await && self.read_network().await {
            self.seats.place(&self.placements, &self.network);
        }
        self.probe().await;
    }

    /// Whether it could be read.
    async fn read_network(&mut self) -> bool {
        match self.netlink.snapshot().await {
            Ok(network) => {
                self.network = network;
                self.failures.remove("network");
                true
            }
            Err(error) => {
                self.failures.insert("network".to_owned(), error.to_string());
                false
            }
        }
    }

    /// A neighbour that stops to answer keeps its last MAC: a node that is only thought dead must
    /// stay reachable, and a flow's frames still get to one whose entry the kernel dropped.
    fn remember_macs(&mut self) {
        for hop in self.next_hops() {
            if let Some(mac) = hop.mac {
                self.known_macs.insert((hop.ifindex, hop.neighbour), mac);
            }
        }
    }

    /// Whom frames for the other nodes and the backends go to, as far as there is a way that is up.
    fn next_hops(&self) -> Vec<NextHop> {
        let nodes = self.config.nodes.iter().flat_map(|node| node.addresses.iter().copied());
        let services = self.config.services.iter();
        let backends = services.flat_map(|s| s.backends.iter().map(|b| b.address.ip()));
        // Each once, of however many services it is.
        let addresses: HashSet<IpAddr> = nodes.chain(backends).collect();
        addresses.into_iter().filter_map(|address| self.network.resolve(address).ok()).collect()
    }

    /// Waits until every next hop's MAC is known, or [`RESOLUTION`] is over: a node that attracts
    /// connections before it has a way for them refuses them. Whoever has a lease does not wait, since
    /// it is asked for its VIPs, and knows the MACs of the agent before.
    pub(super) async fn resolve_neighbours(&mut self, monitor: &mut Monitor) {
        if !self.dataplane.holds_lease() {
            self.wait_for_neighbours(monitor).await;
        }
    }

    /// The same, whoever holds what, but for those who were silent before.
    pub(super) async fn wait_for_neighbours(&mut self, monitor: &mut Monitor) {
        let silent_before = std::mem::take(&mut self.unresolved);
        let until = tokio::time::Instant::now() + RESOLUTION;
        loop {
            let silent = self.next_hops().into_iter().filter(|hop| hop.mac.is_none());
            self.unresolved = silent
                .map(|hop| (hop.ifindex, hop.neighbour))
                .filter(|neighbour| !self.known_macs.contains_key(neighbour))
                .filter(|neighbour| !silent_before.contains(neighbour))
                .collect();
            if self.unresolved.is_empty() {
                return;
            }
            self.probe().await;
            if tokio::time::timeout_at(until, monitor.changed()).await.is_err() {
                info!(
                    neighbours = self.unresolved.len(),
                    "begins before all neighbours have answered"
                );
                return;
            }
            self.read_network().await;
        }
    }

    /// The MACs that the agent before knew. The kernel may have forgotten them, since XDP does not
    /// use its neighbour table, and traffic must not wait until they are asked for again.
    pub(super) fn recall_macs(&mut self) {
        let known = self.dataplane.pinned_backends().filter(|backend| backend.mac != [0; 6]);
        // Each once, of however many services it is.
        let known: HashSet<(IpAddr, u32, Mac)> = known
            .map(|backend| (IpAddr::from(backend.address), backend.ifindex, backend.mac))
            .collect();
        for (address, ifindex, mac) in known {
            if let Ok(hop) = self.network.resolve(address)
                && hop.ifindex == ifindex
            {
                self.known_macs.insert((hop.ifindex, hop.neighbour), mac);
            }
        }
    }

    /// Attaches wanted interfaces that have come, forgets attached ones that have gone.
    pub(super) fn follow_links(&mut self) {
        let gone: Vec<u32> = self
            .dataplane
            .attached()
            .iter()
            .map(|attached| attached.index)
            .filter(|&index| self.network.link(index).is_none())
            .collect();
        for index in gone {
            warn!(event = "interface-gone", index, "an attached interface is gone");
            if let Err(error) = self.dataplane.forget(index) {
                warn!(%error, "forgetting an interface");
            }
        }
        for name in self.attachments.wanted(&self.config.interfaces) {
            let about = format!("interface {name}");
            match self.attach(&name) {
                Ok(_) => self.failures.remove(&about),
                Err(error) => self.failures.insert(about, error.to_string()),
            };
        }
    }

    pub(super) fn attach(&mut self, name: &str) -> Result<api::Interface, AgentError> {
        let Some(link) = self.network.link_by_name(name) else {
            let error = DataPlaneError::NoInterface { name: name.to_owned() };
            return Err(error.into());
        };
        let index = link.index;
        let known = self.dataplane.attached().iter().any(|attached| attached.index == index);
        let ladder = Ladder::of(self.config.data_path.modes.as_deref(), link.veth);
        let attached = self.dataplane.attach(index, name, ladder)?.clone();
        if !known {
            info!(event = "attached", interface = name, mode = ?attached.mode, reason = attached.reason, "attached");
        }
        self.attached_since.entry(index).or_insert_with(SystemTime::now);
        Ok(self.interface(&attached))
    }

    /// Works out what the maps should hold, and makes them hold it.
    pub(super) fn replan(&mut self) {
        let attached: Vec<u32> = self.dataplane.attached().iter().map(|a| a.index).collect();
        let syn_cookies = self.may_make_cookies();
        self.restand();
        let usable =
            |configured: usize, place: usize| self.standings[configured].backends[place].usable;
        let plan = Plan::make(&Inputs {
            config: &self.config,
            node: &self.node,
            tables: &self.tables,
            lists: &self.lists,
            network: &self.network,
            known_macs: &self.known_macs,
            syn_cookies,
            attached: &attached,
            usable: &usable,
        });
        self.unresolved.clone_from(&plan.unresolved);
        match self.dataplane.apply(&plan) {
            Ok(()) => {
                self.failures.remove("maps");
            }
            Err(error) => {
                warn!(event = "maps-failed", %error, "the maps could not be brought up to date");
                self.plans_failed += 1;
                self.failures.insert("maps".to_owned(), error.to_string());
            }
        }
        self.first_port = FirstPort::from(&plan.settings);
        self.services = plan.services;
        self.probe_paths();
        self.tell_clients();
        self.follow_placing();
        self.begin_to_hear();
        self.placements = self.find_placements();
        self.seats.place(&self.placements, &self.network);
        self.publish_ways();
        self.look(Occasion::Change);
    }

    /// Whether the kernel takes SYN cookies that the program makes; where it matters and is not so, that
    /// is told.
    fn may_make_cookies(&mut self) -> bool {
        const ABOUT: &str = "syn cookies";
        let missing = self.config.syn_flood.and_then(|_| kernel::no_cookies());
        match missing {
            None => {
                self.failures.remove(ABOUT);
                true
            }
            Some(why) => {
                if self.failures.insert(ABOUT.to_owned(), why.clone()).is_none() {
                    warn!("{why}");
                }
                false
            }
        }
    }

    /// Where each VIP is held: on the attached interface that has its network, or else on the first that stays.
    pub(super) fn find_placements(&self) -> Vec<Placement> {
        let mut links: Vec<&Link> =
            self.dataplane.attached().iter().filter_map(|a| self.network.link(a.index)).collect();
        let wanted = self.attachments.wanted(&self.config.interfaces);
        links.sort_by_key(|link| !wanted.contains(&link.name));
        let mut placements = Vec::new();
        for &vip in &self.config.virtual_addresses {
            let has_network =
                |link: &&&Link| self.network.addresses_of(link.index).any(|a| a.covers(vip));
            let link = links.iter().find(has_network).or_else(|| links.first());
            if let Some(link) = link
                && let Some(mac) = link.mac
            {
                let interface = Interface { index: link.index, name: link.name.clone(), mac };
                placements.push(Placement { vip, interface });
            }
        }
        placements
    }

    /// Makes the kernel resolve the neighbours that the plan misses.
    async fn probe(&mut self) {
        let wanted = self.unresolved.clone();
        self.pace.retain(|ifindex, ip| wanted.contains(&(ifindex, ip)));
        for (ifindex, ip) in wanted {
            if self.pace.due(Instant::now(), ifindex, ip)
                && let Err(error) = self.netlink.probe_neighbour(ifindex, ip).await
            {
                warn!(neighbour = %ip, %error, "asking for a neighbour");
            }
        }
    }

    /// Makes the VIPs locally deliverable, also after somebody removed a route.
    pub(super) async fn restore_routes(&mut self) {
        for &vip in &self.config.virtual_addresses.clone() {
            let about = format!("route of {vip}");
            match self.netlink.add_local_route(vip).await {
                Ok(()) => self.failures.remove(&about),
                Err(error) => self.failures.insert(about, error.to_string()),
            };
        }
    }

    /// Looks at the NAT flows, beside the loop.
    fn begin_sweep(&self, sweeper: &Arc<Sweeper>) -> Sweeping {
        let nat = &self.config.nat;
        let timeouts = NatTimeouts {
            tcp_opening: nat.tcp_opening_timeout,
            tcp_established: nat.tcp_established_timeout,
            tcp_closing: nat.tcp_closing_timeout,
            udp: nat.udp_timeout,
        };
        let (sweeper, first_port) = (Arc::clone(sweeper), self.first_port);
        tokio::task::spawn_blocking(move || sweeper.sweep(&timeouts, &first_port))
    }

    fn note_sweep(&mut self, result: Result<Result<Sweep, DataPlaneError>, JoinError>) {
        match result {
            Ok(Ok(sweep)) => self.swept = sweep,
            Ok(Err(error)) => warn!(%error, "looking for NAT flows that are over"),
            Err(error) => warn!(%error, "looking for NAT flows that are over"),
        }
    }

    async fn answer(&mut self, command: Command) {
        // Whoever asked may have gone meanwhile; then nobody misses the answer.
        match command {
            Command::Status(reply) => drop(reply.send(self.status())),
            Command::Interfaces(reply) => drop(reply.send(self.interfaces())),
            Command::Nodes(reply) => drop(reply.send(self.nodes())),
            Command::Services(reply) => {
                if let Ok(services) = self.api_services() {
                    drop(reply.send(services));
                }
            }
            Command::Backends(service, reply) => {
                drop(reply.send(self.backends_asked(service.as_deref())));
            }
            Command::Rebalance(service, asked, reply) => {
                self.rebalance_asked(service, asked, reply);
            }
            Command::Admin(change, reply) => drop(reply.send(self.admin_asked(&change))),
            command @ (Command::Events(..)
            | Command::Explain(..)
            | Command::Flows(..)
            | Command::Metrics(_)) => self.observed(command),
            Command::Attach(name, reply) => drop(reply.send(self.attach_asked(&name).await)),
            Command::Detach(name, reply) => drop(reply.send(self.detach_asked(&name))),
            Command::SetRole(role, reply) => self.role_asked(role, reply),
            Command::Notify(reply) => drop(reply.send(self.api_notify())),
            Command::Vrrp(reply) => drop(reply.send(self.api_vrrp())),
            Command::Tracks(reply) => drop(reply.send(self.api_tracks())),
            Command::Upgrade(request, lines, reply) => {
                self.upgrade_asked(request, lines, reply).await;
            }
            // The loop's own, which has what it takes.
            Command::Reload(..) => {}
            Command::VrrpResign(router, reply) => {
                drop(reply.send(self.vrrp_asked(router, &vrrp::Command::Resign)));
            }
            Command::VrrpHold(router, hold, reply) => {
                drop(reply.send(self.vrrp_asked(router, &vrrp::Command::Hold(hold))));
            }
        }
    }

    /// Answers when the holder is done, beside the loop: asking the link takes its time.
    fn role_asked(&self, role: api::Role, reply: oneshot::Sender<Result<(), Refusal>>) {
        let (Election::Static(roles), [seat]) = (&self.election, &self.seats.0[..]) else {
            let sentence =
                "vrrp decides which node is active: lbctl vrrp resign gives the role to \
                            another node, lbctl vrrp hold keeps this one from it"
                    .to_owned();
            drop(reply.send(Err(Refusal { callers: true, sentence })));
            return;
        };
        let wanted = match role {
            api::Role::Active => Role::Active,
            api::Role::Backup => Role::Backup,
        };
        info!(?role, "role set by hand");
        let sequence = roles.command(wanted, Claim::Once);
        let holder = seat.holder.clone();
        tokio::spawn(async move {
            let done = holder.settled(sequence).await;
            let answer = done.map_err(|sentence| Refusal { callers: true, sentence });
            drop(reply.send(answer.map(|_| ())));
        });
    }
}

/// A sweep that runs.
type Sweeping = JoinHandle<Result<Sweep, DataPlaneError>>;

/// What the task came to that runs; never where none does.
async fn ended<T>(task: &mut Option<JoinHandle<T>>) -> Result<T, JoinError> {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}

pub(super) fn refusal(error: &AgentError) -> Refusal {
    Refusal { callers: true, sentence: error.to_string() }
}

pub(super) fn unkept(error: &std::io::Error) -> Refusal {
    Refusal {
        callers: false,
        sentence: format!("done, but it will not outlive a restart: writing paths.state: {error}"),
    }
}
