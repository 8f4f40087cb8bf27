//! A router in the world, and what may happen to it.

use std::time::Duration;

use lb_agent::vrrp::identity::Priority;
use lb_agent::vrrp::machine::{Action, Reason};
use lb_agent::vrrp::moment::Moment;

use super::{Cause, Event, Invariant, Kind, LEASED_FOR, What, World};
use crate::simulation::router::{Build, Router};
use crate::simulation::scenario::{MOST_ROUTERS, Member};

pub(super) struct Seat {
    pub(super) member: Member,
    build: Build,
    pub(super) router: Box<dyn Router>,
    pub(super) alive: bool,
    pub(super) asleep: bool,
    /// Senders and priorities of what arrived while it slept.
    pub(super) inbox: Vec<(usize, Priority)>,
    pub(super) announces_at: Option<Moment>,
    pub(super) became_active: Option<(Moment, Reason)>,
    pub(super) last_sent: Option<Moment>,
    /// When it heard a resignation last.
    resigned: Option<Moment>,
    /// For each router, when it was heard last as an Active one, and whether it had a lower priority.
    heard: [Option<(Moment, bool)>; MOST_ROUTERS],
}

impl Seat {
    pub(super) fn new(member: Member, build: Build) -> Self {
        let router = build(&member, Moment::default());
        Self {
            member,
            build,
            router,
            alive: false,
            asleep: false,
            inbox: Vec::new(),
            announces_at: None,
            became_active: None,
            last_sent: None,
            resigned: None,
            heard: Default::default(),
        }
    }

    pub(super) fn note_heard(&mut self, from: usize, priority: Priority, now: Moment) {
        if priority == Priority::RESIGN {
            self.resigned = Some(now);
        } else {
            self.heard[from] = Some((now, priority < self.router.priority()));
        }
    }

    fn preempts(&self) -> bool {
        let parameters = &self.member.parameters;
        parameters.preempt || parameters.priority == Priority::OWNER
    }

    /// Why it became Active although it knows of another, of the same or a higher priority.
    fn intrudes_on(&self, index: usize, other: &Self) -> Option<Cause> {
        let (at, was_lower) = self.heard[index]?;
        let (since, _) = other.became_active?;
        let (_, reason) = self.became_active?;
        if at < since {
            None
        } else if reason == Reason::ActiveResigned {
            Some(Cause::StaleResignation)
        } else {
            let runs_on = self.member.kind != Kind::Ours && self.preempts();
            (was_lower && runs_on).then_some(Cause::LoweredMeanwhile)
        }
    }

    fn is_awake(&self) -> bool {
        self.alive && !self.asleep
    }

    /// When it does something of itself.
    pub(super) fn due(&self) -> Option<Moment> {
        if !self.is_awake() {
            return None;
        }
        [self.announces_at, self.router.deadline()].into_iter().flatten().min()
    }
}

/// Why the lease of `new` begins while that of `old` is valid. `acquired`: it becomes Active;
/// otherwise it woke, and its lease had run out meanwhile.
pub(super) fn cause(
    seats: &[Seat],
    (old, new): (usize, usize),
    acquired: bool,
    now: Moment,
    delay: Duration,
) -> Cause {
    let (before, after) = (&seats[old], &seats[new]);
    let under_way = |sent: Moment| now.since(sent) <= delay;
    let (intruder, incumbent) = if acquired { (new, old) } else { (old, new) };
    let intrusion = seats[intruder].intrudes_on(incumbent, &seats[incumbent]);
    // The longest, of version 2 with one second as well.
    let skew = after.member.parameters.interval;
    let may_preempt = |one: usize, other: usize| {
        let outranks = seats[one].router.priority() > seats[other].router.priority();
        outranks && seats[one].preempts()
    };
    let since = before.became_active.map(|(at, _)| at);
    let follows = matches!(after.became_active, Some((_, Reason::ActiveResigned)));
    let another_between = seats.iter().enumerate().any(|(index, seat)| {
        index != old && index != new && seat.became_active.map(|(at, _)| at) > since
    });
    if acquired && !before.router.is_active() && before.router.holds() {
        Cause::HandingOver
    } else if let Some(cause) = intrusion.filter(|_| !may_preempt(intruder, incumbent)) {
        cause
    } else if since.is_some_and(under_way) {
        Cause::Race
    } else if !acquired {
        Cause::Unexplained
    } else if may_preempt(new, old) || follows && another_between {
        Cause::Preemption
    } else if follows && after.resigned.is_some_and(|at| now.since(at) <= skew) {
        Cause::StaleResignation
    } else if before.last_sent.is_some_and(under_way) {
        Cause::LateAdvertisement
    } else {
        Cause::Unexplained
    }
}

