//! One virtual router on its link: packets in, actions out.

use std::collections::HashMap;
use std::fmt::Display;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use nix::net::if_::if_nametoindex;

use super::driver::Command;
use super::identity::Priority;
use super::link::{Link, LinkError, Reach, Received};
use super::machine::{Action, Machine, Parameters, State};
use super::moment::Moment;
use super::packet::{self, Advertisement, Checksum};
use super::status::{Figures, Heard, RouterStatus};

/// Packets that one turn takes from a link: more wait for the next, so that a flood of them delays
/// no timer.
const PACKETS_PER_TURN: usize = 64;
/// An interface that cannot be opened is tried again this often.
const REOPEN: Duration = Duration::from_secs(1);
/// The same trouble with the same router is logged this often, and counted always.
const WARN_AGAIN: Duration = Duration::from_secs(60);
/// Kinds of trouble that are remembered; beyond that they are only counted.
const TROUBLES_MAX: usize = 64;
/// An Active router announces the addresses again this often, for hosts that missed it.
const ANNOUNCE_AGAIN: Duration = Duration::from_secs(60);
/// Advertisements that the others may miss: for so many intervals after its last one nobody else
/// takes over, so for so long this node may answer for the addresses.
const TERM_INTERVALS: u32 = 3;

/// Who carries out what the protocol decides.
pub trait Attract: Send {
    /// This node may answer for the addresses until then, if nothing else is said.
    fn renew(&self, until: Moment);
    fn acquire(&self, reason: String);
    fn release(&self, reason: String);
    fn announce(&self);
}

/// A virtual router to run.
pub struct Router {
    pub parameters: Parameters,
    pub interface: String,
    pub reach: Reach,
    pub checksum: Checksum,
    pub attract: Box<dyn Attract>,
}

/// A virtual router that runs.
pub(super) struct Running {
    router: Router,
    machine: Machine,
    link: Option<Link>,
    open_at: Moment,
    announce_at: Moment,
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
    trouble: Option<String>,
    warned: HashMap<(&'static str, IpAddr), Moment>,
}

impl Running {
    pub(super) fn new(router: Router) -> Self {
        let start = Moment::default();
        Self {
            machine: Machine::new(router.parameters.clone(), start),
            router,
            link: None,
            open_at: start,
            announce_at: start,
            held: false,
            unfit: None,
            stopping: false,
            unsent: 0,
            lost: false,
            since: SystemTime::now(),
            heard: None,
            figures: Figures::new(),
            trouble: None,
            warned: HashMap::new(),
        }
    }

