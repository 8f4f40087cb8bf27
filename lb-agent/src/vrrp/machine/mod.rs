//! The state machine of one virtual router: RFC 9568, section 6.4, and RFC 3768's where the version
//! is 2. Pure: time is an argument, what is to be done is the answer.
//!
//! ```text
//!                 startup, priority 255
//!   Initialize ------------------------------> Active
//!     |   ^                                    |  ^
//!     |   | shutdown              outranked,   |  | timer: nobody Active was heard
//!     |   |                       overslept,   |  |
//!     |   |                       resigned     v  |
//!     +---+--------------------------------> Backup
//!                 startup, below 255
//! ```
//!
//! Beyond the RFCs:
//!
//! - **Handing over.** A router that resigns says so (priority 0) and goes on answering for the
//!   addresses until it hears its successor, or until one must have been there: a planned move has no
//!   gap. Between the two it is Backup in the protocol and still [`holds`](Machine::holds).
//! - **Late wake.** An Active router that slept longer than the others wait stops to answer before it
//!   sends: by then another may be Active. A Backup that slept past its timer listens once more, since
//!   what it did not read while asleep may be an advertisement.
//! - **Other parameters.** A router is [configured](Machine::configure) anew in whatever state it is, and stays in it.
//! - **Holding back.** A router that is not fit (a check failed, a person said so) resigns, and stays
//!   Backup whatever its timer says.

mod configure;
mod parameters;
mod reason;
mod rules;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

pub use parameters::{Parameters, Rivals};
pub use reason::Reason;
use serde::{Deserialize, Serialize};

use super::identity::Priority;
use super::moment::Moment;
use super::packet::Advertisement;
pub use rules::Refusal;

/// RFC 9568, 6.4.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Initialize,
    Backup,
    Active,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Initialize => "Initialize",
            Self::Backup => "Backup",
            Self::Active => "Active",
        })
    }
}

/// What is to be done, in the order of the answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Send an advertisement with this priority.
    Advertise(Priority),
    /// Attract the traffic: lease, addresses, announcement.
    Acquire(Reason),
    /// No longer attract it: the reverse.
    Release(Reason),
    /// Announce the addresses once more: a rival may have drawn the traffic to itself.
    Announce,
}

/// What the machine waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Timer {
    Idle,
    /// `Adver_Timer`.
    Advertise(Moment),
    /// `Active_Down_Timer`.
    Down(Moment),
}

/// How far a machine is, for another process of this node to go on with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Progress {
    pub state: State,
    /// When its timer is due.
    pub deadline: Option<Moment>,
    pub active_interval: Duration,
    pub holds: bool,
    pub active_resigned: bool,
    pub outranking_since: Option<Moment>,
}

/// One virtual router.
#[derive(Clone, Debug)]
pub struct Machine {
    parameters: Parameters,
    state: State,
    timer: Timer,
    /// `Active_Adver_Interval`: the Active router's own (version 3), or the configured one.
    active_interval: Duration,
    /// Whether the addresses are answered for.
    holds: bool,
    held_back: bool,
    /// The Active router has resigned, and nobody was heard since.
    active_resigned: bool,
    /// Since when an Active router of lower priority is heard without a break.
    outranking_since: Option<Moment>,
    /// What other routers may still go by, where that would be refused.
    former: Option<Box<Parameters>>,
    bridge: Option<configure::Bridge>,
    last: (Reason, Moment),
}

impl Machine {
    /// A router in [`State::Initialize`].
    pub fn new(parameters: Parameters, now: Moment) -> Self {
        Self {
            active_interval: parameters.interval,
            parameters,
            state: State::Initialize,
            timer: Timer::Idle,
            holds: false,
            held_back: false,
            active_resigned: false,
            outranking_since: None,
            former: None,
            bridge: None,
            last: (Reason::ShutDown, now),
        }
    }

    /// A router that goes on where one with the same parameters was, in another process. That one must not go
    /// on too. Where too much time has passed, it gives up as one that has slept.
    pub fn resume(parameters: Parameters, progress: Progress, now: Moment) -> Self {
        let timer = match (progress.state, progress.deadline) {
            (State::Active, Some(deadline)) => Timer::Advertise(deadline),
            (State::Backup, Some(deadline)) => Timer::Down(deadline),
            // Without a timer nobody can tell how far it was.
            (State::Initialize, _) | (_, None) => return Self::new(parameters, now),
        };
        Self {
            parameters,
            state: progress.state,
            timer,
            active_interval: progress.active_interval,
            holds: progress.holds || progress.state == State::Active,
            held_back: false,
            active_resigned: progress.active_resigned,
            outranking_since: progress.outranking_since,
            former: None,
            bridge: None,
            last: (Reason::Resumed, now),
        }
    }

