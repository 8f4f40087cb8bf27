//! The agent that runs and is to be followed: it starts the other one, lets it take over, and goes on itself
//! where that comes to nothing.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use lb_common::layout::TABLE_VERSION;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{info, warn};

use super::channel::Channel;
use super::words::{
    Hello, Identity, Known, KnownBackend, KnownTrack, Offer, Order, PROTOCOL, Report,
};
use crate::agent::core::Agent;
use crate::agent::doors::Open;
use crate::agent::election::{Election, by_family};
use crate::agent::options::Options;
use crate::config::{Config, UpgradeMode, VrrpVersion};
use crate::control::api::{self, AgentVersion, UpgradeLine, UpgradeStep};
use crate::control::server::Refusal;
use crate::dataplane::Successor;
use crate::events::journal;
use crate::health;
use crate::notify::Hooks;
use crate::script;
use crate::vrrp::{self, Course, Target, Vrrp};

/// What it says first, as soon as it runs.
const HELLO: Duration = Duration::from_secs(5);
/// It reads the file and has its programs verified, which takes seconds on a slow machine.
const PREPARED: Duration = Duration::from_secs(90);
/// It takes the maps over and attaches, while this one still keeps the VIPs.
const READY: Duration = Duration::from_secs(20);
/// Intervals of VRRP within which it must have gone on, so that this one still can.
const SERVING_INTERVALS: u32 = 2;
/// Where intervals are shorter than a process takes to get a thread going.
const SERVING_LEAST: Duration = Duration::from_millis(100);
/// Without VRRP: well within the shortest lease.
const SERVING: Duration = Duration::from_millis(500);
/// Between two looks at whether another node has taken over.
const LOOK: Duration = Duration::from_millis(10);

const ABOUT: &str = "upgrade";

/// What wakes the loop while another agent gets ready to follow.
pub(in crate::agent) enum Event {
    /// It has said what it is.
    Hello(Box<Talk>),
    /// It is ready to take over.
    Prepared(Box<Talk>),
    /// It came to nothing, or was only asked. The layout that it said it had.
    Over(Option<u32>),
}

/// The talk with an agent that is to follow.
pub(in crate::agent) struct Talk {
    child: Child,
    channel: Channel,
    hello: Option<Hello>,
    path: PathBuf,
    mode: UpgradeMode,
    check: bool,
    lines: mpsc::Sender<UpgradeLine>,
    begun: Instant,
    /// What this agent is.
    own: AgentVersion,
    /// Where this agent knows the other one's layout, and not the reverse.
    successor: Option<Successor>,
}

impl Talk {
    fn begin(
        options: &Options,
        path: PathBuf,
        mode: UpgradeMode,
        check: bool,
        lines: mpsc::Sender<UpgradeLine>,
        own: AgentVersion,
    ) -> io::Result<Self> {
        let (channel, theirs) = Channel::pair()?;
        let mut command = Command::new(&path);
        command.args(options.arguments()).arg("--take-over").stdin(Stdio::from(theirs));
        let child = command.spawn()?;
        let (hello, successor, begun) = (None, None, Instant::now());
        Ok(Self { child, channel, hello, path, mode, check, lines, begun, own, successor })
    }

    /// Said to whoever asked. Nobody may listen any more.
    fn step(&self, what: impl Into<String>) {
        let what = what.into();
        info!(event = "upgrade", what, "upgrade");
        let _ =
            self.lines.try_send(UpgradeLine::Step(UpgradeStep { what, after_ms: self.took_ms() }));
    }

    fn took_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn layout(&self) -> Option<u32> {
        self.hello.as_ref().map(|hello| hello.layout)
    }

