//! Composition: the one place where configuration, network, health, role and data path meet.
//!
//! One loop owns the data path and answers one event after the other. The holder of the VIP runs
//! beside it and never waits for it.

mod absences;
mod attaching;
mod attachments;
mod census;
mod chronicle;
mod core;
mod discovering;
mod doors;
mod election;
mod error;
mod explaining;
mod happened;
mod kept;
mod lease;
mod listing;
mod memory;
mod notices;
mod options;
mod passive;
mod paths;
mod process;
mod rebalancing;
mod reload;
mod replicas;
mod report;
mod seats;
mod standings;
mod telling;
mod tracking;
mod upgrade;
mod virtual_links;

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Instant, SystemTime};

use lb_common::virtual_mac::lease_key;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

pub use error::AgentError;
pub use options::Options;
pub use process::{Edition, process};

use self::absences::Absences;
use self::attachments::Attachments;
use self::chronicle::Alarms;
use self::core::{Agent, End, Events};
use self::discovering::Discovering;
use self::doors::Doors;
use self::election::{Attractor, Elected, Election};
use self::happened::happened;
use self::kept::Kept;
use self::passive::Passive;
use self::paths::Paths;
use self::rebalancing::Rebalancer;
use self::reload::Reloads;
use self::replicas::Replicas;
use self::seats::{Seat, Seats, Tasks};
use self::telling::Teller;
use self::upgrade::{Inheritance, take_over};
use self::virtual_links::VirtualLink;
use crate::announce::Schedule;
use crate::config::{Config, OnStop, VirtualRouter, Vrrp};
use crate::control::server;
use crate::dataplane::{self, Capacity, DataPlane, Loaded, Pins, monotonic_ns};
use crate::events::journal;
use crate::finding::Severity;
use crate::health::path::Prober;
use crate::health::{self, Checker, Looks};
use crate::kernel::Knowledge;
use crate::lists;
use crate::netlink::{Monitor, MonitorOptions, Netlink, Network, ProbePace};
use crate::notify::Hooks;
use crate::plan::{Lists, Tables};
use crate::role::{Claim, Holder, NodeEffects, Role, RoleSender, StaticRole, Term};
use crate::standing::Sayings;
use crate::track::{Board, Watcher};
use crate::vrrp;

/// What checks for an occasion found, and nobody heard yet: as many as can be in flight.
const LOOKS: usize = 256;

/// Reads and checks the configuration that the options name.
pub fn read_config(options: &Options) -> Result<Config, AgentError> {
    let path = &options.config;
    let text = std::fs::read_to_string(path)
        .map_err(|source| AgentError::ReadConfig { path: path.clone(), source })?;
    let config = Config::parse(&text)
        .map_err(|e| AgentError::Config { report: e.report(&path.display().to_string()) })?;
    Ok(options.override_in(config))
}

/// Removes what any agent pinned under the configured path, its interfaces with virtual MACs first (the programs
/// keep them silent), and the routes of virtual addresses.
pub async fn purge(config: &Config) -> Result<(), AgentError> {
    let netlink = Netlink::connect()?;
    virtual_links::remove_stale(&netlink, &netlink.snapshot().await?).await;
    for vip in netlink.local_routes().await? {
        netlink.remove_local_route(vip).await?;
    }
    let done = Pins::new(&config.paths.bpf).purge();
    done.map_err(|source| AgentError::System { operation: "removing pins", source })
}

/// Runs the agent until a signal ends it, or another agent follows.
pub async fn run(
    edition: &'static Edition,
    options: &Options,
    config: Config,
) -> Result<(), AgentError> {
    tell_remarks(&config);
    let config = discovering::recall(config);
    dataplane::permitted()?;
    introduce(&Knowledge::gather());
    // Before anything is there to be left behind, and before the socket says that we are here.
    let signals = Signals::watch()?;
    let Gathered { mut monitor, netlink, network, node, tables, lists } =
        gather(options, &config).await?;
    let doors = Doors::open(&config)?;
    let (vrrp_events, vrrp) = mpsc::channel(vrrp::QUEUE);
    let found = Found { node, netlink, network, tables, lists, vrrp_events, doors, edition };
    let base = config.paths.bpf.clone();
    let dataplane = Loaded::load(&base, &edition.layout, None, capacity(&config))?.open()?;
    let (mut agent, holders, inboxes) =
        assemble(options, config, found, dataplane, &mut monitor, None).await?;
    agent.dataplane.settle()?;
    // Only now: nothing is held before it is served.
    let holders = holders.begin();
    let crew = Crew { monitor, signals, vrrp, inboxes, known: Vec::new() };
    Box::pin(serve(agent, holders, crew)).await
}

