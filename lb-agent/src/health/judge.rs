//! From the outcomes of checks to a verdict with its reason in words. Pure.

use super::{Schedule, Silence, State};
use crate::hysteresis::Machine;

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The target is well. Says what it answered, and how fast.
    Passed(String),
    /// It is not. Says why.
    Failed(String),
    /// It took the connection, and did not answer in time.
    Silent(String),
    /// Nothing came back at all.
    Unreachable(String),
    /// This node could not even ask; says nothing about the target, and counts neither way. Were
    /// it a failure, an agent short of file descriptors would take every backend down.
    NotChecked(String),
}

/// A state, and what led to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) state: State,
    pub(super) reason: String,
    pub(super) silence: Silence,
}

/// Hears the outcomes for one target.
#[derive(Debug)]
pub(super) struct Judge {
    machine: Machine,
    /// The last failure, and how many times in a row it was that one.
    failure: Option<(String, u32)>,
    silences: Silences,
}

/// For how many checks in a row a target was how silent.
#[derive(Debug)]
struct Silences {
    unreachable: u32,
    /// Those too.
    silent: u32,
    /// So many are to be believed.
    fall: u32,
}

impl Silences {
    fn hear(&mut self, silence: Silence) {
        let row = |count: u32, goes_on: bool| if goes_on { count.saturating_add(1) } else { 0 };
        self.unreachable = row(self.unreachable, silence <= Silence::Unreachable);
        self.silent = row(self.silent, silence <= Silence::Silent);
    }

    fn now(&self) -> Silence {
        if self.unreachable >= self.fall {
            Silence::Unreachable
        } else if self.silent >= self.fall {
            Silence::Silent
        } else {
            Silence::None
        }
    }
}

impl Judge {
    /// `known` is what an earlier schedule found out about the same address.
    pub(super) fn new(schedule: &Schedule, known: State, silence: Silence) -> Self {
        let fall = schedule.fall.max(1);
        let row = |is_so: bool| if is_so { fall } else { 0 };
        let silences = Silences {
            unreachable: row(silence <= Silence::Unreachable),
            silent: row(silence <= Silence::Silent),
            fall,
        };
        Self { machine: Machine::new(known, schedule.rise, fall), failure: None, silences }
    }

    /// Takes an outcome; returns a verdict if it changed the state, or how silent a target is that is down.
    pub(super) fn hear(&mut self, outcome: Outcome) -> Option<Verdict> {
        let (passed, what, silence) = match outcome {
            Outcome::NotChecked(_) => return None,
            Outcome::Passed(what) => (true, what, Silence::None),
            Outcome::Failed(why) => (false, why, Silence::None),
            Outcome::Silent(why) => (false, why, Silence::Silent),
            Outcome::Unreachable(why) => (false, why, Silence::Unreachable),
        };
        let before = self.silences.now();
        self.silences.hear(silence);
        let silence = self.silences.now();
        let row = self.machine.observe(passed);
        let same = self.same(passed, &what);
        let state = self.machine.state();
        let reason = match row {
            Some(row) => in_a_row(&what, row, if passed { row } else { same }),
            None if state == State::Down && silence != before => in_a_row(&what, same, same),
            None => return None,
        };
        Some(Verdict { state, reason, silence })
    }

    /// For how many checks in a row it failed in this way.
    fn same(&mut self, passed: bool, why: &str) -> u32 {
        let same = match self.failure.take() {
            _ if passed => return 0,
            Some((last, same)) if last == why => same.saturating_add(1),
            _ => 1,
        };
        self.failure = Some((why.to_owned(), same));
        same
    }
}

