//! The other implementations, as far as VRRP sees them: keepalived and FRR. Written from RFC 9568,
//! 6.4, and their habits, not from our machine: what both got wrong in the same way would stay
//! unseen. The actions are in our machine's words only so that the world has one vocabulary.

use std::net::IpAddr;
use std::time::Duration;

use lb_agent::vrrp::identity::{Priority, Version};
use lb_agent::vrrp::machine::{Action, Parameters, Reason};
use lb_agent::vrrp::moment::Moment;
use lb_agent::vrrp::packet::Advertisement;

use super::router::Router;

/// Where the two differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Habits {
    /// Answers a router of lower priority at once, in both versions, and announces the addresses
    /// then (`garp_lower_prio_repeat`).
    Keepalived,
    /// Discards it in both versions, as RFC 3768 and 5798 say, 6.4.3.
    Frr,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Stopped,
    Backup,
    Active,
}

/// One router of theirs.
pub(super) struct Model {
    habits: Habits,
    configured: Parameters,
    state: State,
    timer: Moment,
    active_interval: Duration,
    fault: bool,
}

impl Model {
    pub(super) fn new(habits: Habits, configured: Parameters) -> Self {
        let active_interval = configured.interval;
        let (state, timer) = (State::Stopped, Moment::default());
        Self { habits, configured, state, timer, active_interval, fault: false }
    }

    fn skew(&self) -> Duration {
        let whole = match self.configured.version {
            Version::V2 => Duration::from_secs(1),
            Version::V3 => self.active_interval,
        };
        whole.mul_f64(f64::from(256 - u16::from(self.configured.priority.0)) / 256.0)
    }

    fn back_up(&mut self, now: Moment) {
        self.state = State::Backup;
        self.timer = now + self.active_interval * 3 + self.skew();
    }

    fn lead(&mut self, now: Moment) -> Vec<Action> {
        self.state = State::Active;
        self.timer = now + self.configured.interval;
        vec![Action::Advertise(self.configured.priority), Action::Acquire(Reason::ActiveDown)]
    }

    /// At once: neither waits for a successor.
    fn give_up(&mut self, now: Moment) -> Vec<Action> {
        if self.state != State::Active {
            return Vec::new();
        }
        self.active_interval = self.configured.interval;
        self.back_up(now);
        vec![Action::Advertise(Priority::RESIGN), Action::Release(Reason::Resigned)]
    }
}

impl Router for Model {
    fn start(&mut self, now: Moment) -> Vec<Action> {
        if self.configured.priority == Priority::OWNER {
            return self.lead(now);
        }
        self.back_up(now);
        Vec::new()
    }

    fn hear(&mut self, source: IpAddr, heard: &Advertisement, now: Moment) -> Vec<Action> {
        let own = self.configured.priority;
        match self.state {
            State::Stopped => Vec::new(),
            State::Backup if heard.priority.0 == 0 => {
                self.timer = now + self.skew();
                Vec::new()
            }
            State::Backup => {
                if heard.priority >= own || !self.configured.preempt {
                    self.active_interval = heard.interval;
                    self.back_up(now);
                }
                Vec::new()
            }
            State::Active if heard.priority.0 == 0 => {
                self.timer = now + self.configured.interval;
                vec![Action::Advertise(own)]
            }
            State::Active if (heard.priority, source) > (own, self.configured.address) => {
                self.active_interval = heard.interval;
                self.back_up(now);
                let (by, priority) = (source, heard.priority);
                vec![Action::Release(Reason::Outranked { by, priority })]
            }
            State::Active => match self.habits {
                Habits::Keepalived => vec![Action::Advertise(own), Action::Announce],
                Habits::Frr => Vec::new(),
            },
        }
    }

    /// However late: who was Active sends on.
    fn timeout(&mut self, now: Moment) -> Vec<Action> {
        match self.state {
            State::Stopped => Vec::new(),
            State::Backup if self.fault => {
                self.back_up(now);
                Vec::new()
            }
            State::Backup => self.lead(now),
            State::Active => {
                self.timer = now + self.configured.interval;
                vec![Action::Advertise(self.configured.priority)]
            }
        }
    }

    fn resign(&mut self, now: Moment) -> Vec<Action> {
        self.give_up(now)
    }

    fn hold_back(&mut self, held_back: bool, now: Moment) -> Vec<Action> {
        self.fault = held_back;
        if held_back { self.give_up(now) } else { Vec::new() }
    }

    /// Told with the next advertisement.
    fn set_priority(&mut self, priority: Priority, _now: Moment) -> Vec<Action> {
        self.configured.priority = priority;
        Vec::new()
    }

    fn shut_down(&mut self, now: Moment) -> Vec<Action> {
        let actions = self.give_up(now);
        self.state = State::Stopped;
        actions
    }

    fn deadline(&self) -> Option<Moment> {
        (self.state != State::Stopped).then_some(self.timer)
    }

    fn is_active(&self) -> bool {
        self.state == State::Active
    }

    fn holds(&self) -> bool {
        self.is_active()
    }

    fn priority(&self) -> Priority {
        self.configured.priority
    }

    /// The worst that a scheduler of timers and sockets can do after a sleep.
    fn reads_before_timers(&self) -> bool {
        false
    }
}