fn tell_remarks(config: &Config) {
    for remark in config.remarks() {
        warn!("{remark}");
    }
}

/// What ends the agent, and what has it read its file anew.
struct Signals {
    stop: mpsc::Receiver<&'static str>,
    hangups: Signal,
}

impl Signals {
    fn watch() -> Result<Self, AgentError> {
        Ok(Self { stop: stop_signals()?, hangups: watched(SignalKind::hangup())? })
    }
}

/// What an agent finds out before it does anything.
struct Gathered {
    monitor: Monitor,
    netlink: Netlink,
    network: Network,
    node: String,
    tables: Tables,
    lists: Lists,
}

async fn gather(options: &Options, config: &Config) -> Result<Gathered, AgentError> {
    // Subscribed before the first snapshot, so that nothing falls between the two.
    let mut monitor = Monitor::open(MonitorOptions::default())?;
    monitor.set_own(config.virtual_addresses.iter().copied().collect());
    let netlink = Netlink::connect()?;
    let network = netlink.snapshot().await?;
    let node = this_node(options, config, &network)?;
    let tables = Tables::build(config)?;
    let lists = lists::read(config)?;
    Ok(Gathered { monitor, netlink, network, node, tables, lists })
}

/// What the loop is woken by, but for what it starts itself.
struct Crew {
    monitor: Monitor,
    signals: Signals,
    vrrp: mpsc::Receiver<vrrp::Event>,
    inboxes: Inboxes,
    /// Of backends, by the agent before this one.
    known: Vec<(SocketAddr, health::State, String)>,
}

/// Serves until a signal ends it, or another agent follows.
async fn serve(mut agent: Agent, holders: Tasks, crew: Crew) -> Result<(), AgentError> {
    let Crew { monitor, signals: Signals { mut stop, hangups }, vrrp, inboxes, known } = crew;
    let Inboxes { upgrades, looks, paths } = inboxes;
    let (checker, health) = Checker::start();
    checker.recall(known);
    agent.set_targets(&checker);
    agent.begin_discovering();
    let (watcher, tracks) = Watcher::start(agent.board.tracked());
    let (sender, commands) = mpsc::channel(server::QUEUE);
    let unserved = |source| AgentError::System { operation: "serving the control socket", source };
    let mut open = agent.doors.serve(&sender).map_err(unserved)?;
    let bell = agent.dataplane.bell()?;
    let mut events = Events {
        monitor,
        checker,
        health,
        looks,
        paths,
        bell,
        tracks,
        commands,
        watcher,
        vrrp,
        hangups,
        upgrades,
    };
    info!(event = "agent-serves", node = agent.node, version = agent.edition.version, "serving");
    upgrade::tell_service_manager("READY=1");
    let reason = loop {
        let (sweeper, sweep_stop) = agent.dataplane.sweeper()?;
        agent.begin_sync()?;
        let end = agent.run(&mut events, sweeper, sweep_stop, &mut stop).await;
        agent.replicas.end_sync().await;
        match end {
            End::Stop(reason) => break reason,
            End::Follow(talk) => {
                if agent.be_followed(*talk, &open).await {
                    // Whoever waits for an answer hears that there is none.
                    events.commands.close();
                    while events.commands.try_recv().is_ok() {}
                    journal().end();
                    open.finish().await;
                    // As if this agent had been killed: nothing of what it holds is its own any more.
                    std::mem::forget((agent, holders));
                    return Ok(());
                }
                open = agent.doors.serve(&sender).map_err(unserved)?;
            }
        }
    };
    info!(event = "agent-stops", reason, "stopping");
    drop(events.watcher);
    let socket = agent.config.control.socket.clone();
    agent.close(holders, events.vrrp).await;
    // The listener is gone with the runtime; a socket that stays would only mislead.
    let _ = std::fs::remove_file(socket);
    Ok(())
}

