//! What the world asks of a router, and our machine as one.

use std::net::IpAddr;

use lb_agent::vrrp::identity::Priority;
use lb_agent::vrrp::machine::{Action, Machine, State};
use lb_agent::vrrp::moment::Moment;
use lb_agent::vrrp::packet::Advertisement;

use super::model::{Habits, Model};
use super::scenario::{Kind, Member};

/// A router of one virtual router, awake.
pub(super) trait Router {
    fn start(&mut self, now: Moment) -> Vec<Action>;
    fn hear(&mut self, source: IpAddr, heard: &Advertisement, now: Moment) -> Vec<Action>;
    fn timeout(&mut self, now: Moment) -> Vec<Action>;
    fn resign(&mut self, now: Moment) -> Vec<Action>;
    fn hold_back(&mut self, held_back: bool, now: Moment) -> Vec<Action>;
    fn set_priority(&mut self, priority: Priority, now: Moment) -> Vec<Action>;
    fn shut_down(&mut self, now: Moment) -> Vec<Action>;
    /// When [`timeout`](Self::timeout) is due.
    fn deadline(&self) -> Option<Moment>;
    fn is_active(&self) -> bool;
    /// Whether it answers for the addresses.
    fn holds(&self) -> bool;
    fn priority(&self) -> Priority;
    /// Whether it reads what arrived while it slept before it looks at its timer.
    fn reads_before_timers(&self) -> bool;
}

/// Makes the routers of a scenario. The tests put broken ones among them.
pub(super) type Build = fn(&Member, Moment) -> Box<dyn Router>;

/// A router as its member is configured.
pub(super) fn build(member: &Member, now: Moment) -> Box<dyn Router> {
    let parameters = member.parameters.clone();
    match member.kind {
        Kind::Ours => Box::new(Machine::new(parameters, now)),
        Kind::Keepalived => Box::new(Model::new(Habits::Keepalived, parameters)),
        Kind::Frr => Box::new(Model::new(Habits::Frr, parameters)),
    }
}

impl Router for Machine {
    fn start(&mut self, now: Moment) -> Vec<Action> {
        self.start(now)
    }

    fn hear(&mut self, source: IpAddr, heard: &Advertisement, now: Moment) -> Vec<Action> {
        // All are configured alike: a refusal would show as a second Active router.
        self.hear(source, heard, now).unwrap_or_default()
    }

    fn timeout(&mut self, now: Moment) -> Vec<Action> {
        self.timeout(now)
    }

    fn resign(&mut self, now: Moment) -> Vec<Action> {
        self.resign(now)
    }

    fn hold_back(&mut self, held_back: bool, now: Moment) -> Vec<Action> {
        self.hold_back(held_back, now)
    }

    fn set_priority(&mut self, priority: Priority, now: Moment) -> Vec<Action> {
        self.set_priority(priority, now)
    }

    fn shut_down(&mut self, now: Moment) -> Vec<Action> {
        self.shut_down(now)
    }

    fn deadline(&self) -> Option<Moment> {
        self.deadline()
    }

    fn is_active(&self) -> bool {
        self.state() == State::Active
    }

    fn holds(&self) -> bool {
        self.holds()
    }

    fn priority(&self) -> Priority {
        self.parameters().priority
    }

    fn reads_before_timers(&self) -> bool {
        true
    }
}