    /// What it says next that is not a step.
    async fn answer(&mut self, limit: Duration) -> Result<Report, String> {
        let until = Instant::now() + limit;
        loop {
            let heard = match timeout_at(until, self.channel.hear()).await {
                Ok(heard) => heard,
                Err(_) => return Err(format!("it said nothing for {limit:?}")),
            };
            match heard {
                Ok(Some(Report::Step(what))) => self.step(what),
                Ok(Some(Report::Refused(why))) => return Err(why),
                Ok(Some(report)) => return Ok(report),
                Ok(None) => return Err(self.how_it_ended().await),
                Err(error) => return Err(format!("it is not understood: {error}")),
            }
        }
    }

    async fn how_it_ended(&mut self) -> String {
        match timeout(LOOK, self.child.wait()).await {
            Ok(Ok(status)) => format!("it ended ({status}): see the log"),
            _ => "it said no more".to_owned(),
        }
    }

    async fn expect(&mut self, limit: Duration, expected: &Report) -> Result<(), String> {
        let report = self.answer(limit).await?;
        if report == *expected { Ok(()) } else { Err(format!("it said {report:?} instead")) }
    }

    async fn say(&mut self, order: &Order) -> Result<(), String> {
        match self.channel.say(order).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.how_it_ended().await),
        }
    }

    /// Beside the loop: until it has said what it is.
    async fn greet(mut self) -> Event {
        let greeting = async {
            let Report::Hello(hello) = self.answer(HELLO).await? else {
                return Err("it did not say what it is".to_owned());
            };
            self.step(format!(
                "{} is version {}, with layout {} of the maps",
                self.path.display(),
                hello.version,
                hello.layout
            ));
            let understood = hello.protocol == PROTOCOL;
            self.hello = Some(hello);
            if !understood {
                return Err("it cannot follow this version in place: restart the agent".to_owned());
            }
            Ok(())
        };
        match greeting.await {
            Ok(()) => Event::Hello(Box::new(self)),
            Err(why) => self.give_up(&why).await,
        }
    }

    /// Beside the loop: until it is ready to take over.
    async fn prepare(
        mut self,
        offer: Offer,
        doors: std::sync::Arc<crate::agent::doors::Doors>,
    ) -> Event {
        let preparing = async {
            let scraped = doors.scraped();
            let passed = self.channel.pass(&doors.descriptors(scraped.as_deref())).await;
            passed.map_err(|error| format!("passing the sockets on: {error}"))?;
            self.say(&Order::Prepare(offer)).await?;
            self.expect(PREPARED, &Report::Prepared).await
        };
        match preparing.await {
            Err(why) => self.give_up(&why).await,
            Ok(()) if self.check => self.take_leave().await,
            Ok(()) => Event::Prepared(Box::new(self)),
        }
    }

    /// It was only asked.
    async fn take_leave(mut self) -> Event {
        let (layout, answer) = (self.layout(), self.outcome(None, None));
        drop(self.channel);
        if timeout(HELLO, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
        let _ = self.lines.try_send(UpgradeLine::Done(answer));
        Event::Over(layout)
    }

    /// It must not do anything any more, and whoever asked hears why.
    async fn give_up(mut self, why: &str) -> Event {
        self.end_child().await;
        let layout = self.layout();
        self.failed(why);
        Event::Over(layout)
    }

    async fn end_child(&mut self) {
        // It may have ended by itself.
        if let Err(error) = self.child.kill().await {
            warn!(%error, "ending the agent that was to follow");
        }
    }

    fn failed(&self, why: &str) {
        let path = self.path.display();
        let sentence = match self.check {
            true => format!("{path} would not follow: {why}"),
            false => format!("{path} does not follow, and this agent goes on: {why}"),
        };
        warn!("{sentence}");
        let _ = self.lines.try_send(UpgradeLine::Failed(sentence));
    }

    fn outcome(&self, pid: Option<u32>, pause: Option<Duration>) -> api::Upgrade {
        let of = |hello: &Hello| AgentVersion {
            version: hello.version.clone(),
            layout_version: hello.layout,
            table_version: hello.tables,
        };
        api::Upgrade {
            done: pid.is_some(),
            mode: self.mode,
            path: self.path.clone(),
            to: self.hello.as_ref().map_or_else(|| self.own.clone(), of),
            from: self.own.clone(),
            pid,
            took_ms: self.took_ms(),
            pause_ms: pause.map(|pause| pause.as_secs_f64() * 1e3),
        }
    }
}

