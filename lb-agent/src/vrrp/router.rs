//! One virtual router on its link: packets in, actions out.

mod ear;

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use nix::net::if_::if_nametoindex;
use serde::{Deserialize, Serialize};

use super::driver::Command;
use super::event::{Event, Happening, Outbox};
use super::identity::Priority;
use super::link::{Link, LinkError, Reach};
use super::machine::{Action, Machine, Parameters, Progress, Reason, State};
use super::moment::Moment;
use super::packet::{Advertisement, Checksum};
use super::status::{Figures, Heard, RouterStatus};
use super::trouble::Troubles;
use super::waiter::Waiter;

/// An interface that cannot be opened is tried again this often.
const REOPEN: Duration = Duration::from_secs(1);
/// An Active router announces the addresses again this often, for hosts that missed it.
const ANNOUNCE_AGAIN: Duration = Duration::from_secs(60);
/// Advertisements that the others may miss: for so many intervals after its last one nobody else
/// takes over, so for so long this node may answer for the addresses.
const TERM_INTERVALS: u32 = 3;

/// Who carries out what the protocol decides.
pub trait Attract: Send {
    /// This node may answer for the addresses until then, if nothing else is said. Fails with what
    /// keeps it from that.
    fn renew(&self, until: Moment) -> Result<(), String>;
    fn acquire(&self, reason: Reason);
    fn release(&self, reason: Reason);
    fn announce(&self);
    /// The addresses are these from now on: those that are none of them any more are given up at once, those that
    /// are new count from the next [`renew`](Self::renew) on.
    fn readdress(&mut self, addresses: &[IpAddr]);
}

/// All of a virtual router that may be another while it runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    pub parameters: Parameters,
    pub interface: String,
    /// The interface that it sends from, where that is another one: it has the virtual router's MAC.
    pub sender: Option<String>,
    pub reach: Reach,
    pub checksum: Checksum,
    /// Addresses of the nodes that are meant to take part, this one's too.
    pub members: Vec<IpAddr>,
}

/// A virtual router to run.
pub struct Router {
    pub settings: Settings,
    pub attract: Box<dyn Attract>,
    /// Where it goes on, if another process of this node ran it until now.
    pub course: Option<Course>,
}

/// Where a virtual router is that was paused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Course {
    pub router_id: u8,
    /// The source of its advertisements.
    pub address: IpAddr,
    pub interface: String,
    pub progress: Progress,
    /// This node may answer for the addresses until then.
    pub until: Moment,
    /// Whether a person keeps it from being Active.
    pub held: bool,
    pub since: SystemTime,
    pub transitions: u64,
}

/// When an Active router advertises.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Cadence {
    interval: Duration,
    next: Moment,
}

/// A virtual router that runs.
pub(super) struct Running {
    interface: String,
    sender: Option<String>,
    reach: Reach,
    checksum: Checksum,
    members: Vec<IpAddr>,
    attract: Box<dyn Attract>,
    machine: Machine,
    /// As configured; what is tracked lowers it by its weight.
    priority: Priority,
    weight: i32,
    link: Option<Link>,
    open_at: Moment,
    announce_at: Moment,
    look_at: Moment,
    held: bool,
    unfit: Option<String>,
    stopping: bool,
    /// Advertisements in a row that could not be sent.
    unsent: u32,
    /// The link is of no use any more.
    lost: bool,
    since: SystemTime,
    heard: Option<Heard>,
    figures: Figures,
    /// What keeps it from sending, listening or answering.
    obstacle: Option<String>,
    troubles: Troubles,
    outbox: Outbox,
    /// The state that was told last.
    told: State,
}

