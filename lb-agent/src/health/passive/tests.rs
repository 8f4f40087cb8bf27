//! What puts a backend out by its clients' connections, and what brings it back.

use proptest::prelude::*;

use super::Failure::{Refused, Unanswered};
use super::*;

const RULES: Rules = Rules { max_fails: 3, fail_timeout: Duration::from_secs(30), checks: None };
const CHECKED: Rules = Rules { checks: Some((2, Duration::from_secs(2))), ..RULES };

/// A witness and a clock that stands still between steps.
struct Trial {
    witness: Witness,
    rules: Rules,
    now: Instant,
}

impl Trial {
    fn new(rules: Rules) -> Self {
        Self { witness: Witness::default(), rules, now: Instant::now() }
    }

    fn after_ms(&mut self, ms: u64) -> &mut Self {
        self.now += Duration::from_millis(ms);
        self.witness.pass(self.now, &self.rules);
        self
    }

    fn failed(&mut self, failure: Failure, count: u64) -> &mut Self {
        self.witness.failed(failure, count, self.now, &self.rules);
        self
    }

    /// A check is wanted, and finds this.
    fn look(&mut self, outcome: Result<(), &str>) -> &mut Self {
        assert!(self.witness.takes_look(self.now), "no check is wanted");
        self.witness.looked(Some(outcome), self.now, &self.rules);
        self
    }

    fn says(&mut self, reason: Option<&str>) -> &mut Self {
        assert_eq!(self.witness.reason(), reason);
        self
    }

    fn wants_look(&mut self) -> bool {
        self.witness.takes_look(self.now)
    }
}

const REFUSED: Option<&str> = Some("refused 3 of its last connections within 30s");
const AGAIN: Option<&str> = Some("refused again when it was tried after 30s");

#[test]
fn the_third_refusal_puts_it_out() {
    let mut trial = Trial::new(RULES);
    trial.failed(Refused, 1).after_ms(10_000).failed(Refused, 1).says(None);
    trial.after_ms(10_000).failed(Refused, 1).says(REFUSED);
}

#[test]
fn many_at_once_are_as_good_as_one_after_the_other() {
    Trial::new(RULES).failed(Refused, 1_000_000).says(REFUSED);
}

#[test]
fn refusals_that_lie_further_apart_do_not() {
    let mut trial = Trial::new(RULES);
    for _ in 0..10 {
        trial.failed(Refused, 1).after_ms(15_000).says(None);
    }
}

#[test]
fn it_is_tried_after_fail_timeout_and_one_refusal_is_then_enough() {
    let mut trial = Trial::new(RULES);
    trial.failed(Refused, 3).after_ms(29_999).says(REFUSED);
    assert_eq!(trial.witness.next(), Some(trial.now + Duration::from_millis(1)));
    trial.after_ms(1).says(None).failed(Refused, 1).says(AGAIN);
    trial.after_ms(30_000).says(None).after_ms(30_000).failed(Refused, 2).says(None);
}

#[test]
fn it_stays_out_while_it_refuses() {
    let mut trial = Trial::new(RULES);
    trial.failed(Refused, 3);
    for _ in 0..10 {
        trial.after_ms(29_000).says(REFUSED).failed(Refused, 1);
    }
    trial.after_ms(30_000).says(None);
}

#[test]
fn nobody_is_put_out_with_max_fails_0() {
    let rules = Rules { max_fails: 0, ..CHECKED };
    let mut trial = Trial::new(rules);
    trial.failed(Refused, 100).failed(Unanswered, 100).says(None);
    assert!(!trial.wants_look());
    trial.rules = CHECKED;
    trial.failed(Refused, 3).says(REFUSED);
    trial.rules = rules;
    trial.after_ms(0).says(None);
}

#[test]
fn rise_checks_bring_it_back() {
    let mut trial = Trial::new(CHECKED);
    trial.failed(Refused, 3).look(Err("connection refused")).says(REFUSED);
    assert!(!trial.wants_look(), "not before the interval");
    trial.after_ms(2000).look(Ok(())).says(REFUSED).after_ms(2000).look(Ok(())).says(None);
    trial.failed(Refused, 2).says(None);
}

#[test]
fn checks_that_never_failed_are_believed_once_within_fail_timeout() {
    let mut trial = Trial::new(CHECKED);
    trial.failed(Refused, 3).look(Ok(())).after_ms(2000).look(Ok(())).says(None);
    trial.failed(Refused, 3);
    for _ in 0..14 {
        trial.look(Ok(())).says(REFUSED).after_ms(2000);
    }
    trial.look(Ok(())).after_ms(2000).says(None);
}