impl Agent {
    /// Begins with it, or says why not; what follows comes as events.
    pub(in crate::agent) async fn upgrade_asked(
        &mut self,
        request: api::UpgradeRequest,
        lines: mpsc::Sender<UpgradeLine>,
        reply: oneshot::Sender<Result<(), Refusal>>,
    ) {
        let begun = self.begin_upgrade(request, lines).await;
        let refused = begun.map_err(|sentence| Refusal { callers: true, sentence });
        drop(reply.send(refused));
    }

    async fn begin_upgrade(
        &mut self,
        request: api::UpgradeRequest,
        lines: mpsc::Sender<UpgradeLine>,
    ) -> Result<(), String> {
        if self.upgrading {
            return Err("an upgrade is under way: wait for its end".to_owned());
        }
        let mode = request.mode.unwrap_or(self.config.control.upgrade);
        if mode == UpgradeMode::HandOver && !matches!(self.election, Election::Vrrp(_)) {
            return Err(
                "without [vrrp] no node follows this one by itself: make another one active \
                        (lbctl role), and upgrade in place"
                    .to_owned(),
            );
        }
        let path = request.path.unwrap_or_else(|| self.program.clone());
        trusted(&path).await?;
        let own = AgentVersion {
            version: self.edition.version.to_owned(),
            layout_version: self.edition.layout.version,
            table_version: TABLE_VERSION,
        };
        let talk = Talk::begin(&self.options, path.clone(), mode, request.check, lines, own);
        let talk = talk.map_err(|error| format!("{} cannot be run: {error}", path.display()))?;
        self.upgrading = true;
        self.failures.remove(ABOUT);
        let events = self.upgrade_events.clone();
        tokio::spawn(async move {
            // Nobody hears it where the agent ends.
            let _ = events.send(talk.greet().await).await;
        });
        Ok(())
    }

    /// Returns the talk once the other agent is to take over.
    pub(in crate::agent) fn note_upgrade(&mut self, event: Event) -> Option<Box<Talk>> {
        match event {
            Event::Hello(talk) => self.let_prepare(*talk),
            Event::Prepared(talk) => return Some(talk),
            Event::Over(layout) => {
                self.upgrading = false;
                self.tidy_after(layout);
            }
        }
        None
    }

    /// What an agent that does not follow has pinned goes.
    fn tidy_after(&mut self, layout: Option<u32>) {
        if let Some(layout) = layout
            && let Err(error) = self.dataplane.forget_successor(layout)
        {
            warn!(%error, "removing what another version pinned");
        }
    }

    fn let_prepare(&mut self, mut talk: Talk) {
        let events = self.upgrade_events.clone();
        let own = &self.edition.layout;
        let older = talk.layout().filter(|layout| *layout < own.version);
        if let Some(layout) = older {
            match self.dataplane.prepare_for(own, layout) {
                Ok(successor) => talk.successor = Some(successor),
                Err(error) => {
                    tokio::spawn(async move {
                        let _ = events.send(talk.give_up(&error.to_string()).await).await;
                    });
                    return;
                }
            }
        }
        let offer = Offer {
            layout: own.version,
            node: self.node.clone(),
            socket: self.doors.socket.clone(),
            metrics: self.doors.metrics(),
            routers: identities(&self.config),
        };
        let doors = self.doors.clone();
        tokio::spawn(async move {
            let _ = events.send(talk.prepare(offer, doors).await).await;
        });
    }

