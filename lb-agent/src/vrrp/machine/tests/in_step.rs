//! Active routers of one node that advertise at the same moments.

use proptest::prelude::*;

use super::*;

/// Two Active routers of one interval; the second is a part of an interval behind the first.
fn pair(behind: Duration) -> [Machine; 2] {
    let first = active(parameters());
    let mut second = active(parameters());
    let _ = second.refresh(since() + behind);
    [first, second]
}

#[test]
fn one_that_would_advertise_soon_does_so_with_the_other_from_then_on() {
    let [mut first, mut second] = pair(SECOND / 4);
    let now = since() + SECOND;
    assert_eq!(first.timeout(now), [Action::Advertise(Priority(100))]);
    let next = first.deadline().unwrap();
    assert_eq!(second.keep_step(next, now), [Action::Advertise(Priority(100))]);
    assert_eq!(second.deadline(), Some(next));
    assert_eq!(second.keep_step(next, now), [], "it has");
}

#[test]
fn one_that_would_do_so_much_later_is_left_alone() {
    let [mut first, mut second] = pair(SECOND * 3 / 4);
    let now = since() + SECOND;
    let _ = first.timeout(now);
    let before = second.deadline();
    assert_eq!(second.keep_step(first.deadline().unwrap(), now), []);
    assert_eq!(second.deadline(), before);
}

#[test]
fn nobody_is_made_to_wait_longer_than_an_interval() {
    let [_, mut second] = pair(SECOND / 4);
    let now = since() + SECOND;
    assert_eq!(second.keep_step(now + SECOND + Duration::from_millis(1), now), []);
}

#[test]
fn a_backup_and_one_that_is_late_have_nothing_to_do_with_it() {
    let now = since() + SECOND;
    assert_eq!(started(parameters()).keep_step(now + SECOND, now), []);
    let [_, mut late] = pair(Duration::ZERO);
    assert_eq!(late.keep_step(now + SECOND, now), [], "its own timer is due");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn whatever_the_phase_two_are_in_step_after_two_intervals(behind_us in 0u64..1_000_000) {
        let mut machines = pair(Duration::from_micros(behind_us));
        let mut sent = [since(), since() + Duration::from_micros(behind_us)];
        for _ in 0..4 {
            let now = machines.iter().filter_map(Machine::deadline).min().unwrap();
            for leader in 0..machines.len() {
                if machines[leader].timeout(now).is_empty() {
                    continue;
                }
                let next = machines[leader].deadline().unwrap();
                prop_assert!(now.since(sent[leader]) <= SECOND);
                sent[leader] = now;
                for (machine, sent) in machines.iter_mut().zip(&mut sent) {
                    if !machine.keep_step(next, now).is_empty() {
                        prop_assert!(now.since(*sent) <= SECOND);
                        *sent = now;
                    }
                }
            }
        }
        prop_assert_eq!(machines[0].deadline(), machines[1].deadline());
    }
}