    pub const fn progress(&self) -> Progress {
        Progress {
            state: self.state,
            deadline: self.deadline(),
            active_interval: self.active_interval,
            holds: self.holds,
            active_resigned: self.active_resigned,
            outranking_since: self.outranking_since,
        }
    }

    /// Has an Active router advertise now instead of when its timer is due, so that the others wait from now on.
    pub fn refresh(&mut self, now: Moment) -> Vec<Action> {
        let actions = self.yield_if_overslept(now);
        if !actions.is_empty() || self.state != State::Active {
            return actions;
        }
        self.timer = Timer::Advertise(now + self.pace());
        vec![Action::Advertise(self.parameters.priority)]
    }

    /// Has an Active router advertise now, if it would within half an interval, and then at `next`: when another
    /// router of the node with the same interval does. Nobody waits longer for an advertisement than before.
    pub fn keep_step(&mut self, next: Moment, now: Moment) -> Vec<Action> {
        let Timer::Advertise(at) = self.timer else { return Vec::new() };
        let interval = self.parameters.interval;
        let soon = now < at && at <= now + interval / 2;
        if !soon || next > now + interval {
            return Vec::new();
        }
        self.timer = Timer::Advertise(next);
        vec![Action::Advertise(self.parameters.priority)]
    }

    pub const fn state(&self) -> State {
        self.state
    }

    /// Whether the addresses are to be answered for. Also while a Backup waits for its successor.
    pub const fn holds(&self) -> bool {
        self.holds
    }

    pub const fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The last change of state, and when it was.
    pub const fn last_transition(&self) -> (Reason, Moment) {
        self.last
    }

    /// When [`timeout`](Self::timeout) is due. Everything that arrived before must have been handed
    /// to [`hear`](Self::hear) by then.
    pub const fn deadline(&self) -> Option<Moment> {
        match self.timer {
            Timer::Idle => None,
            Timer::Advertise(at) | Timer::Down(at) => Some(at),
        }
    }

    /// RFC 9568, 6.4.1.
    pub fn start(&mut self, now: Moment) -> Vec<Action> {
        if self.state != State::Initialize {
            return Vec::new();
        }
        self.active_interval = self.parameters.interval;
        self.active_resigned = false;
        self.outranking_since = None;
        if self.parameters.priority == Priority::OWNER && !self.held_back {
            return self.become_active(now, Reason::Owner);
        }
        self.enter(State::Backup, Reason::Started, now);
        self.wait_for_down(now);
        Vec::new()
    }

