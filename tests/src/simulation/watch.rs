//! What must hold, and what did not.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use lb_agent::vrrp::machine::Rivals;
use lb_agent::vrrp::moment::Moment;

use super::lease::{Cause, Overlap};
use super::scenario::{LEASED_FOR, Member, Scenario};
use super::trace::Trace;

/// What must hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Invariant {
    /// Once healed, and a bound later, one router is Active and stays so.
    OneActiveOnceHealed,
    /// The same before anything goes wrong.
    OneActiveFromTheStart,
    /// The link believes the Active router.
    LastAnnouncerIsActive,
    /// Two leases are not valid at once.
    LeasesDoNotOverlap,
    /// A router that takes part waits for something that is yet to come.
    HasADeadline,
    /// Where the best router preempts, it or an equal one is Active in the end.
    BestIsActive,
    /// Nothing panics.
    NoPanic,
}

/// One that did not hold.
#[derive(Clone, Debug)]
pub struct Violation {
    pub invariant: Invariant,
    /// Of the scenario: `lb-lab simulate --seed SEED --scenarios 1` shows it again.
    pub seed: u64,
    pub text: String,
    /// Who took part.
    pub members: Vec<String>,
    /// What happened last.
    pub trace: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {:?}: {}", self.seed, self.invariant, self.text)?;
        self.members.iter().chain(&self.trace).try_for_each(|line| writeln!(f, "    {line}"))
    }
}

/// How leases overlapped where the protocol cannot help it.
#[derive(Clone, Copy, Default, Debug)]
pub struct Count {
    pub times: u64,
    /// The longest, in intervals.
    pub longest: f64,
}

impl Count {
    pub(super) fn add(&mut self, other: Self) {
        self.times += other.times;
        self.longest = self.longest.max(other.longest);
    }
}

/// By cause, and whether one of the two slept or was dead meanwhile.
pub type Overlaps = BTreeMap<(Cause, bool), Count>;

pub(super) struct Watch<'a> {
    seed: u64,
    members: &'a [Member],
    interval: Duration,
    delay: Duration,
    /// Leases are looked at until something is lost.
    leases: bool,
    /// From the start, or from healing on, one router is Active for good.
    settled: Option<(Invariant, usize)>,
    pub(super) overlaps: Overlaps,
    pub(super) violations: Vec<Violation>,
}

impl<'a> Watch<'a> {
    pub(super) fn new(scenario: &'a Scenario) -> Self {
        Self {
            seed: scenario.seed,
            members: &scenario.members,
            interval: scenario.interval(),
            delay: scenario.network.delay,
            leases: scenario.has_one_interval(),
            settled: None,
            overlaps: Overlaps::new(),
            violations: Vec::new(),
        }
    }

    pub(super) fn fail(&mut self, invariant: Invariant, text: String, trace: &Trace) {
        // One tells the story; what follows from it would bury it.
        if self.violations.is_empty() {
            let (seed, trace) = (self.seed, trace.lines());
            let members = self.members.iter().enumerate();
            let members = members.map(|(index, member)| format!("router {index}: {member}"));
            let members = members.collect();
            self.violations.push(Violation { invariant, seed, text, members, trace });
        }
    }

    /// Something goes wrong from now on.
    pub(super) fn roughen(&mut self, is_gentle: bool) {
        self.settled = None;
        self.leases &= is_gentle;
    }

    /// One router must be Active now, and stay so.
    pub(super) fn settle(&mut self, invariant: Invariant, active: &[usize], trace: &Trace) {
        match active {
            [one] => self.settled = Some((invariant, *one)),
            _ => self.fail(invariant, format!("Active are {active:?} when all is settled"), trace),
        }
    }

    /// After anything that a router did.
    pub(super) fn look(&mut self, router: usize, is_active: bool, trace: &Trace) {
        if let Some((invariant, active)) = self.settled
            && is_active != (router == active)
        {
            let becomes = if is_active { "becomes" } else { "is no longer" };
            let text = format!("router {active} was Active for good, and {router} {becomes} so");
            self.fail(invariant, text, trace);
        }
    }

    pub(super) fn overlap(&mut self, overlap: Overlap, trace: &Trace) {
        if !self.leases {
            return;
        }
        let Overlap { old, new, cause, since, decided, lasted, asleep } = overlap;
        // Until the other one hears of it.
        let hears = decided.since(since) + self.delay;
        let rivals = [old, new].map(|router| self.members[router].parameters.rivals);
        let silent = rivals.contains(&Rivals::Ignore);
        let yields = match cause {
            // It hears the answer; or, where there is none, the next advertisement.
            Cause::LoweredMeanwhile | Cause::StaleResignation if silent => hears + self.interval,
            Cause::LoweredMeanwhile | Cause::StaleResignation => hears + self.delay,
            _ => hears,
        };
        let allowed = match (cause, asleep) {
            (Cause::Unexplained, _) => Duration::ZERO,
            // Who fell asleep before it heard yields when its lease has run out.
            (_, true) => yields + self.interval * LEASED_FOR,
            (_, false) => yields,
        };
        if lasted > allowed {
            let asleep = if asleep { ", one of them asleep or dead" } else { "" };
            let text = format!(
                "leases of {old} and {new} overlap by {lasted:?} from {since} on{asleep}; {allowed:?} \
                 is allowed for {cause:?} with an interval of {:?} and delays to {:?}",
                self.interval, self.delay
            );
            self.fail(Invariant::LeasesDoNotOverlap, text, trace);
        }
        let longest = lasted.as_secs_f64() / self.interval.as_secs_f64();
        self.overlaps.entry((cause, asleep)).or_default().add(Count { times: 1, longest });
    }

    /// The link believes whom it heard last.
    pub(super) fn announced(&mut self, last: Option<(Moment, usize)>, trace: &Trace) {
        let Some((_, active)) = self.settled else { return };
        if last.is_none_or(|(_, by)| by != active) {
            let text = format!("router {active} is Active, and the last announcement is {last:?}");
            self.fail(Invariant::LastAnnouncerIsActive, text, trace);
        }
    }
}
