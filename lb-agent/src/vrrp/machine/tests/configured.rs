//! Other parameters for a router that takes part, in each state.

use super::*;

const TENTH: Duration = Duration::from_millis(100);

fn authenticated(password: &[u8; 8]) -> Authentication {
    Authentication::Password(*password)
}

#[test]
fn the_same_parameters_are_nothing_to_say() {
    let now = since() + SECOND / 2;
    let mut machine = active(parameters());
    let due = machine.deadline();
    assert_eq!(machine.configure(parameters(), now), []);
    assert_eq!((machine.state(), machine.deadline()), (State::Active, due));
}

#[test]
fn a_router_that_has_not_begun_begins_with_the_new_ones() {
    let mut machine = Machine::new(parameters(), at(0));
    assert_eq!(machine.configure(Parameters { interval: TENTH, ..parameters() }, at(0)), []);
    assert_eq!((machine.state(), machine.deadline()), (State::Initialize, None));
    machine.start(at(5));
    assert_eq!(waits(&machine, at(5)), 3 * TENTH + skew(100) / 10);
}

#[test]
fn an_active_router_says_at_once_what_is_new_and_stays_active() {
    let now = since() + SECOND / 2;
    let other_priority = Parameters { priority: Priority(50), ..parameters() };
    let faster = Parameters { interval: TENTH, ..parameters() };
    let one_more = Parameters { addresses: vec![node(150), node(151)], ..parameters() };
    let password = Parameters { authentication: authenticated(b"hush\0\0\0\0"), ..parameters() };
    let elsewhere = Parameters { address: node(140), ..parameters() };
    for other in [other_priority, faster, one_more, password, elsewhere] {
        let mut machine = active(parameters());
        let said = Action::Advertise(other.priority);
        assert_eq!(machine.configure(other.clone(), now), [said], "{other:?}");
        assert_eq!((machine.state(), machine.holds()), (State::Active, true));
        assert_eq!(waits(&machine, now), other.interval);
        assert_eq!(machine.parameters(), &other);
        assert_eq!(machine.last_transition(), (Reason::ActiveDown, since()));
    }
}

#[test]
fn what_concerns_an_active_router_alone_is_not_said() {
    let mut machine = active(parameters());
    let due = machine.deadline();
    let other = Parameters {
        preempt: false,
        preempt_delay: SECOND,
        rivals: Rivals::Ignore,
        same_addresses: true,
        ..parameters()
    };
    assert_eq!(machine.configure(other, since() + SECOND / 2), []);
    assert_eq!((machine.state(), machine.deadline()), (State::Active, due));
}

#[test]
fn a_longer_interval_is_said_at_the_former_pace_until_three_may_have_missed_it() {
    let mut machine = active(Parameters { interval: TENTH, ..parameters() });
    let mut now = machine.last_transition().1 + TENTH / 2;
    let slower = Parameters { interval: 2 * SECOND, ..parameters() };
    assert_eq!(machine.configure(slower, now), [Action::Advertise(Priority(100))]);
    for expected in [TENTH, TENTH, TENTH, 2 * SECOND, 2 * SECOND] {
        assert_eq!(waits(&machine, now), expected);
        assert_eq!(machine.pace(), expected, "for so long the others wait at the least");
        now = machine.deadline().unwrap();
        assert_eq!(machine.timeout(now), [Action::Advertise(Priority(100))]);
    }
}

#[test]
fn while_others_may_wait_for_the_former_interval_it_is_overslept_by_that() {
    let mut machine = active(Parameters { interval: TENTH, ..parameters() });
    let now = machine.last_transition().1 + TENTH / 2;
    machine.configure(Parameters { interval: 2 * SECOND, ..parameters() }, now);
    assert_eq!(machine.timeout(now + 3 * TENTH), [Action::Release(Reason::Overslept)]);
    assert_eq!(waits(&machine, now + 3 * TENTH), 6 * SECOND + 2 * skew(100));
}

#[test]
fn a_router_that_overslept_is_configured_as_the_backup_that_it_is() {
    let mut machine = active(parameters());
    let late = since() + 3 * SECOND;
    let actions = machine.configure(Parameters { interval: 5 * SECOND, ..parameters() }, late);
    assert_eq!(actions, [Action::Release(Reason::Overslept)]);
    assert_eq!(machine.state(), State::Backup);
}

#[test]
fn a_backup_goes_on_waiting_by_the_interval_that_it_has_heard() {
    // 9568 6.4.2: the Active router's interval counts, not its own
    let mut machine = started(parameters());
    machine.hear(node(135), &advertisement(200), at(500)).unwrap();
    let due = machine.deadline();
    assert_eq!(machine.configure(Parameters { interval: TENTH, ..parameters() }, at(600)), []);
    assert_eq!((machine.state(), machine.deadline()), (State::Backup, due));
    machine.hear(node(135), &advertisement(200), at(1500)).unwrap();
    assert_eq!(waits(&machine, at(1500)), 3 * SECOND + skew(100));
    // Its own counts once it is Active.
    let due = machine.deadline().unwrap();
    machine.timeout(due);
    assert_eq!(waits(&machine, due), TENTH);
}

#[test]
fn a_backup_s_new_priority_counts_from_the_next_advertisement_on() {
    let mut machine = started(parameters());
    machine.hear(node(135), &advertisement(150), at(500)).unwrap();
    let due = machine.deadline();
    assert_eq!(
        machine.configure(Parameters { priority: Priority(200), ..parameters() }, at(600)),
        []
    );
    assert_eq!(machine.deadline(), due);
    machine.hear(node(135), &advertisement(150), at(1500)).unwrap();
    assert_eq!(machine.deadline(), due, "it takes over now");
}