fn capacity(config: &Config) -> Capacity {
    Capacity {
        services: config.limits.services,
        backends: config.limits.backends,
        nat_flows: config.nat.flows,
        sources: config.limits.sources,
        connections: config.limits.connections,
        datagram_flows: config.limits.datagram_flows,
        flows: config.limits.flows,
    }
}

/// One sentence about the kernel. What is required and missing is said by whoever fails without it,
/// and here before that.
fn introduce(kernel: &Knowledge) {
    let worst = kernel.findings.iter().map(|finding| finding.severity).max();
    let summary = kernel.summary();
    match worst {
        None | Some(Severity::Good) => info!("{summary}"),
        Some(_) => warn!("{summary} (`lbctl doctor` says more)"),
    }
}

fn this_node(options: &Options, config: &Config, network: &Network) -> Result<String, AgentError> {
    let own: Vec<IpAddr> = network.own_addresses().collect();
    let node = match &options.node {
        Some(name) => config.node_named(name),
        None => config.this_node(&own),
    };
    node.map(|node| node.name.clone()).map_err(|error| AgentError::Node(error.to_string()))
}

/// What stands before anything is loaded.
struct Found {
    node: String,
    netlink: Netlink,
    network: Network,
    tables: Tables,
    lists: Lists,
    vrrp_events: mpsc::Sender<vrrp::Event>,
    doors: Doors,
    edition: &'static Edition,
}

/// Where the agent hears of what it has begun beside its loop.
struct Inboxes {
    upgrades: mpsc::Receiver<upgrade::Event>,
    looks: mpsc::Receiver<(passive::Subject, health::Found)>,
    paths: mpsc::Receiver<health::path::Event>,
}

/// The holders of the VIPs, which hold nothing yet.
struct Holders(Vec<NodeHolder>);

impl Holders {
    fn begin(self) -> Tasks {
        self.0.into_iter().map(|holder| tokio::spawn(holder.run())).collect()
    }
}

/// Attaches, and fills the maps before anything points to them.
async fn assemble(
    options: &Options,
    config: Config,
    found: Found,
    mut dataplane: DataPlane,
    monitor: &mut Monitor,
    inheritance: Option<&Inheritance>,
) -> Result<(Agent, Holders, Inboxes), AgentError> {
    let Found { node, netlink, network, tables, lists, vrrp_events, doors, edition } = found;
    let (election, seats, holders) = seat(&config, &node, &dataplane, inheritance.is_some())?;
    dataplane.inherit(|index| network.link(index).map(|link| link.name.clone()))?;
    let (upgrade_events, upgrades) = mpsc::channel(1);
    let (looks_to, looks) = Looks::new(LOOKS);
    let passive = Passive::new(looks_to);
    let (prober, path_events) = Prober::start();
    let replicas = Replicas::new(&config, &node, inheritance.is_some())?;
    let teller = Teller::new(dataplane.flows()?);
    let rebalancer = Rebalancer::new(dataplane.flows()?);
    // By its path: the file may be another one by the time that it is asked for.
    let program = std::env::current_exe();
    let program = program.map_err(|source| AgentError::System {
        operation: "finding the agent's own file",
        source,
    })?;
    let discovering = Discovering::new(&config);
    let attachments = Attachments::read(&config.paths.state);
    let said = config.paths.state.join("backends.json");
    let said = Kept::read(said, "what lbctl said of backends", Sayings::parse);
    let hooks = Arc::new(Hooks::start(&config.notify, &node, &config.paths.state).await);
    let board = Board::new(&config.tracks, SystemTime::now());
    let mut agent = Agent {
        config: Arc::new(config),
        options: options.clone(),
        edition,
        program,
        doors: Arc::new(doors),
        upgrading: false,
        upgrade_events,
        followers: Tasks::new(),
        further_holders: Tasks::new(),
        node,
        started: Instant::now(),
        started_at: SystemTime::now(),
        dataplane,
        seats,
        election,
        vrrp_events,
        hooks,
        placements: Vec::new(),
        board,
        network,
        services: Vec::new(),
        attached_since: HashMap::new(),
        failures: BTreeMap::new(),
        first_port: dataplane::FirstPort::default(),
        swept: dataplane::Sweep::default(),
        netlink_overruns: 0,
        plans_failed: 0,
        health: HashMap::new(),
        standings: Vec::new(),
        ramp_step: None,
        passive,
        paths: Paths::new(prober),
        said,
        connections_left: HashMap::new(),
        recount: false,
        alarms: Alarms::default(),
        discovering,
        absences: Absences::default(),
        replicas,
        teller,
        rebalancer,
        reloads: Reloads { applied: 0, refused: 0, last: SystemTime::now() },
        tables,
        lists,
        netlink,
        attachments,
        known_macs: HashMap::new(),
        pace: ProbePace::default(),
        unresolved: Vec::new(),
    };
    agent.follow_roles(false);
    if let Some(inheritance) = inheritance {
        inheritance.tell(&mut agent);
    }
    if let Err(error) = agent.begin(monitor, inheritance.is_some()).await {
        if inheritance.is_some() {
            // What it holds of filters, and would take along, is the other agent's.
            std::mem::forget(agent);
        }
        return Err(error);
    }
    Ok((agent, Holders(holders), Inboxes { upgrades, looks, paths: path_events }))
}