impl Running {
    pub(super) fn new(router: Router, outbox: Outbox) -> Self {
        let start = Moment::default();
        let Router { settings, attract, course } = router;
        let Settings { parameters, interface, sender, reach, checksum, members } = settings;
        let priority = parameters.priority;
        let mut machine = match &course {
            Some(course) => Machine::resume(parameters, course.progress, super::driver::now()),
            None => Machine::new(parameters, start),
        };
        let mut figures = Figures::new();
        let (mut held, mut since) = (false, SystemTime::now());
        if let Some(course) = &course {
            figures.transitions = course.transitions;
            (held, since) = (course.held, course.since);
            // Only a Backup is kept so.
            if held && machine.state() == State::Backup {
                let _ = machine.hold_back(true, start);
            }
        }
        Self {
            priority,
            weight: 0,
            interface,
            sender,
            reach,
            checksum,
            members,
            attract,
            link: None,
            open_at: start,
            announce_at: start,
            look_at: start,
            held,
            unfit: None,
            stopping: false,
            unsent: 0,
            lost: false,
            since,
            heard: None,
            figures,
            obstacle: None,
            troubles: Troubles::default(),
            outbox,
            told: machine.state(),
            machine,
        }
    }

    /// Where it is, for another process to go on from. It must not be served until that is known to have failed.
    pub(super) fn pause(&mut self, now: Moment) -> Course {
        let actions = self.machine.refresh(now);
        self.carry_out(actions, now);
        let Parameters { router_id, address, .. } = *self.machine.parameters();
        let interval = self.machine.pace();
        let progress = self.machine.progress();
        let until = match (progress.state, progress.deadline) {
            (State::Active, _) => now + interval * TERM_INTERVALS,
            (_, Some(deadline)) if progress.holds => deadline,
            _ => now,
        };
        Course {
            router_id: router_id.number(),
            address,
            interface: self.interface.clone(),
            progress,
            until,
            held: self.held,
            since: self.since,
            transitions: self.figures.transitions,
        }
    }

    pub(super) const fn transitions(&self) -> u64 {
        self.figures.transitions
    }

    /// When it wants to be served next.
    pub(super) fn due(&self) -> Option<Moment> {
        if self.link.is_none() { Some(self.open_at) } else { self.machine.deadline() }
    }

    /// Whether nothing is left to be done for others before the end.
    pub(super) const fn has_handed_over(&self) -> bool {
        !self.machine.holds()
    }

    /// Opens the link, and takes part from then on.
    pub(super) fn open_if_due(&mut self, now: Moment, waiter: &Waiter) {
        if self.link.is_some() || now < self.open_at {
            return;
        }
        match self.open(waiter) {
            Ok(link) => self.take_part(link, now),
            Err(error) => {
                self.open_at = now + REOPEN;
                self.note_obstacle(error.to_string());
            }
        }
    }

    pub(super) fn take_part(&mut self, link: Link, now: Moment) {
        self.link = Some(link);
        self.obstacle = None;
        let actions = self.machine.start(now);
        self.carry_out(actions, now);
    }

    pub(super) fn open(&self, waiter: &Waiter) -> Result<Link, LinkError> {
        let source = self.machine.parameters().address;
        open(&self.interface, self.sender.as_deref(), (source, &self.reach), waiter)
    }

    /// The link that other settings need: none where it is the same, or where there is none anyway.
    pub(super) fn open_for(
        &self,
        settings: &Settings,
        waiter: &Waiter,
    ) -> Result<Option<Link>, LinkError> {
        let Settings { parameters, interface, sender, reach, .. } = settings;
        let same = (interface, sender, reach) == (&self.interface, &self.sender, &self.reach)
            && parameters.address == self.machine.parameters().address;
        if same || self.link.is_none() {
            return Ok(None);
        }
        open(interface, sender.as_deref(), (parameters.address, reach), waiter).map(Some)
    }

    /// The addresses are these from now on; before [`configure`](Self::configure).
    pub(super) fn readdress(&mut self, settings: &Settings) {
        self.attract.readdress(&settings.parameters.addresses);
    }