#[test]
fn a_backup_that_was_about_to_take_over_and_is_not_to_listens_anew() {
    let with = |preempt, delay_s: u32, priority| Parameters {
        preempt,
        preempt_delay: delay_s * SECOND,
        priority: Priority(priority),
        ..parameters()
    };
    for other in [with(false, 0, 100), with(true, 10, 100), with(true, 0, 90)] {
        let mut machine = started(parameters());
        machine.hear(node(133), &advertisement(95), at(3000)).unwrap();
        assert_eq!(waits(&machine, at(3600)), Duration::from_micros(9_375), "it takes over");
        assert_eq!(machine.configure(other.clone(), at(3600)), []);
        let wait = waits(&machine, at(3600));
        assert_eq!(wait, 3 * SECOND + skew(other.priority.0), "{other:?}");
    }
    // One that is to, as before, does.
    let mut machine = started(parameters());
    machine.hear(node(133), &advertisement(95), at(3000)).unwrap();
    machine.configure(with(true, 0, 110), at(3600));
    assert_eq!(waits(&machine, at(3600)), Duration::from_micros(9_375));
}

#[test]
fn a_backup_that_lets_another_be_first_for_a_while_does_not_wait_longer_for_a_dead_one() {
    let mut machine = started(Parameters { preempt_delay: 10 * SECOND, ..parameters() });
    machine.hear(node(133), &advertisement(90), at(500)).unwrap();
    let due = machine.deadline();
    machine.configure(Parameters { preempt_delay: 20 * SECOND, ..parameters() }, at(3500));
    assert_eq!(machine.deadline(), due);
}

#[test]
fn a_backup_that_hands_over_goes_on_holding() {
    let mut machine = active(parameters());
    machine.resign(since());
    let other = Parameters { priority: Priority(7), ..parameters() };
    assert_eq!(machine.configure(other, since() + TENTH), []);
    assert_eq!((machine.state(), machine.holds()), (State::Backup, true));
    let heard = machine.hear(node(133), &advertisement(90), since() + SECOND / 2).unwrap();
    assert_eq!(heard, [Action::Release(Reason::Succeeded { by: node(133) })]);
}

#[test]
fn one_that_is_held_back_stays_so() {
    let mut machine = started(parameters());
    machine.hold_back(true, at(0));
    machine.configure(Parameters { priority: Priority(200), ..parameters() }, at(100));
    let due = machine.deadline().unwrap();
    assert_eq!(machine.timeout(due), []);
    assert_eq!((machine.is_held_back(), machine.state()), (true, State::Backup));
}

/// Each is refused by who goes by the other.
fn pairs() -> Vec<(Parameters, Advertisement, Parameters, Advertisement)> {
    let v2 = Parameters { version: Version::V2, ..parameters() };
    let [old, new] = [b"old\0\0\0\0\0", b"new\0\0\0\0\0"].map(authenticated);
    let said = |authentication| Advertisement { authentication, ..advertisement(200) };
    let as_of = |authentication| Parameters { authentication, ..v2.clone() };
    let two = vec![node(150), node(151)];
    let listed = Advertisement { addresses: two.clone(), ..advertisement(200) };
    let strict = Parameters { same_addresses: true, ..parameters() };
    let other = vec![node(152)];
    let moved = Advertisement { addresses: other.clone(), ..advertisement(200) };
    vec![
        (as_of(old), said(old), as_of(new), said(new)),
        (
            v2.clone(),
            advertisement(200),
            Parameters { interval: 2 * SECOND, ..v2 },
            Advertisement { interval: 2 * SECOND, ..advertisement(200) },
        ),
        (strict.clone(), advertisement(200), Parameters { addresses: two, ..strict }, listed),
        (parameters(), advertisement(200), Parameters { addresses: other, ..parameters() }, moved),
    ]
}

#[test]
fn an_active_router_that_has_yet_to_be_told_is_heard_until_it_is() {
    for (before, old, after, new) in pairs() {
        let mut machine = started(before);
        machine.configure(after.clone(), at(0));
        for second in 1..5 {
            let heard = machine.hear(node(133), &old, at(1000 * second));
            assert_eq!(heard, Ok(vec![]), "{after:?}");
        }
        assert_eq!(machine.hear(node(133), &new, at(5000)), Ok(vec![]));
        assert!(machine.hear(node(133), &old, at(6000)).is_err(), "{after:?}");
    }
}

#[test]
fn a_second_thought_before_the_active_router_was_told_changes_nothing_for_it() {
    for (before, old, after, new) in pairs() {
        let mut machine = started(before.clone());
        let between = Parameters {
            authentication: authenticated(b"mistaken"),
            interval: 9 * SECOND,
            addresses: vec![node(160)],
            ..after.clone()
        };
        machine.configure(between, at(0));
        machine.configure(after, at(10));
        assert_eq!(machine.hear(node(133), &old, at(1000)), Ok(vec![]));
        // And back: then there is nothing new to be heard.
        machine.configure(before, at(1010));
        assert_eq!(machine.hear(node(133), &old, at(2000)), Ok(vec![]));
        assert!(machine.hear(node(133), &new, at(3000)).is_err());
    }
}
