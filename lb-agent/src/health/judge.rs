//! From the outcomes of checks to a verdict with its reason in words. Pure.

use super::{Schedule, State};
use crate::hysteresis::Machine;

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The target is well. Says what it answered, and how fast.
    Passed(String),
    /// It is not, or did not answer. Says why.
    Failed(String),
    /// This node could not even ask; says nothing about the target, and counts neither way. Were
    /// it a failure, an agent short of file descriptors would take every backend down.
    NotChecked(String),
}

/// A state, and what led to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) state: State,
    pub(super) reason: String,
}

/// Hears the outcomes for one target.
#[derive(Debug)]
pub(super) struct Judge {
    machine: Machine,
    /// The last failure, and how many times in a row it was that one.
    failure: Option<(String, u32)>,
}

impl Judge {
    /// `known` is what an earlier schedule found out about the same address.
    pub(super) fn new(schedule: &Schedule, known: State) -> Self {
        Self { machine: Machine::new(known, schedule.rise, schedule.fall), failure: None }
    }

    /// Takes an outcome; returns a verdict if it changed the state.
    pub(super) fn hear(&mut self, outcome: Outcome) -> Option<Verdict> {
        let reason = match outcome {
            Outcome::NotChecked(_) => return None,
            Outcome::Passed(what) => {
                self.failure = None;
                let row = self.machine.observe(true)?;
                in_a_row(&what, row, row)
            }
            Outcome::Failed(why) => {
                let same = match self.failure.take() {
                    Some((last, same)) if last == why => same.saturating_add(1),
                    _ => 1,
                };
                let row = self.machine.observe(false);
                let reason = row.map(|row| in_a_row(&why, row, same));
                self.failure = Some((why, same));
                reason?
            }
        };
        Some(Verdict { state: self.machine.state(), reason })
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
        Judge::new(&Schedule { interval: second, timeout: second, rise, fall }, known)
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
    fn a_check_that_could_not_be_made_counts_neither_way() {
        let not_checked = || Outcome::NotChecked("too many open files".to_owned());
        assert_eq!(last(&mut judge(State::Unknown, 1, 1), vec![not_checked()]), None);
        let outcomes = vec![failed("x"), not_checked(), failed("x")];
        let (state, _) = last(&mut judge(State::Healthy, 1, 2), outcomes).unwrap();
        assert_eq!(state, State::Down);
    }
}