    /// Goes on with other settings, by the link that they need.
    pub(super) fn configure(&mut self, settings: Settings, link: Option<Link>, now: Moment) {
        let Settings { parameters, interface, sender, reach, checksum, members } = settings;
        (self.interface, self.sender, self.reach) = (interface, sender, reach);
        (self.checksum, self.members) = (checksum, members);
        match link {
            Some(link) => {
                self.link = Some(link);
                (self.unsent, self.obstacle) = (0, None);
            }
            // It may be another one that it waits for now.
            None if self.link.is_none() => self.open_at = now,
            None => {}
        }
        self.priority = parameters.priority;
        let priority = self.priority.weighed(self.weight);
        let actions = self.machine.configure(Parameters { priority, ..parameters }, now);
        self.carry_out(actions, now);
    }

    pub(super) fn obey(&mut self, command: &Command, now: Moment) {
        match command {
            Command::Resign => {
                let actions = self.machine.resign(now);
                self.carry_out(actions, now);
                return;
            }
            Command::Weigh(weight) => {
                self.weight = *weight;
                let actions = self.machine.set_priority(self.priority.weighed(*weight), now);
                self.carry_out(actions, now);
                return;
            }
            Command::Hold(held) => self.held = *held,
            Command::Unfit(why) => self.unfit.clone_from(why),
            Command::Stop => self.stopping = true,
        }
        let held_back = self.held || self.stopping || self.unfit.is_some();
        if held_back != self.machine.is_held_back() {
            let actions = self.machine.hold_back(held_back, now);
            self.carry_out(actions, now);
        }
    }

    /// Returns when it advertises next, if it was for that.
    pub(super) fn serve_timer(&mut self, now: Moment) -> Option<Cadence> {
        let due = self.machine.deadline().filter(|due| *due <= now)?;
        self.figures.lateness_max = self.figures.lateness_max.max(now.since(due));
        let actions = self.machine.timeout(now);
        self.carry_out(actions, now);
        self.leave_if_lost(now);
        if self.machine.state() == State::Active && now >= self.announce_at {
            self.announce_at = now + ANNOUNCE_AGAIN;
            self.attract.announce();
        }
        let next = self.machine.deadline().filter(|_| self.machine.state() == State::Active)?;
        Some(Cadence { interval: self.machine.parameters().interval, next })
    }

    /// Advertises together with another router of this interval, from now on.
    pub(super) fn keep_step(&mut self, Cadence { interval, next }: Cadence, now: Moment) {
        if interval == self.machine.parameters().interval {
            let actions = self.machine.keep_step(next, now);
            self.carry_out(actions, now);
        }
    }

    pub(super) fn shut_down(&mut self, now: Moment) {
        let actions = self.machine.shut_down(now);
        self.carry_out(actions, now);
    }

    fn carry_out(&mut self, actions: Vec<Action>, now: Moment) {
        // The others wait for three of these at the least.
        let interval = self.machine.pace();
        for action in actions {
            match action {
                Action::Advertise(priority) => {
                    // The lease first: nothing leaves with a virtual MAC that has none.
                    let renewed = if priority == Priority::RESIGN {
                        Ok(())
                    } else {
                        self.attract.renew(now + interval * TERM_INTERVALS)
                    };
                    self.advertise(priority);
                    if let Err(obstacle) = renewed {
                        self.note_obstacle(obstacle);
                    }
                }
                Action::Acquire(reason) => {
                    self.announce_at = now + ANNOUNCE_AGAIN;
                    self.changed();
                    self.attract.acquire(reason);
                }
                Action::Release(reason) => {
                    self.changed();
                    self.attract.release(reason);
                }
                Action::Announce => self.attract.announce(),
            }
        }
        // Between two Active routers the one that handed over still answers.
        if self.machine.state() == State::Backup
            && self.machine.holds()
            && let Some(until) = self.machine.deadline()
        {
            self.renew(until);
        }
        self.tell_transition();
    }

    fn renew(&mut self, until: Moment) {
        if let Err(obstacle) = self.attract.renew(until) {
            self.note_obstacle(obstacle);
        }
    }