type NodeHolder = Holder<NodeEffects<dataplane::Leases>>;

/// The holders of the VIPs, and what decides their roles.
fn seat(
    config: &Config,
    node: &str,
    dataplane: &DataPlane,
    follows: bool,
) -> Result<(Election, Seats, Vec<NodeHolder>), AgentError> {
    let (mut seats, mut holders) = (Vec::new(), Vec::new());
    let Some(settings) = &config.vrrp else {
        let (roles, changes) =
            StaticRole::new(config.active.as_deref(), node, dataplane.holds_lease());
        let (placements, placed) = watch::channel(Vec::new());
        let term = Term::Own(config.lease.duration);
        let (task, holder) = Holder::new(effects(dataplane)?, term, changes, placed);
        seats.push(Seat { name: "all".to_owned(), vips: None, link: None, placements, holder });
        holders.push(task);
        return Ok((Election::Static(roles), Seats(seats), holders));
    };
    let mut attractors = Vec::new();
    for wanted in election::by_family(settings) {
        let (attractor, seat, holder) = seat_router(wanted, settings, dataplane, follows)?;
        attractors.push(attractor);
        seats.push(seat);
        holders.push(holder);
    }
    Ok((Election::Waiting(attractors), Seats(seats), holders))
}

/// The holder of one virtual router's VIPs in one family, and what VRRP tells it by.
fn seat_router(
    (name, router, vips): (String, &VirtualRouter, Vec<IpAddr>),
    settings: &Vrrp,
    dataplane: &DataPlane,
    follows: bool,
) -> Result<(Attractor, Seat, NodeHolder), AgentError> {
    let begin = "vrrp has not decided yet".to_owned();
    let (roles, changes) = RoleSender::new(Role::Backup, begin, Claim::Forced);
    let (placements, placed) = watch::channel(Vec::new());
    let until_ns = Arc::new(AtomicU64::new(0));
    let term = Term::Decided(Arc::clone(&until_ns));
    let (task, holder) = Holder::new(effects(dataplane)?, term, changes, placed);
    let leases = dataplane.leases();
    let link = settings
        .virtual_mac
        .then(|| VirtualLink::new(router.router_id, vips.iter().any(IpAddr::is_ipv4)));
    if let Some(link) = link.as_ref().filter(|_| !follows) {
        // A killed agent's ends. The VIPs' are the holder's to give up.
        leases.set(lease_key(link.mac).into(), Some(monotonic_ns()))?;
    }
    let attractor = Attractor {
        router: router.clone(),
        link: link.clone(),
        roles,
        holder: holder.clone(),
        leases,
        vips: vips.clone(),
        until_ns,
        active: Cell::new(false),
        asks: Arc::new(AtomicBool::new(settings.check_duplicates)),
        course: None,
    };
    Ok((attractor, Seat { name, vips: Some(vips), link, placements, holder }, task))
}

fn effects(dataplane: &DataPlane) -> Result<NodeEffects<dataplane::Leases>, AgentError> {
    Ok(NodeEffects::new(dataplane.leases(), Netlink::connect()?, Schedule::default()))
}