    /// Lets the other agent take over. True where it serves and this one is to end without a word; otherwise
    /// everything is as it was before. Nobody else may use the data path meanwhile.
    pub(in crate::agent) async fn be_followed(&mut self, mut talk: Talk, open: &Open) -> bool {
        match self.try_to_be_followed(&mut talk, open).await {
            Ok(pause) => {
                let outcome = talk.outcome(talk.child.id(), Some(pause));
                let (to, pid) = (&outcome.to, outcome.pid);
                info!(
                    event = "upgrade",
                    from = outcome.from.version,
                    to = to.version,
                    from_layout = outcome.from.layout_version,
                    to_layout = to.layout_version,
                    ?pid,
                    ?pause,
                    "upgraded: another agent serves, and this one ends"
                );
                if let Some(pid) = pid {
                    super::tell_service_manager(&format!("MAINPID={pid}"));
                }
                let _ = talk.lines.try_send(UpgradeLine::Done(outcome));
                true
            }
            Err(why) => {
                self.upgrading = false;
                talk.failed(&why);
                let sentence = format!("the last upgrade came to nothing: {why}");
                self.failures.insert(ABOUT.to_owned(), sentence);
                false
            }
        }
    }

    async fn try_to_be_followed(
        &mut self,
        talk: &mut Talk,
        open: &Open,
    ) -> Result<Duration, String> {
        if talk.mode == UpgradeMode::HandOver
            && let Election::Vrrp(elected) = &self.election
        {
            if let Err(why) = hand_over(&elected.vrrp).await {
                talk.end_child().await;
                self.tidy_after(talk.layout());
                return Err(why);
            }
            talk.step("another node has the VIPs");
        }
        open.close();
        self.teller.rest();
        self.rebalancer.rest();
        self.hooks.hand_over().await;
        let layout = talk.layout().unwrap_or(self.edition.layout.version);
        let (paused, done) = match self.let_take_over(talk).await {
            Ok(()) => self.let_go_on(talk).await,
            Err(why) => (false, Err(why)),
        };
        let Err(why) = done else { return done };
        talk.step("it does not follow: everything is taken back");
        talk.end_child().await;
        // VRRP first: its time is the shortest.
        if paused && let Election::Vrrp(elected) = &self.election {
            elected.vrrp.resume();
        }
        self.seats.suspend(false);
        self.take_back().await;
        self.tidy_after(Some(layout));
        Err(why)
    }

    /// The maps, the programs and what else is no matter of moments.
    async fn let_take_over(&self, talk: &mut Talk) -> Result<(), String> {
        if let Some(successor) = &talk.successor {
            successor.hand_over().map_err(|error| error.to_string())?;
        }
        talk.say(&Order::TakeOver(self.known())).await?;
        talk.expect(READY, &Report::Ready).await?;
        if let Some(successor) = &talk.successor {
            successor.hand_over_rest().map_err(|error| error.to_string())?;
        }
        talk.step("the data path is its own");
        Ok(())
    }

    /// VRRP, or the static role, and with it the VIPs. Whether VRRP was paused, and for how long nobody ran it.
    async fn let_go_on(&self, talk: &mut Talk) -> (bool, Result<Duration, String>) {
        self.seats.suspend(true);
        let begun = Instant::now();
        let (courses, limit): (Vec<Course>, _) = match &self.election {
            Election::Vrrp(elected) => {
                let Some(courses) = tokio::task::block_in_place(|| elected.vrrp.pause()) else {
                    return (true, Err("vrrp does not pause".to_owned()));
                };
                let intervals = self.config.vrrp.iter().map(|vrrp| vrrp.advertisement_interval);
                let interval = intervals.min().unwrap_or(SERVING);
                (courses, (interval * SERVING_INTERVALS).max(SERVING_LEAST))
            }
            // The next refresh comes a quarter of the lease after the last one.
            Election::Static(_) | Election::Waiting(_) => {
                (Vec::new(), SERVING.min(self.config.lease.duration / 2))
            }
        };
        let going_on = async {
            talk.say(&Order::GoOn(courses)).await?;
            let left = limit.saturating_sub(begun.elapsed());
            talk.expect(left, &Report::Serving).await
        };
        let done = going_on.await;
        (true, done.map(|()| begun.elapsed()))
    }