/// `row` results in a row, of which the last `same` were `what`.
fn in_a_row(what: &str, row: u32, same: u32) -> String {
    match row {
        1 => what.to_owned(),
        _ if same >= row => format!("{what}, {row} times in a row"),
        _ => format!("{what}, the last of {row} failures in a row"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn judge(known: State, rise: u32, fall: u32) -> Judge {
        let second = Duration::from_secs(1);
        let schedule = Schedule { interval: second, timeout: second, rise, fall };
        Judge::new(&schedule, known, Silence::None)
    }

    fn failed(why: &str) -> Outcome {
        Outcome::Failed(why.to_owned())
    }

    fn connected() -> Outcome {
        Outcome::Passed("connected in 0.4 ms".to_owned())
    }

    fn last(judge: &mut Judge, outcomes: Vec<Outcome>) -> Option<(State, String)> {
        let verdicts = outcomes.into_iter().map(|outcome| judge.hear(outcome)).collect::<Vec<_>>();
        let (last, before) = verdicts.split_last().unwrap();
        assert!(before.iter().all(Option::is_none), "{before:?}");
        last.clone().map(|v| (v.state, v.reason))
    }

    #[test]
    fn reasons_name_the_result_and_how_often_it_came() {
        let refused = || failed("connection refused");
        let silent = || failed("no answer within 1s");
        let rows = [
            (State::Unknown, vec![connected()], "connected in 0.4 ms"),
            (State::Down, vec![connected(); 2], "connected in 0.4 ms, 2 times in a row"),
            (State::Healthy, vec![refused(); 3], "connection refused, 3 times in a row"),
            (
                State::Healthy,
                vec![silent(), refused(), refused()],
                "connection refused, the last of 3 failures in a row",
            ),
            (
                State::Unknown,
                vec![refused(), refused(), silent()],
                "no answer within 1s, the last of 3 failures in a row",
            ),
        ];
        for (known, outcomes, reason) in rows {
            let (_, said) = last(&mut judge(known, 2, 3), outcomes).expect(reason);
            assert_eq!(said, reason);
        }
        assert_eq!(
            last(&mut judge(State::Healthy, 2, 1), vec![refused()]),
            Some((State::Down, "connection refused".to_owned()))
        );
    }

    #[test]
    fn same_failures_before_a_success_are_another_row() {
        let refused = || failed("connection refused");
        let silent = || failed("no answer within 1s");
        let outcomes = vec![refused(), refused(), connected(), silent(), refused(), refused()];
        let (_, said) = last(&mut judge(State::Healthy, 2, 3), outcomes).unwrap();
        assert_eq!(said, "connection refused, the last of 3 failures in a row");
    }

    #[test]
    fn a_target_is_as_silent_as_its_last_checks_were() {
        let gone = || Outcome::Unreachable("no answer within 1s".to_owned());
        let hangs = || Outcome::Silent("connected, but no answer in time".to_owned());
        let refused = || failed("connection refused");
        let rows = [
            (vec![refused(); 3], Silence::None),
            (vec![gone(); 3], Silence::Unreachable),
            (vec![gone(), hangs(), gone()], Silence::Silent),
            (vec![gone(), refused(), gone()], Silence::None),
        ];
        for (outcomes, silence) in rows {
            let mut judge = judge(State::Healthy, 2, 3);
            let verdicts = outcomes.into_iter().filter_map(|outcome| judge.hear(outcome));
            assert_eq!(verdicts.last().map(|verdict| verdict.silence), Some(silence));
        }
    }

    #[test]
    fn one_that_is_down_and_then_gone_is_told_of_again() {
        let gone = || Outcome::Unreachable("no answer within 1s".to_owned());
        let mut judge = judge(State::Healthy, 2, 3);
        let outcomes = [failed("x"), failed("x"), failed("x"), gone(), gone(), gone(), gone()];
        let told: Vec<_> = outcomes.into_iter().map(|outcome| judge.hear(outcome)).collect();
        let told = told.iter().map(|verdict| verdict.as_ref().map(|it| (it.state, it.silence)));
        let (down, gone) = ((State::Down, Silence::None), (State::Down, Silence::Unreachable));
        assert!(told.eq([None, None, Some(down), None, None, Some(gone), None]));
    }

    #[test]
    fn a_check_that_could_not_be_made_counts_neither_way() {
        let not_checked = || Outcome::NotChecked("too many open files".to_owned());
        assert_eq!(last(&mut judge(State::Unknown, 1, 1), vec![not_checked()]), None);
        let outcomes = vec![failed("x"), not_checked(), failed("x")];
        let (state, _) = last(&mut judge(State::Healthy, 1, 2), outcomes).unwrap();
        assert_eq!(state, State::Down);
    }
}