#[test]
fn a_check_that_began_before_does_not_speak_for_it() {
    let rules = Rules { checks: Some((1, Duration::from_secs(2))), ..RULES };
    let mut trial = Trial::new(rules);
    trial.failed(Unanswered, 3);
    assert!(trial.wants_look());
    trial.after_ms(1).failed(Refused, 3).after_ms(1);
    trial.witness.looked(Some(Ok(())), trial.now, &trial.rules);
    trial.says(REFUSED);
}

#[test]
fn silence_is_checked_before_it_is_believed() {
    for rules in [RULES, CHECKED] {
        let mut trial = Trial::new(rules);
        trial.failed(Unanswered, 2);
        assert!(!trial.wants_look());
        trial.failed(Unanswered, 1).says(None).look(Err("no answer within 1s"));
        trial.says(Some(
            "left 3 of its last connections unanswered within 30s; no answer within 1s",
        ));
    }
}

#[test]
fn silence_towards_clients_alone_puts_nobody_out() {
    let mut trial = Trial::new(RULES);
    let mut looks = 0;
    for _ in 0..1000 {
        trial.failed(Unanswered, 50).says(None);
        if trial.wants_look() {
            looks += 1;
            trial.witness.looked(Some(Ok(())), trial.now, &trial.rules);
        }
        trial.after_ms(10);
    }
    assert!((9..=11).contains(&looks), "{looks}");
}

#[test]
fn a_check_that_could_not_be_made_says_nothing() {
    let mut trial = Trial::new(CHECKED);
    trial.failed(Unanswered, 3);
    assert!(trial.wants_look());
    trial.witness.looked(None, trial.now, &trial.rules);
    trial.says(None).failed(Refused, 3);
    assert!(trial.wants_look());
    trial.witness.looked(None, trial.now, &trial.rules);
    trial.says(REFUSED).after_ms(2000);
    assert!(trial.wants_look(), "once more");
}

#[derive(Clone, Debug)]
enum Step {
    Fail(bool, u64),
    Pass(u64),
    Look(Option<bool>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (any::<bool>(), 0u64..5).prop_map(|(refused, count)| Step::Fail(refused, count)),
        (0u64..40_000).prop_map(Step::Pass),
        any::<Option<bool>>().prop_map(Step::Look),
    ];
    prop::collection::vec(step, 0..80)
}

proptest! {
    #[test]
    fn it_is_never_out_for_longer_than_fail_timeout_after_the_last_failure(
        max_fails in 1u32..5, checked: bool, steps in steps(),
    ) {
        let checks = checked.then_some((2, Duration::from_secs(2)));
        let mut trial = Trial::new(Rules { max_fails, checks, ..RULES });
        let mut last = None;
        for step in steps {
            match step {
                Step::Fail(refused, count) => {
                    let failure = if refused { Refused } else { Unanswered };
                    trial.failed(failure, count);
                    if count > 0 {
                        last = Some(trial.now);
                    }
                }
                Step::Pass(ms) => { trial.after_ms(ms); }
                Step::Look(passed) => if trial.wants_look() {
                    let outcome = passed.map(|it| if it { Ok(()) } else { Err("silent") });
                    let out = trial.witness.reason().is_some();
                    trial.witness.looked(outcome, trial.now, &trial.rules);
                    if !out && trial.witness.reason().is_some() {
                        prop_assert_eq!(passed, Some(false), "silence is checked");
                        last = Some(trial.now);
                    }
                }
            }
            let since = last.map(|last| trial.now - last);
            if trial.witness.reason().is_some() {
                prop_assert!(since.is_some_and(|since| since < RULES.fail_timeout));
            }
            if let Some(next) = trial.witness.next() {
                prop_assert!(next >= trial.now || trial.witness.look_at.is_some());
            }
        }
    }

    #[test]
    fn fewer_than_max_fails_within_fail_timeout_put_nobody_out(
        max_fails in 2u32..6, gaps_ms in prop::collection::vec(0u64..60_000, 0..60),
    ) {
        let mut trial = Trial::new(Rules { max_fails, ..RULES });
        let mut times: Vec<Instant> = Vec::new();
        for gap_ms in gaps_ms {
            trial.after_ms(gap_ms);
            let now = trial.now;
            let recent = times.iter().filter(|at| now - **at < RULES.fail_timeout).count();
            if recent + 1 >= max_fails as usize {
                trial.failed(Refused, 1);
                prop_assert!(trial.witness.reason().is_some());
                return Ok(());
            }
            trial.failed(Refused, 1).says(None);
            times.push(now);
        }
    }
}