    pub(super) const fn link(&self) -> Option<&Link> {
        self.link.as_ref()
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
    pub(super) fn open_if_due(&mut self, now: Moment) {
        if self.link.is_some() || now < self.open_at {
            return;
        }
        let Router { interface, reach, parameters, .. } = &self.router;
        // By name: an interface that was deleted and made again has another index.
        let ifindex = if_nametoindex(interface.as_str()).unwrap_or(0);
        match Link::open(interface, ifindex, parameters.address, reach) {
            Ok(link) => {
                self.link = Some(link);
                self.trouble = None;
                let actions = self.machine.start(now);
                self.carry_out(actions, now);
            }
            Err(error) => {
                self.open_at = now + REOPEN;
                self.note_trouble(&error);
            }
        }
    }

    pub(super) fn listen(&mut self, now: Moment) {
        for _ in 0..PACKETS_PER_TURN {
            let Some(link) = &self.link else { return };
            match link.receive() {
                Ok(Some(received)) => self.hear(&received, now),
                Ok(None) => return,
                Err(error) => {
                    self.note_trouble(&error);
                    return;
                }
            }
        }
    }

    fn hear(&mut self, received: &Received, now: Moment) {
        let source = received.envelope.source;
        if let Some((version, advertisement)) = self.read(received, now) {
            let own = self.machine.parameters();
            if advertisement.router_id != own.router_id {
                // Another virtual router of the link.
                return;
            }
            if version != own.version {
                let expected = own.version;
                let sentence = format!("it speaks version {version}, this node version {expected}");
                self.refuse("other_version", source, &sentence, now);
                return;
            }
            match self.machine.hear(source, &advertisement, now) {
                Ok(actions) => {
                    self.figures.received += 1;
                    let priority = advertisement.priority;
                    self.heard = Some(Heard { from: source, priority, at: SystemTime::now() });
                    self.carry_out(actions, now);
                }
                Err(refusal) => self.refuse(refusal.name(), source, &refusal, now),
            }
        }
    }

    /// What is a packet for a router of this version and not from a stranger (RFC 9568, 7.1).
    fn read(
        &mut self,
        received: &Received,
        now: Moment,
    ) -> Option<(super::identity::Version, Advertisement)> {
        let envelope = &received.envelope;
        if envelope.ttl != 255 {
            let sentence = format!("its TTL is {} instead of 255: it was routed", envelope.ttl);
            self.refuse("ttl", envelope.source, &sentence, now);
            return None;
        }
        if let Reach::Unicast(peers) = &self.router.reach
            && !peers.contains(&envelope.source)
        {
            self.refuse("unknown_source", envelope.source, &"it is no node of the file", now);
            return None;
        }
        match packet::parse(envelope, &received.payload) {
            Ok(read) => Some(read),
            Err(error) => {
                self.refuse(error.name(), envelope.source, &error, now);
                None
            }
        }
    }

    fn refuse(&mut self, name: &'static str, source: IpAddr, why: &dyn Display, now: Moment) {
        *self.figures.refused.entry(name).or_default() += 1;
        let last = self.warned.get(&(name, source)).copied();
        let again = last.is_none_or(|last| now.since(last) >= WARN_AGAIN);
        if again && (last.is_some() || self.warned.len() < TROUBLES_MAX) {
            self.warned.insert((name, source), now);
            let router = self.router.parameters.router_id;
            tracing::warn!(%router, %source, %why, "an advertisement was refused");
        }
    }

    pub(super) fn obey(&mut self, command: &Command, now: Moment) {
        match command {
            Command::Resign => {
                let actions = self.machine.resign(now);
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

    pub(super) fn serve_timer(&mut self, now: Moment) {
        let Some(due) = self.machine.deadline().filter(|due| *due <= now) else { return };
        self.figures.lateness_max = self.figures.lateness_max.max(now.since(due));
        let actions = self.machine.timeout(now);
        self.carry_out(actions, now);
        self.leave_if_lost(now);
        if self.machine.state() == State::Active && now >= self.announce_at {
            self.announce_at = now + ANNOUNCE_AGAIN;
            self.router.attract.announce();
        }
    }

    pub(super) fn shut_down(&mut self, now: Moment) {
        let actions = self.machine.shut_down(now);
        self.carry_out(actions, now);
    }

    fn carry_out(&mut self, actions: Vec<Action>, now: Moment) {
        let interval = self.router.parameters.interval;
        for action in actions {
            match action {
                Action::Advertise(priority) => {
                    self.advertise(priority);
                    if priority != Priority::RESIGN {
                        self.router.attract.renew(now + interval * TERM_INTERVALS);
                    }
                }
                Action::Acquire(reason) => {
                    self.announce_at = now + ANNOUNCE_AGAIN;
                    self.changed();
                    self.router.attract.acquire(reason.to_string());
                }
                Action::Release(reason) => {
                    self.changed();
                    self.router.attract.release(reason.to_string());
                }
                Action::Announce => self.router.attract.announce(),
            }
        }
        // Between two Active routers the one that handed over still answers.
        if self.machine.state() == State::Backup
            && self.machine.holds()
            && let Some(until) = self.machine.deadline()
        {
            self.router.attract.renew(until);
        }
    }

    fn changed(&mut self) {
        self.since = SystemTime::now();
        self.figures.transitions += 1;
    }

    fn advertise(&mut self, priority: Priority) {
        let Some(link) = &self.link else { return };
        let Parameters { version, router_id, interval, address, addresses, authentication, .. } =
            &self.router.parameters;
        let advertisement = Advertisement {
            router_id: *router_id,
            priority,
            interval: *interval,
            addresses: addresses.clone(),
            authentication: *authentication,
        };
        let built = |destination| {
            advertisement
                .build(*version, *address, destination, self.router.checksum)
                .expect("the configuration lets nothing pass that the wire cannot carry")
        };
        match link.send(built) {
            Ok(()) => {
                self.figures.sent += 1;
                self.unsent = 0;
                self.trouble = None;
            }
            Err(error) => {
                self.figures.send_failures += 1;
                self.unsent += 1;
                let gone = matches!(error, LinkError::NoSuchInterface { .. });
                self.lost = gone || self.unsent >= TERM_INTERVALS;
                self.note_trouble(&error);
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

    /// Logged where it is new.
    fn note_trouble(&mut self, error: &dyn Display) {
        let trouble = error.to_string();
        if self.trouble.as_ref() != Some(&trouble) {
            tracing::warn!(router = %self.router.parameters.router_id, %trouble, "vrrp");
            self.trouble = Some(trouble);
        }
    }

    pub(super) fn status(&self) -> RouterStatus {
        let parameters = self.machine.parameters();
        RouterStatus {
            router_id: parameters.router_id,
            version: parameters.version,
            interface: self.router.interface.clone(),
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
            trouble: self.trouble.clone(),
        }
    }
}