    /// RFC 9568, 6.4.2 and 6.4.3. An Active router says that it ends; its driver keeps answering
    /// for the addresses until the successor is heard by calling [`resign`](Self::resign) before.
    pub fn shut_down(&mut self, now: Moment) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.state == State::Active {
            actions.push(Action::Advertise(Priority::RESIGN));
        }
        self.enter(State::Initialize, Reason::ShutDown, now);
        self.timer = Timer::Idle;
        actions.extend(self.release(Reason::ShutDown));
        actions
    }

    /// Gives the role to another router. Where there is none this one becomes Active again.
    pub fn resign(&mut self, now: Moment) -> Vec<Action> {
        self.hand_over(now, Reason::Resigned)
    }

    /// Keeps the router from being Active, or lets it be again.
    pub fn hold_back(&mut self, held_back: bool, now: Moment) -> Vec<Action> {
        let was = std::mem::replace(&mut self.held_back, held_back);
        if held_back {
            return self.hand_over(now, Reason::HeldBack);
        }
        if was && self.state == State::Backup {
            // It may have heard nobody because its link was down: it listens for as long as after
            // a start.
            self.wait_for_down(now);
        }
        Vec::new()
    }

    pub const fn is_held_back(&self) -> bool {
        self.held_back
    }

    /// Changes the priority, as tracked things come and go. An Active router tells the others at
    /// once: one of them may be the better one now. A Backup that was about to take over from an
    /// Active router, and counts for less now, listens anew.
    pub fn set_priority(&mut self, priority: Priority, now: Moment) -> Vec<Action> {
        let before = std::mem::replace(&mut self.parameters.priority, priority);
        match self.state {
            State::Active if priority != before => vec![Action::Advertise(priority)],
            State::Backup => {
                self.reconsider((before, self.parameters.preempt_delay), now);
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    /// The deadline has come.
    pub fn timeout(&mut self, now: Moment) -> Vec<Action> {
        let actions = self.yield_if_overslept(now);
        match self.timer {
            _ if !actions.is_empty() => actions,
            Timer::Advertise(at) if at <= now => self.advertise_again(at, now),
            Timer::Down(at) if at <= now => self.active_is_down(at, now),
            _ => Vec::new(),
        }
    }

    fn advertise_again(&mut self, at: Moment, now: Moment) -> Vec<Action> {
        let interval = self.step();
        // By the schedule, not by when it was carried out: the timer does not drift.
        let next = at + interval;
        self.timer = Timer::Advertise(if next > now { next } else { now + interval });
        vec![Action::Advertise(self.parameters.priority)]
    }

    /// The others count from the last advertisement, one interval before the timer was to fire.
    fn yield_if_overslept(&mut self, now: Moment) -> Vec<Action> {
        let Timer::Advertise(at) = self.timer else { return Vec::new() };
        let interval = self.pace();
        if now.since(at) + interval < interval * parameters::MISSED {
            return Vec::new();
        }
        self.enter(State::Backup, Reason::Overslept, now);
        self.active_interval = self.parameters.interval;
        self.wait_for_down(now);
        self.release(Reason::Overslept).into_iter().collect()
    }

    fn active_is_down(&mut self, at: Moment, now: Moment) -> Vec<Action> {
        let overslept = now.since(at) >= self.active_interval;
        if overslept || self.held_back {
            self.wait_for_down(now);
            return self.release(Reason::NoSuccessor).into_iter().collect();
        }
        let reason = if self.active_resigned { Reason::ActiveResigned } else { Reason::ActiveDown };
        self.become_active(now, reason)
    }

    /// RFC 9568, 6.4.2: the advertisement is first, so that other Backups wait.
    fn become_active(&mut self, now: Moment, reason: Reason) -> Vec<Action> {
        self.enter(State::Active, reason, now);
        self.timer = Timer::Advertise(now + self.parameters.interval);
        self.active_resigned = false;
        self.outranking_since = None;
        self.holds = true;
        vec![Action::Advertise(self.parameters.priority), Action::Acquire(reason)]
    }

    fn hand_over(&mut self, now: Moment, reason: Reason) -> Vec<Action> {
        if self.state != State::Active {
            return Vec::new();
        }
        self.enter(State::Backup, reason, now);
        self.active_interval = self.parameters.interval;
        self.wait_for_down(now);
        vec![Action::Advertise(Priority::RESIGN)]
    }

    fn enter(&mut self, state: State, reason: Reason, now: Moment) {
        self.state = state;
        self.bridge = None;
        self.last = (reason, now);
    }

    fn wait_for_down(&mut self, now: Moment) {
        let (parameters, interval) = (&self.parameters, self.active_interval);
        let wait = parameters.down_interval(parameters.priority, interval);
        self.timer = Timer::Down(now + wait);
    }

    fn release(&mut self, reason: Reason) -> Option<Action> {
        std::mem::take(&mut self.holds).then_some(Action::Release(reason))
    }

    /// An advertisement of another router for this virtual router, from the address `source`.
    ///
    /// After another password, interval (version 2) or set of addresses was [configured](Self::configure), who still
    /// goes by the former one is heard too, until the first who goes by the new one: where the Active router is told
    /// last, none of the others takes over in between.
    ///
    /// # Errors
    ///
    /// Why it was not taken. It changed nothing then.
    pub fn hear(
        &mut self,
        source: IpAddr,
        advertisement: &Advertisement,
        now: Moment,
    ) -> Result<Vec<Action>, Refusal> {
        self.check(source, advertisement)?;
        // Whoever overslept is no longer the one to outrank the rival.
        let mut actions = self.yield_if_overslept(now);
        actions.extend(match self.state {
            State::Initialize => Vec::new(),
            State::Backup => self.hear_as_backup(source, advertisement, now),
            State::Active => self.hear_as_active(source, advertisement, now),
        });
        Ok(actions)
    }
}