/// What happens to routers.
impl World<'_> {
    pub(super) fn start(&mut self, router: usize) {
        let seat = &mut self.seats[router];
        if seat.alive {
            return;
        }
        seat.alive = true;
        seat.router = (seat.build)(&seat.member, self.now);
        // What its predecessor left behind is removed first.
        self.leases.revoke(router, self.now);
        self.trace.note(self.now, Some(router), What::Started);
        let actions = self.seats[router].router.start(self.now);
        self.act(router, &actions);
    }

    pub(super) fn crash(&mut self, router: usize) {
        self.leave(router);
        let seat = &mut self.seats[router];
        seat.alive = false;
        seat.asleep = false;
        seat.inbox.clear();
        seat.announces_at = None;
    }

    /// It no longer renews its lease.
    fn leave(&mut self, router: usize) {
        let lasts = self.seats[router].member.parameters.interval * LEASED_FOR;
        self.leases.leave(router, self.now, lasts);
    }

    pub(super) fn stall(&mut self, router: usize) {
        if self.seats[router].is_awake() {
            self.leave(router);
            self.seats[router].asleep = true;
        }
    }

    /// The driver hands over what arrived, then looks at the timer, then renews the lease.
    pub(super) fn wake(&mut self, router: usize) {
        let seat = &mut self.seats[router];
        if !seat.asleep {
            return;
        }
        seat.asleep = false;
        let (inbox, reads_first) =
            (std::mem::take(&mut seat.inbox), seat.router.reads_before_timers());
        self.trace.note(self.now, Some(router), What::Wakes);
        if !reads_first {
            self.fire_if_due(router);
        }
        for (from, priority) in inbox {
            self.hear(router, from, priority);
        }
        self.fire_if_due(router);
        if self.seats[router].router.holds() {
            self.renew(router, false);
        }
    }

    fn fire_if_due(&mut self, router: usize) {
        if self.seats[router].router.deadline().is_some_and(|at| at <= self.now) {
            self.fire(router);
        }
    }

    /// Somebody tells the router something. One that sleeps or is dead does not hear it.
    pub(super) fn order(
        &mut self,
        router: usize,
        order: impl FnOnce(&mut Seat, Moment) -> Vec<Action>,
    ) {
        if !self.seats[router].is_awake() {
            return;
        }
        let actions = order(&mut self.seats[router], self.now);
        self.act(router, &actions);
    }

    pub(super) fn heal(&mut self) {
        self.links.heal();
        self.healed = true;
        for router in 0..self.seats.len() {
            if !self.scenario.gone.contains(&router) {
                self.start(router);
            }
            self.wake(router);
            self.happen(Event::HoldBack(router, false));
        }
    }

    pub(super) fn settle(&mut self) {
        let invariant = if self.healed {
            Invariant::OneActiveOnceHealed
        } else {
            Invariant::OneActiveFromTheStart
        };
        let living = || self.seats.iter().enumerate().filter(|(_, seat)| seat.alive);
        let active: Vec<_> =
            living().filter(|(_, seat)| seat.router.is_active()).map(|(index, _)| index).collect();
        let best = living().map(|(_, seat)| seat.router.priority()).max();
        let best_preempts = living().any(|(_, seat)| {
            let preempts = seat.member.parameters.preempt || best == Some(Priority::OWNER);
            preempts && Some(seat.router.priority()) == best
        });
        self.watch.settle(invariant, &active, &self.trace);
        if let [active] = active[..]
            && best_preempts
            && Some(self.seats[active].router.priority()) != best
        {
            let text = format!("router {active} is Active, and not the best");
            self.watch.fail(Invariant::BestIsActive, text, &self.trace);
        }
    }

    pub(super) fn end(&mut self) {
        self.overlaps(true);
        let active = self.seats.iter().find(|seat| seat.alive && seat.router.is_active());
        // The others do not announce again of themselves: the link may believe a rival of theirs
        // that yielded until it asks anew. So it is with the real ones.
        if active.is_some_and(|seat| seat.member.kind == Kind::Ours) {
            self.watch.announced(self.last_announcement, &self.trace);
        }
    }
}
