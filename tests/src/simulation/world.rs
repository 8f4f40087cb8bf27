//! One simulation: routers, links and faults in virtual time.
//!
//! Time is a number that only grows, so a step of the wall clock has no effect by construction. The
//! product has the same from `CLOCK_MONOTONIC`.

mod seat;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use lb_agent::vrrp::identity::Priority;
use lb_agent::vrrp::machine::Action;
use lb_agent::vrrp::moment::Moment;
use lb_agent::vrrp::packet::Advertisement;

use self::seat::Seat;
use super::lease::{Cause, Leases};
use super::link::Links;
use super::random::Random;
use super::router::Build;
use super::scenario::{ANNOUNCED_EVERY, Event, Kind, LEASED_FOR, Scenario};
use super::trace::{Trace, What};
use super::watch::{Invariant, Overlaps, Violation, Watch};

/// An advertisement on its way. The first to arrive is the first sent, where they arrive at once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Packet {
    at: Moment,
    sequence: u64,
    from: usize,
    to: usize,
    priority: Priority,
}

/// What one simulation came to.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) events: u64,
    pub(super) overlaps: Overlaps,
    pub(super) violations: Vec<Violation>,
}

pub(super) struct World<'a> {
    scenario: &'a Scenario,
    now: Moment,
    random: Random,
    seats: Vec<Seat>,
    links: Links,
    packets: BinaryHeap<Reverse<Packet>>,
    sequence: u64,
    heard: Advertisement,
    leases: Leases,
    last_announcement: Option<(Moment, usize)>,
    watch: Watch<'a>,
    trace: Trace,
    events: u64,
    healed: bool,
}

impl<'a> World<'a> {
    pub(super) fn new(scenario: &'a Scenario, build: Build) -> Self {
        let seats: Vec<_> =
            scenario.members.iter().map(|member| Seat::new(member.clone(), build)).collect();
        let first = &scenario.members[0].parameters;
        Self {
            scenario,
            now: Moment::default(),
            // Not what the scenario was drawn from.
            random: Random::new(!scenario.seed),
            links: Links::new(scenario.network),
            packets: BinaryHeap::new(),
            sequence: 0,
            heard: Advertisement {
                router_id: first.router_id,
                priority: first.priority,
                interval: first.interval,
                addresses: first.addresses.clone(),
                authentication: first.authentication,
            },
            leases: Leases::new(seats.len()),
            seats,
            last_announcement: None,
            watch: Watch::new(scenario),
            trace: Trace::default(),
            events: 0,
            healed: false,
        }
    }

    pub(super) fn run(mut self) -> Outcome {
        let scenario = self.scenario;
        for &(at, event) in &scenario.events {
            self.advance(at);
            if !self.watch.violations.is_empty() {
                break;
            }
            self.now = at;
            self.happen(event);
        }
        let (events, Watch { overlaps, violations, .. }) = (self.events, self.watch);
        Outcome { events, overlaps, violations }
    }

    /// Carries out what is due before `until`: packets first, so that everything that arrived before
    /// a timer was handed over before it fires.
    fn advance(&mut self, until: Moment) {
        while self.watch.violations.is_empty() {
            let packet = self.packets.peek().map(|Reverse(packet)| packet.at);
            let dues = self.seats.iter().enumerate();
            let due = dues.filter_map(|(index, seat)| Some((seat.due()?, index))).min();
            match (packet, due) {
                (Some(at), due) if at < until && due.is_none_or(|(due, _)| at <= due) => {
                    self.now = at;
                    self.deliver();
                }
                (_, Some((at, router))) if at < until => {
                    // What came due in a sleep is due when it ends.
                    self.now = self.now.max(at);
                    self.wait_is_over(router);
                }
                _ => return,
            }
            self.events += 1;
        }
    }

    fn deliver(&mut self) {
        let Some(Reverse(packet)) = self.packets.pop() else { return };
        let seat = &mut self.seats[packet.to];
        if !seat.alive {
            return;
        }
        if seat.asleep {
            seat.inbox.push((packet.from, packet.priority));
            return;
        }
        self.hear(packet.to, packet.from, packet.priority);
    }

    fn hear(&mut self, router: usize, from: usize, priority: Priority) {
        self.trace.note(self.now, Some(router), What::Hears { from, priority: priority.0 });
        let sender = &self.scenario.members[from].parameters;
        self.heard.priority = priority;
        self.heard.interval = sender.interval;
        self.seats[router].note_heard(from, priority, self.now);
        let actions = self.seats[router].router.hear(sender.address, &self.heard, self.now);
        self.act(router, &actions);
    }

