//! A router that another process goes on with.

use super::*;

fn resumed(machine: &Machine, now: Moment) -> Machine {
    Machine::resume(machine.parameters().clone(), machine.progress(), now)
}

#[test]
fn an_active_router_goes_on_as_active_with_its_next_advertisement() {
    let before = active(parameters());
    let mut after = resumed(&before, since() + SECOND / 2);
    assert_eq!((after.state(), after.holds()), (State::Active, true));
    assert_eq!(after.start(since() + SECOND / 2), []);
    assert_eq!(after.deadline(), before.deadline());
    assert_eq!(after.timeout(since() + SECOND), [Action::Advertise(Priority(100))]);
}

#[test]
fn before_it_is_followed_it_advertises_so_that_the_others_wait_from_then_on() {
    let mut machine = active(parameters());
    let now = since() + SECOND / 4;
    assert_eq!(machine.refresh(now), [Action::Advertise(Priority(100))]);
    assert_eq!(waits(&machine, now), SECOND);
    assert_eq!(started(parameters()).refresh(now), [], "a Backup has nothing to say");
}

#[test]
fn one_that_was_followed_too_slowly_gives_up_as_one_that_slept() {
    let before = active(parameters());
    let late = since() + SECOND * 3;
    let mut after = resumed(&before, late);
    assert_eq!(after.timeout(late), [Action::Release(Reason::Overslept)]);
    assert_eq!(after.state(), State::Backup);
    let mut before = before;
    assert_eq!(before.refresh(late), [Action::Release(Reason::Overslept)]);
}

#[test]
fn a_backup_goes_on_waiting_for_as_long_as_it_had_to() {
    let mut before = started(parameters());
    before.hear(node(135), &advertisement(50), at(1000)).unwrap();
    let mut after = resumed(&before, at(1100));
    assert_eq!((after.state(), after.holds()), (State::Backup, false));
    assert_eq!(after.deadline(), before.deadline());
    let due = after.deadline().unwrap();
    assert_eq!(after.timeout(due), before.timeout(due));
    assert_eq!(after.state(), State::Active);
}

#[test]
fn one_that_hands_over_goes_on_holding_until_its_successor_is_heard() {
    let mut before = active(parameters());
    before.resign(since());
    let mut after = resumed(&before, since());
    assert_eq!((after.state(), after.holds()), (State::Backup, true));
    let heard = after.hear(node(133), &advertisement(90), since() + SECOND / 2).unwrap();
    assert_eq!(heard, [Action::Release(Reason::Succeeded { by: node(133) })]);
}

#[test]
fn one_that_had_not_begun_begins() {
    let idle = Machine::new(parameters(), at(0));
    let mut after = resumed(&idle, at(5));
    assert_eq!(after.state(), State::Initialize);
    after.start(at(5));
    assert_eq!(after.state(), State::Backup);
}
