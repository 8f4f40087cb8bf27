//! From what was seen of one tracked thing to its state, the reason, and the counts. Pure.

use std::time::SystemTime;

use crate::hysteresis::{Machine, State};

/// What one look found. Either has the reason in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Good(String),
    Bad(Failure),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub kind: Kind,
    pub reason: String,
}

/// Kinds of failure, each counted by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// It was looked at, and is not well.
    Failed,
    /// A script did not end in time.
    TimedOut,
    /// A script was not run: it is missing, or nobody may trust it.
    Refused,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Failed, Self::TimedOut, Self::Refused];

    /// As metrics and the API call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Refused => "refused",
        }
    }
}

/// Since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Looks, whatever they found.
    pub looks: u64,
    pub failed: u64,
    pub timed_out: u64,
    pub refused: u64,
}

impl Counts {
    pub const fn of(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Failed => self.failed,
            Kind::TimedOut => self.timed_out,
            Kind::Refused => self.refused,
        }
    }

    fn note(&mut self, outcome: &Outcome) {
        self.looks += 1;
        match outcome {
            Outcome::Good(_) => {}
            Outcome::Bad(Failure { kind: Kind::Failed, .. }) => self.failed += 1,
            Outcome::Bad(Failure { kind: Kind::TimedOut, .. }) => self.timed_out += 1,
            Outcome::Bad(Failure { kind: Kind::Refused, .. }) => self.refused += 1,
        }
    }
}

/// Hears the outcomes for one thing.
///
/// The first one decides alone: until then nothing is known, and a node that is not known to be
/// well does not take the VIPs.
#[derive(Clone, Debug)]
pub struct Judge {
    rise: u32,
    fall: u32,
    machine: Option<Machine>,
    since: SystemTime,
    reason: String,
    counts: Counts,
    /// Whether the last look was good.
    last: Option<bool>,
}

impl Judge {
    pub fn new(rise: u32, fall: u32, now: SystemTime) -> Self {
        Self {
            rise: rise.max(1),
            fall: fall.max(1),
            machine: None,
            since: now,
            reason: "not looked at yet".to_owned(),
            counts: Counts::default(),
            last: None,
        }
    }

    /// Goes on with what another process of this node knew, unless something was seen already.
    pub fn recall(&mut self, good: bool, reason: String) {
        if self.machine.is_none() {
            let state = if good { State::Healthy } else { State::Down };
            self.machine = Some(Machine::new(state, self.rise, self.fall));
            self.reason = reason;
        }
    }

    /// The same judge by the measures of another one: what it counts towards a change begins anew where they differ.
    pub fn with(&self, measures: &Self) -> Self {
        if (self.rise, self.fall) == (measures.rise, measures.fall) {
            return self.clone();
        }
        let (rise, fall) = (measures.rise, measures.fall);
        let machine = self.machine.as_ref().map(|known| Machine::new(known.state(), rise, fall));
        Self { rise, fall, machine, reason: self.reason.clone(), ..*self }
    }

    /// Takes an outcome. True where it changed the state.
    pub fn hear(&mut self, outcome: Outcome, now: SystemTime) -> bool {
        self.counts.note(&outcome);
        let (good, reason) = match outcome {
            Outcome::Good(reason) => (true, reason),
            Outcome::Bad(failure) => (false, failure.reason),
        };
        self.last = Some(good);
        let changed = match &mut self.machine {
            Some(machine) => machine.observe(good).is_some(),
            None => {
                let state = if good { State::Healthy } else { State::Down };
                self.machine = Some(Machine::new(state, self.rise, self.fall));
                true
            }
        };
        if changed {
            self.since = now;
        }
        self.reason = match &self.machine {
            Some(machine) if machine.against() > 0 => {
                let needed = if good { self.rise } else { self.fall };
                format!("{reason} ({} of {needed} in a row)", machine.against())
            }
            _ => reason,
        };
        changed
    }

    /// Unknown until the first outcome.
    pub fn state(&self) -> State {
        self.machine.as_ref().map_or(State::Unknown, Machine::state)
    }

    /// In that state since.
    pub const fn since(&self) -> SystemTime {
        self.since
    }

    /// What the last look found.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether the last look was good; none before the first.
    pub const fn last_look(&self) -> Option<bool> {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn good() -> Outcome {
        Outcome::Good("well".to_owned())
    }

    fn bad(kind: Kind) -> Outcome {
        Outcome::Bad(Failure { kind, reason: "unwell".to_owned() })
    }

    /// Feeds `looks` ('+' good, '-' bad), one a second, and returns the state after each.
    fn run(judge: &mut Judge, looks: &str) -> Vec<State> {
        let after = |(second, look)| {
            let outcome = if look == '+' { good() } else { bad(Kind::Failed) };
            judge.hear(outcome, UNIX_EPOCH + Duration::from_secs(second));
            judge.state()
        };
        (1..).zip(looks.chars()).map(after).collect()
    }

    #[test]
    fn the_first_look_decides_alone_and_the_others_in_rows() {
        use State::{Down, Healthy};
        for (looks, expected) in [
            ("+", &[Healthy][..]),
            ("-", &[Down]),
            ("+--", &[Healthy, Healthy, Down]),
            ("+-+-", &[Healthy; 4]),
            ("-++", &[Down, Down, Down]),
            ("-+++", &[Down, Down, Down, Healthy]),
            ("-++-++", &[Down; 6]),
        ] {
            let mut judge = Judge::new(3, 2, UNIX_EPOCH);
            assert_eq!(judge.state(), State::Unknown);
            assert_eq!(run(&mut judge, looks), expected, "{looks}");
        }
    }

    #[test]
    fn since_is_when_the_state_changed_not_when_it_was_confirmed() {
        let mut judge = Judge::new(2, 2, UNIX_EPOCH);
        run(&mut judge, "+++--");
        assert_eq!(judge.since(), UNIX_EPOCH + Duration::from_secs(5));
        judge.hear(bad(Kind::Failed), UNIX_EPOCH + Duration::from_secs(9));
        assert_eq!(judge.since(), UNIX_EPOCH + Duration::from_secs(5));
    }

    #[test]
    fn a_reason_says_how_far_a_row_is() {
        let mut judge = Judge::new(3, 2, UNIX_EPOCH);
        assert_eq!(judge.reason(), "not looked at yet");
        for (look, reason) in [
            (good(), "well"),
            (bad(Kind::Failed), "unwell (1 of 2 in a row)"),
            (bad(Kind::Failed), "unwell"),
            (good(), "well (1 of 3 in a row)"),
            (good(), "well (2 of 3 in a row)"),
            (good(), "well"),
        ] {
            judge.hear(look, UNIX_EPOCH);
            assert_eq!(judge.reason(), reason);
        }
    }

    #[test]
    fn every_look_is_counted_and_failures_by_their_kind() {
        let mut judge = Judge::new(1, 1, UNIX_EPOCH);
        for outcome in [
            good(),
            bad(Kind::Failed),
            bad(Kind::TimedOut),
            bad(Kind::TimedOut),
            bad(Kind::Refused),
            bad(Kind::Refused),
            bad(Kind::Refused),
        ] {
            judge.hear(outcome, UNIX_EPOCH);
        }
        assert_eq!(judge.counts().looks, 7);
        assert_eq!(Kind::ALL.map(|kind| judge.counts().of(kind)), [1, 2, 3]);
    }
}