    fn wait_is_over(&mut self, router: usize) {
        let seat = &mut self.seats[router];
        if seat.announces_at.is_some_and(|at| at <= self.now) {
            self.act(router, &[Action::Announce]);
            return;
        }
        self.fire(router);
    }

    fn fire(&mut self, router: usize) {
        self.trace.note(self.now, Some(router), What::TimerFires);
        let actions = self.seats[router].router.timeout(self.now);
        self.act(router, &actions);
        if self.seats[router].router.deadline().is_some_and(|at| at <= self.now) {
            let text = format!("router {router} waits for what was");
            self.watch.fail(Invariant::HasADeadline, text, &self.trace);
        }
    }

    /// Carries out what a router wants done, and looks at what it is then.
    fn act(&mut self, router: usize, actions: &[Action]) {
        for &action in actions {
            self.trace.note(self.now, Some(router), What::Does(action));
            match action {
                Action::Advertise(priority) => self.send(router, priority),
                Action::Acquire(reason) => {
                    self.announce(router);
                    self.leases.decide(router, self.now);
                    self.seats[router].became_active = Some((self.now, reason));
                    self.renew(router, true);
                }
                Action::Release(_) => {
                    self.seats[router].announces_at = None;
                    self.leases.revoke(router, self.now);
                }
                Action::Announce => self.announce(router),
            }
        }
        let seat = &mut self.seats[router];
        if !seat.router.is_active() {
            seat.announces_at = None;
        }
        if seat.alive && seat.router.deadline().is_none() {
            let text = format!("router {router} waits for nothing");
            self.watch.fail(Invariant::HasADeadline, text, &self.trace);
        }
        self.watch.look(router, seat.router.is_active(), &self.trace);
        if !actions.is_empty() {
            self.overlaps(false);
        }
    }

    fn send(&mut self, from: usize, priority: Priority) {
        self.seats[from].last_sent = Some(self.now);
        for to in (0..self.seats.len()).filter(|to| *to != from) {
            let arrivals = self.links.arrivals(from, to, self.now, &mut self.random);
            if arrivals == [None, None] {
                self.trace.note(self.now, Some(from), What::Lost { to });
            }
            for at in arrivals.into_iter().flatten() {
                self.sequence += 1;
                let sequence = self.sequence;
                self.packets.push(Reverse(Packet { at, sequence, from, to, priority }));
            }
        }
    }

    fn announce(&mut self, router: usize) {
        let seat = &mut self.seats[router];
        self.last_announcement = Some((self.now, router));
        if seat.member.kind == Kind::Ours && seat.router.is_active() {
            let interval = seat.member.parameters.interval;
            seat.announces_at = Some(self.now + interval * ANNOUNCED_EVERY);
        }
    }

    fn renew(&mut self, router: usize, acquired: bool) {
        if self.seats[router].member.kind == Kind::Ours {
            let (seats, now, delay) = (&self.seats, self.now, self.scenario.network.delay);
            let cause = |old| seat::cause(seats, (old, router), acquired, now, delay);
            self.leases.renew(router, now, cause);
        }
    }

    fn overlaps(&mut self, at_the_end: bool) {
        let mut overlaps = self.leases.take_closed(self.now);
        if at_the_end {
            overlaps.extend(self.leases.open(self.now));
        }
        for overlap in overlaps {
            self.watch.overlap(overlap, &self.trace);
        }
    }

    fn happen(&mut self, event: Event) {
        self.trace.note(self.now, None, What::Happens(event));
        match event {
            Event::Start(router) => self.start(router),
            Event::Crash(router) => self.crash(router),
            Event::ShutDown(router) => self.order(router, |seat, now| {
                seat.alive = false;
                seat.router.shut_down(now)
            }),
            Event::Stall(router) => self.stall(router),
            Event::Wake(router) => self.wake(router),
            Event::Resign(router) => self.order(router, |seat, now| seat.router.resign(now)),
            Event::HoldBack(router, held_back) => {
                self.order(router, |seat, now| seat.router.hold_back(held_back, now));
            }
            Event::SetPriority(router, priority) => {
                self.leases.decide(router, self.now);
                self.order(router, |seat, now| seat.router.set_priority(Priority(priority), now));
            }
            Event::Block(from, to, blocked) => self.links.block(from, to, blocked),
            Event::Roughen => {
                self.links.roughen();
                self.watch.roughen(self.scenario.is_gentle());
            }
            Event::Heal => self.heal(),
            Event::Settled => self.settle(),
            Event::End => self.end(),
        }
    }
}