    fn changed(&mut self) {
        self.since = SystemTime::now();
        self.figures.transitions += 1;
    }

    fn advertise(&mut self, priority: Priority) {
        let Some(link) = &self.link else { return };
        let Parameters { version, router_id, interval, address, addresses, authentication, .. } =
            self.machine.parameters();
        let advertisement = Advertisement {
            router_id: *router_id,
            priority,
            interval: *interval,
            addresses: addresses.clone(),
            authentication: *authentication,
        };
        let built = |destination| {
            advertisement
                .build(*version, *address, destination, self.checksum)
                .expect("the configuration lets nothing pass that the wire cannot carry")
        };
        match link.send(built) {
            Ok(()) => {
                self.figures.sent += 1;
                self.unsent = 0;
                self.obstacle = None;
            }
            Err(error) => {
                self.figures.send_failures += 1;
                self.unsent += 1;
                let gone = matches!(error, LinkError::NoSuchInterface { .. });
                self.lost = gone || self.unsent >= TERM_INTERVALS;
                self.note_obstacle(error.to_string());
            }
        }
    }

    /// Takes no part any more where the interface is gone or nothing can be sent: the others will
    /// elect another one. It begins anew, as Backup, with a link that can be opened.
    fn leave_if_lost(&mut self, now: Moment) {
        if std::mem::take(&mut self.lost) {
            self.shut_down(now);
            self.link = None;
            self.unsent = 0;
            self.open_at = now + REOPEN;
        }
    }

    /// Told where it is new.
    fn note_obstacle(&mut self, obstacle: String) {
        if self.obstacle.as_ref() != Some(&obstacle) {
            self.tell(Happening::Obstacle(obstacle.clone()));
            self.obstacle = Some(obstacle);
        }
    }

    fn tell_transition(&mut self) {
        let (from, to) = (self.told, self.machine.state());
        if from != to {
            self.told = to;
            let reason = self.machine.last_transition().0.to_string();
            self.tell(Happening::Transition { from, to, reason });
        }
    }

    fn tell(&mut self, happening: Happening) {
        let Parameters { router_id, version, address, priority, .. } = *self.machine.parameters();
        let (interface, at) = (self.interface.clone(), SystemTime::now());
        self.outbox.push(Event { router_id, version, interface, address, priority, at, happening });
    }

    /// Tells what nobody had time for before.
    pub(super) fn tell_waiting(&mut self) {
        self.outbox.flush();
        self.figures.events_lost = self.outbox.lost();
    }

    pub(super) fn status(&self) -> RouterStatus {
        let parameters = self.machine.parameters();
        RouterStatus {
            router_id: parameters.router_id,
            version: parameters.version,
            interface: self.interface.clone(),
            address: parameters.address,
            priority: parameters.priority,
            interval: parameters.interval,
            state: self.machine.state(),
            holds: self.machine.holds(),
            held_back: match (&self.unfit, self.held, self.stopping) {
                (Some(why), ..) => Some(why.clone()),
                (None, true, _) => Some("by hand".to_owned()),
                (None, false, true) => Some("the agent is stopping".to_owned()),
                (None, false, false) => None,
            },
            reason: self.machine.last_transition().0.to_string(),
            since: self.since,
            heard: self.heard,
            figures: self.figures.clone(),
            troubles: self.troubles.list(),
            obstacle: self.obstacle.clone(),
        }
    }
}

/// By name: an interface that was deleted and made again has another index. Its packets wake the thread.
fn open(
    interface: &str,
    sender: Option<&str>,
    (source, reach): (IpAddr, &Reach),
    waiter: &Waiter,
) -> Result<Link, LinkError> {
    let index = |name: &str| if_nametoindex(name).unwrap_or(0);
    let link = Link::open(interface, index(interface), source, reach)?;
    link.wake(waiter)?;
    match sender {
        None => Ok(link),
        Some(sender) => link.send_from(sender, index(sender), source, reach),
    }
}
