//! The checker can fail: routers that break a rule are found.

use std::net::IpAddr;

use lb_agent::vrrp::identity::Priority;
use lb_agent::vrrp::machine::{Action, Machine};
use lb_agent::vrrp::moment::Moment;
use lb_agent::vrrp::packet::Advertisement;

use super::router::{Build, Router, build};
use super::runner::{run_with, simulate};
use super::scenario::{Kind, Member};
use super::watch::Invariant;

/// How ours is broken.
#[derive(Clone, Copy, PartialEq)]
enum Flaw {
    NeverYields,
    /// It does what it should have done while it slept, as if it were still then.
    IgnoresItsSleep,
    Panics,
}

struct Broken {
    machine: Machine,
    flaw: Flaw,
}

impl Router for Broken {
    fn start(&mut self, now: Moment) -> Vec<Action> {
        self.machine.start(now)
    }

    fn hear(&mut self, source: IpAddr, heard: &Advertisement, now: Moment) -> Vec<Action> {
        let mut actions = Vec::new();
        match self.flaw {
            Flaw::NeverYields if Router::is_active(&self.machine) => return Vec::new(),
            Flaw::IgnoresItsSleep => actions = self.timeout(now),
            Flaw::Panics if heard.priority == Priority::RESIGN => panic!("a resignation"),
            _ => {}
        }
        actions.extend(Router::hear(&mut self.machine, source, heard, now));
        actions
    }

    fn timeout(&mut self, now: Moment) -> Vec<Action> {
        if self.flaw != Flaw::IgnoresItsSleep {
            return self.machine.timeout(now);
        }
        let mut actions = Vec::new();
        while let Some(at) = self.machine.deadline().filter(|at| *at <= now) {
            actions.extend(self.machine.timeout(at));
        }
        actions
    }

    fn resign(&mut self, now: Moment) -> Vec<Action> {
        self.machine.resign(now)
    }

    fn hold_back(&mut self, held_back: bool, now: Moment) -> Vec<Action> {
        self.machine.hold_back(held_back, now)
    }

    fn set_priority(&mut self, priority: Priority, now: Moment) -> Vec<Action> {
        self.machine.set_priority(priority, now)
    }

    fn shut_down(&mut self, now: Moment) -> Vec<Action> {
        self.machine.shut_down(now)
    }

    fn deadline(&self) -> Option<Moment> {
        self.machine.deadline()
    }

    fn is_active(&self) -> bool {
        Router::is_active(&self.machine)
    }

    fn holds(&self) -> bool {
        self.machine.holds()
    }

    fn priority(&self) -> Priority {
        self.machine.priority()
    }

    fn reads_before_timers(&self) -> bool {
        true
    }
}

fn broken(member: &Member, now: Moment, flaw: Flaw) -> Box<dyn Router> {
    match member.kind {
        Kind::Ours => {
            let machine = Machine::new(member.parameters.clone(), now);
            Box::new(Broken { machine, flaw })
        }
        _ => build(member, now),
    }
}

/// The invariants that such routers break in a thousand scenarios.
fn found(build: Build) -> Vec<Invariant> {
    let outcomes = (0..1000).map(|seed| simulate(build, seed));
    outcomes.flat_map(|outcome| outcome.violations).map(|violation| violation.invariant).collect()
}

#[test]
fn a_router_that_never_yields_is_found() {
    let found = found(|member, now| broken(member, now, Flaw::NeverYields));
    assert!(found.contains(&Invariant::OneActiveOnceHealed), "{found:?}");
    assert!(found.contains(&Invariant::LeasesDoNotOverlap), "{found:?}");
}

#[test]
fn a_router_that_ignores_its_sleep_is_found() {
    let found = found(|member, now| broken(member, now, Flaw::IgnoresItsSleep));
    assert!(found.contains(&Invariant::LeasesDoNotOverlap), "{found:?}");
}

#[test]
fn a_panic_is_found_with_its_text() {
    let outcomes =
        (0..1000).map(|seed| simulate(|member, now| broken(member, now, Flaw::Panics), seed));
    let violation = outcomes.flat_map(|outcome| outcome.violations).next().unwrap();
    assert_eq!((violation.invariant, &*violation.text), (Invariant::NoPanic, "a resignation"));
}

#[test]
fn a_seed_is_the_same_simulation_every_time_on_however_many_cores() {
    let one = run_with(build, 7, 600, |_| {});
    let other = run_with(build, 7, 600, |_| {});
    assert_eq!((one.scenarios, one.events), (600, other.events));
    assert_eq!(format!("{:?}", one.overlaps), format!("{:?}", other.overlaps));
}
