//! When to ask again.

use std::time::Duration;

use crate::discovery::pace::{after_answer, after_failure};

const S: Duration = Duration::from_secs(1);

#[test]
fn an_answer_is_good_for_its_time_within_bounds_and_a_tenth() {
    for (ttl, meant) in [(0, 5), (30, 30), (86_400, 300)] {
        for draw in 0..100 {
            let pause = after_answer(S * ttl, S * 5, S * 300, draw);
            assert!(pause >= S * meant && pause <= (S * meant).mul_f64(1.1), "{ttl}: {pause:?}");
        }
    }
}

#[test]
fn who_fails_again_and_again_is_asked_less_and_less_often_but_for_ever() {
    for (failures, meant) in [(1, 1), (2, 2), (3, 4), (5, 16), (6, 30), (1000, 30), (u32::MAX, 30)]
    {
        let pause = after_failure(failures, S * 5, 1);
        assert!(pause >= S * meant && pause <= (S * meant).mul_f64(1.1), "{failures}: {pause:?}");
    }
}

#[test]
fn two_who_began_together_do_not_ask_together() {
    let pauses = [1, 2].map(|draw| after_answer(S * 30, S, S * 300, draw));
    assert_ne!(pauses[0], pauses[1]);
}