impl Agent {
    /// Maps first, then the programs that read them, then the hooks and routes that bring packets. `follows`: another
    /// agent runs, and goes on where this fails.
    async fn begin(&mut self, monitor: &mut Monitor, follows: bool) -> Result<(), AgentError> {
        if !follows {
            virtual_links::remove_stale(&self.netlink, &self.network).await;
        }
        self.forget_strangers();
        self.recall_macs();
        self.resolve_neighbours(monitor).await;
        self.replan();
        self.dataplane.switch()?;
        let config = Arc::clone(&self.config);
        let wanted = self.attachments.wanted(&config.interfaces);
        for name in &wanted {
            if let Err(error) = self.attach(name) {
                // Not half a load balancer: what was attached until here goes again.
                if !follows {
                    self.dismantle();
                }
                return Err(error);
            }
        }
        self.restore_routes().await;
        self.dataplane.set_hooks(config.host.enabled, config.host.cgroup.as_deref());
        if config.host.enabled
            && let Err(reason) = self.dataplane.hooks()
        {
            warn!(reason, "host hooks are off");
        }
        self.network_changed().await;
        Ok(())
    }

    fn dismantle(&mut self) {
        let names: Vec<String> =
            self.dataplane.attached().iter().map(|attached| attached.name.clone()).collect();
        for name in names {
            if let Err(error) = self.dataplane.detach(&name) {
                warn!(%error, "detaching");
            }
        }
    }

    /// The VIP goes first, so that no client is drawn to a node that stops; then the data path, where that is wanted.
    async fn close(self, holders: Tasks, mut vrrp_events: mpsc::Receiver<vrrp::Event>) {
        if let Election::Vrrp(Elected { vrrp, .. }) = self.election {
            // Waits for the successor, on a thread where waiting is allowed.
            let mut stopping = tokio::task::spawn_blocking(move || vrrp.stop());
            let stopped = loop {
                tokio::select! {
                    stopped = &mut stopping => break stopped,
                    Some(event) = vrrp_events.recv() => happened(&event, &self.config, &self.hooks),
                }
            };
            if let Err(error) = stopped {
                warn!(%error, "handing over the VIPs");
            }
            while let Ok(event) = vrrp_events.try_recv() {
                happened(&event, &self.config, &self.hooks);
            }
        } else {
            drop(self.election);
        }
        // Without a source of roles the holders give up everything and end.
        for holder in holders.into_iter().chain(self.further_holders) {
            if let Err(error) = holder.await {
                warn!(%error, "giving up the VIPs");
            }
        }
        for follower in self.followers {
            // It ends with its holder.
            let _ = follower.await;
        }
        virtual_links::remove(&self.netlink, &self.seats).await;
        match self.config.data_path.on_stop {
            OnStop::Keep => {
                info!("the data path goes on without an agent (lb-agent --purge removes it)");
                // As if this agent had been killed: what it holds of filters would take them along.
                std::mem::forget(self.dataplane);
            }
            OnStop::Remove => {
                for &vip in &self.config.virtual_addresses {
                    if let Err(error) = self.netlink.remove_local_route(vip).await {
                        warn!(%vip, %error, "removing a local route");
                    }
                }
                if let Err(error) = self.dataplane.close() {
                    warn!(%error, "removing pins");
                }
            }
        }
        // Last of all, when there is nothing more to be told and nobody waits for this node.
        self.hooks.close().await;
    }
}

fn watched(kind: SignalKind) -> Result<Signal, AgentError> {
    signal(kind).map_err(|source| AgentError::System { operation: "watching for signals", source })
}

/// SIGTERM and SIGINT, as the reason to stop.
fn stop_signals() -> Result<mpsc::Receiver<&'static str>, AgentError> {
    let (sender, receiver) = mpsc::channel(1);
    for (kind, name) in [(SignalKind::terminate(), "SIGTERM"), (SignalKind::interrupt(), "SIGINT")]
    {
        let mut signals = watched(kind)?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                // A second signal while the first is being carried out changes nothing.
                let _ = sender.try_send(name);
            }
        });
    }
    Ok(receiver)
}