    /// Goes on with the data path, after another agent may have had it.
    async fn take_back(&mut self) {
        let about = ABOUT.to_owned();
        if let Err(error) = self.dataplane.take_back() {
            warn!(%error, "taking the data path back");
            self.failures.insert(about, format!("the data path was not taken back: {error}"));
        }
        let config = std::sync::Arc::clone(&self.config);
        self.dataplane.set_hooks(config.host.enabled, config.host.cgroup.as_deref());
        self.replan();
        let hooks = Hooks::start(&config.notify, &self.node, &config.paths.state).await;
        self.hooks = std::sync::Arc::new(hooks);
        self.follow_roles(false);
        self.network_changed().await;
    }

    fn known(&self) -> Known {
        let role = match &self.election {
            Election::Static(roles) => {
                let change = roles.current();
                Some((change.role.into(), change.reason))
            }
            Election::Waiting(_) | Election::Vrrp(_) => None,
        };
        let backends = self.health.iter().filter_map(|(target, health)| {
            let healthy = match health.state {
                health::State::Unknown => return None,
                health::State::Healthy => true,
                health::State::Down => false,
            };
            let reason = health.reason.clone();
            Some(KnownBackend { address: target.address, healthy, reason })
        });
        let tracks = self.board.tracked().iter().filter_map(|tracked| {
            let good = match tracked.judge.state() {
                health::State::Unknown => return None,
                health::State::Healthy => true,
                health::State::Down => false,
            };
            let (name, reason) = (tracked.name.clone(), tracked.judge.reason().to_owned());
            Some(KnownTrack { name, good, reason })
        });
        let events = Some(journal().handed_over());
        Known { role, backends: backends.collect(), tracks: tracks.collect(), events }
    }
}

/// Gives the role to other nodes, in every virtual router that has it here, and waits for them.
async fn hand_over(vrrp: &Vrrp) -> Result<(), String> {
    let held: Vec<(usize, u64)> = vrrp
        .status()
        .iter()
        .enumerate()
        .filter(|(_, router)| router.holds)
        .map(|(at, router)| (at, router.figures.transitions))
        .collect();
    if held.is_empty() {
        return Ok(());
    }
    // At most until this node's own timer, three intervals and the skew, makes it Active again.
    let interval = vrrp.status().iter().map(|router| router.interval).max().unwrap_or_default();
    let deadline = SystemTime::now() + interval * 6 + SERVING;
    vrrp.command(Target::All, vrrp::Command::Resign);
    loop {
        let status = vrrp.status();
        let settled = held.iter().all(|(at, before)| {
            status.get(*at).is_some_and(|router| router.figures.transitions > *before)
        });
        let still_here = held.iter().any(|(at, _)| status.get(*at).is_some_and(|r| r.holds));
        if settled && !still_here {
            return Ok(());
        }
        if settled || SystemTime::now() > deadline {
            return Err(
                "no other node takes the VIPs over: see lbctl vrrp, or upgrade in place".to_owned()
            );
        }
        sleep(LOOK).await;
    }
}

/// The virtual routers of a configuration, as both agents must have them.
pub(super) fn identities(config: &Config) -> Vec<Identity> {
    let Some(settings) = &config.vrrp else { return Vec::new() };
    let interval = settings.advertisement_interval;
    by_family(settings)
        .map(|(_, router, vips)| Identity {
            router_id: router.router_id,
            version: match settings.version {
                VrrpVersion::V2 => 2,
                VrrpVersion::V3 => 3,
            },
            interval_ms: u64::try_from(interval.as_millis()).unwrap_or(u64::MAX),
            vips,
        })
        .collect()
}

/// Whether a file may be run as the agent.
async fn trusted(path: &Path) -> Result<(), String> {
    if !path.is_absolute() {
        return Err(format!("{}: name the program by its whole path", path.display()));
    }
    let looked_at = path.to_owned();
    let judged = tokio::task::spawn_blocking(move || script::trusted(&looked_at)).await;
    judged.map_err(|error| error.to_string())?.map_err(|distrust| distrust.to_string())
}
