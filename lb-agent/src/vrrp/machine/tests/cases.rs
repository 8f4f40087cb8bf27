//! RFC 9568 section 6.4, RFC 3768 where the version is 2, and what goes beyond.

use super::*;

#[test]
fn an_owner_is_active_at_once() {
    // 9568 6.4.1
    let mut machine = Machine::new(Parameters { priority: Priority::OWNER, ..parameters() }, at(0));
    let actions = machine.start(at(5));
    assert_eq!(actions, [Action::Advertise(Priority::OWNER), Action::Acquire(Reason::Owner)]);
    assert_eq!((machine.state(), waits(&machine, at(5))), (State::Active, SECOND));
}

#[test]
fn any_other_starts_as_backup_and_waits_three_intervals_and_its_skew() {
    // 9568 6.4.1
    let mut machine = Machine::new(parameters(), at(0));
    assert_eq!(machine.start(at(5)), []);
    assert_eq!(machine.state(), State::Backup);
    assert_eq!(waits(&machine, at(5)), 3 * SECOND + skew(100));
}

#[test]
fn a_backup_that_hears_a_resignation_waits_its_skew_only() {
    // 9568 6.4.2
    let mut machine = started(parameters());
    assert_eq!(machine.hear(node(133), &advertisement(0), at(500)), Ok(vec![]));
    assert_eq!(waits(&machine, at(500)), skew(100));
    let due = machine.deadline().unwrap();
    let actions = machine.timeout(due);
    assert_eq!(actions[1], Action::Acquire(Reason::ActiveResigned));
}

#[test]
fn a_backup_adopts_the_interval_of_the_active_router_and_its_skew_follows() {
    // 9568 6.4.2, 6.1
    let mut machine = started(parameters());
    let heard = Advertisement { interval: SECOND / 10, ..advertisement(100) };
    assert_eq!(machine.hear(node(133), &heard, at(500)), Ok(vec![]));
    assert_eq!(waits(&machine, at(500)), 3 * SECOND / 10 + skew(100) / 10);
}

#[test]
fn a_backup_does_not_break_ties() {
    // 9568 6.4.2: equal priority, lower address
    let mut machine = started(parameters());
    assert_eq!(machine.hear(node(133), &advertisement(100), at(500)), Ok(vec![]));
    assert_eq!(waits(&machine, at(500)), 3 * SECOND + skew(100));
}

#[test]
fn a_preempting_backup_does_not_let_a_lower_priority_reset_its_timer() {
    // 9568 6.4.2
    let mut machine = started(parameters());
    let due = machine.deadline();
    assert_eq!(machine.hear(node(135), &advertisement(99), at(500)), Ok(vec![]));
    assert_eq!(machine.deadline(), due);
}

#[test]
fn a_backup_that_does_not_preempt_lets_any_priority_reset_its_timer() {
    // 9568 6.4.2
    let mut machine = started(Parameters { preempt: false, ..parameters() });
    assert_eq!(machine.hear(node(135), &advertisement(1), at(500)), Ok(vec![]));
    assert_eq!(waits(&machine, at(500)), 3 * SECOND + skew(100));
}

#[test]
fn an_owner_preempts_whatever_the_setting_says() {
    // 9568 6.1
    let owner = Parameters { priority: Priority::OWNER, preempt: false, ..parameters() };
    let mut machine = Machine::new(owner, at(0));
    machine.start(at(0));
    machine.resign(at(500));
    let due = machine.deadline();
    machine.hear(node(135), &advertisement(100), at(600)).unwrap();
    assert_eq!(machine.deadline(), due, "the timer runs on");
}

#[test]
fn a_backup_whose_timer_fires_advertises_before_it_answers_for_the_addresses() {
    // 9568 6.4.2
    let mut machine = started(parameters());
    let due = machine.deadline().unwrap();
    let actions = machine.timeout(due);
    assert_eq!(actions, [Action::Advertise(Priority(100)), Action::Acquire(Reason::ActiveDown)]);
    assert_eq!((machine.state(), machine.holds()), (State::Active, true));
    assert_eq!(waits(&machine, due), SECOND);
}

#[test]
fn a_backup_that_shuts_down_says_nothing() {
    // 9568 6.4.2
    let mut machine = started(parameters());
    assert_eq!(machine.shut_down(at(500)), []);
    assert_eq!((machine.state(), machine.deadline()), (State::Initialize, None));
}

#[test]
fn a_backup_answers_for_nothing() {
    // 9568 6.4.2: the driver asks `holds`
    assert!(!started(parameters()).holds());
}

#[test]
fn an_active_router_that_hears_a_resignation_advertises_and_counts_anew() {
    // 9568 6.4.3
    let mut machine = active(parameters());
    let now = since() + SECOND / 2;
    let actions = machine.hear(node(133), &advertisement(0), now);
    assert_eq!(actions, Ok(vec![Action::Advertise(Priority(100))]));
    assert_eq!((machine.state(), waits(&machine, now)), (State::Active, SECOND));
}

#[test]
fn an_active_router_yields_to_a_higher_priority_without_resigning() {
    // 9568 6.4.3
    let mut machine = active(parameters());
    let heard = Advertisement { interval: SECOND / 2, ..advertisement(101) };
    let reason = Reason::Outranked { by: node(133), priority: Priority(101) };
    let now = since() + SECOND / 2;
    assert_eq!(machine.hear(node(133), &heard, now), Ok(vec![Action::Release(reason)]));
    assert_eq!((machine.state(), machine.holds()), (State::Backup, false));
    assert_eq!(waits(&machine, now), 3 * SECOND / 2 + skew(100) / 2);
}

#[test]
fn of_equal_priorities_the_greater_address_stays_active() {
    // 9568 6.4.3: unsigned, network order
    let now = since() + SECOND / 2;
    let mut machine = active(parameters());
    machine.hear(node(135), &advertisement(100), now).unwrap();
    assert_eq!(machine.state(), State::Backup);
    let mut machine = active(parameters());
    machine.hear(node(133), &advertisement(100), now).unwrap();
    assert_eq!(machine.state(), State::Active);
    let mut machine = active(Parameters { address: node(127), ..parameters() });
    machine.hear(node(128), &advertisement(100), now).unwrap();
    assert_eq!(machine.state(), State::Backup, "128 is above 127, not below zero");
}

#[test]
fn an_active_router_answers_a_lower_priority_and_leaves_its_timer_alone() {
    // 9568 6.4.3
    let now = since() + SECOND / 2;
    let mut machine = active(parameters());
    let due = machine.deadline();
    let actions = machine.hear(node(135), &advertisement(99), now);
    assert_eq!(actions, Ok(vec![Action::Advertise(Priority(100)), Action::Announce]));
    assert_eq!((machine.state(), machine.deadline()), (State::Active, due));
}

#[test]
fn an_active_router_of_version_2_sends_no_advertisement_to_a_lower_priority() {
    // 3768 6.4.3; the announcement repairs what the rival's may have done
    let mut machine = active(Parameters {
        rivals: Rivals::of(Version::V2),
        version: Version::V2,
        ..parameters()
    });
    let actions = machine.hear(node(135), &advertisement(99), since() + SECOND / 2);
    assert_eq!(actions, Ok(vec![Action::Announce]));
}

#[test]
fn an_active_router_that_shuts_down_resigns_before_it_gives_up_the_addresses() {
    // 9568 6.4.3
    let mut machine = active(parameters());
    let actions = machine.shut_down(since() + SECOND / 2);
    assert_eq!(actions, [Action::Advertise(Priority::RESIGN), Action::Release(Reason::ShutDown)]);
    assert_eq!((machine.state(), machine.holds()), (State::Initialize, false));
}

#[test]
fn version_3_takes_any_interval() {
    // 9568 7.1
    let mut machine = active(parameters());
    let heard = Advertisement { interval: 40 * SECOND, ..advertisement(1) };
    assert!(machine.hear(node(135), &heard, since() + SECOND / 2).is_ok());
}

#[test]
fn version_2_refuses_another_interval() {
    // 3768 7.1
    let mut machine = started(Parameters { version: Version::V2, ..parameters() });
    let before = machine.deadline();
    let heard = Advertisement { interval: 2 * SECOND, ..advertisement(200) };
    assert_eq!(machine.hear(node(133), &heard, at(500)), Err(Refusal::Interval));
    assert_eq!(machine.deadline(), before);
}

#[test]
fn the_skew_of_version_2_is_of_a_second_whatever_the_interval() {
    // 3768 6.1
    let machine =
        started(Parameters { version: Version::V2, interval: 2 * SECOND, ..parameters() });
    assert_eq!(waits(&machine, at(0)), 6 * SECOND + skew(100));
}

#[test]
fn nothing_is_done_about_an_advertisement_before_the_start() {
    let mut machine = Machine::new(parameters(), at(0));
    for priority in [0, 1, 100, 255] {
        assert_eq!(machine.hear(node(133), &advertisement(priority), at(1)), Ok(vec![]));
        assert_eq!((machine.state(), machine.deadline()), (State::Initialize, None));
    }
}

#[test]
fn other_addresses_are_refused_where_that_is_wished_but_not_from_their_owner() {
    // 3768 7.1
    let mut machine = started(Parameters { same_addresses: true, ..parameters() });
    let other = Advertisement { addresses: vec![node(150), node(151)], ..advertisement(200) };
    assert_eq!(machine.hear(node(133), &other, at(1)), Err(Refusal::Addresses));
    let owner = Advertisement { priority: Priority::OWNER, ..other };
    assert_eq!(machine.hear(node(133), &owner, at(1)), Ok(vec![]));
    let mut lenient = started(parameters());
    let other = Advertisement { addresses: vec![node(150), node(151)], ..advertisement(200) };
    assert_eq!(lenient.hear(node(133), &other, at(1)), Ok(vec![]));
}

#[test]
fn the_order_of_the_addresses_is_of_no_account() {
    let addresses = vec![node(150), node(151)];
    let mut machine =
        started(Parameters { same_addresses: true, addresses: addresses.clone(), ..parameters() });
    let turned = addresses.into_iter().rev().collect();
    let heard = Advertisement { addresses: turned, ..advertisement(200) };
    assert_eq!(machine.hear(node(133), &heard, at(1)), Ok(vec![]));
}

#[test]
fn another_password_is_refused_and_changes_nothing() {
    let ours = Authentication::Password(*b"K8SHA_KA");
    let mut machine = active(Parameters { authentication: ours, ..parameters() });
    for theirs in [Authentication::None, Authentication::Password(*b"other\0\0\0")] {
        let heard = Advertisement { authentication: theirs, ..advertisement(255) };
        let answer = machine.hear(node(133), &heard, since());
        assert_eq!((answer, machine.state()), (Err(Refusal::Authentication), State::Active));
    }
}

#[test]
fn an_advertisement_from_its_own_address_is_refused() {
    let mut machine = active(parameters());
    let answer = machine.hear(node(134), &advertisement(200), since());
    assert_eq!((answer, machine.state()), (Err(Refusal::OwnAddress), State::Active));
}

#[test]
fn a_preempt_delay_lets_the_lower_priority_be_first_for_so_long() {
    let mut machine = started(Parameters { preempt_delay: 10 * SECOND, ..parameters() });
    for second in 1..=10 {
        machine.hear(node(135), &advertisement(50), at(second * 1000)).unwrap();
        assert_eq!(waits(&machine, at(second * 1000)), 3 * SECOND + skew(100), "{second}");
    }
    let due = machine.deadline();
    machine.hear(node(135), &advertisement(50), at(11_000)).unwrap();
    assert_eq!(machine.deadline(), due, "from now on the timer runs");
}

#[test]
fn the_preempt_delay_does_not_delay_the_death_of_the_active_router() {
    let mut machine = started(Parameters { preempt_delay: 600 * SECOND, ..parameters() });
    machine.hear(node(135), &advertisement(50), at(1000)).unwrap();
    assert_eq!(waits(&machine, at(1000)), 3 * SECOND + skew(100));
}

#[test]
fn who_resigns_answers_for_the_addresses_until_the_successor_is_heard() {
    let mut machine = active(parameters());
    let now = since() + SECOND / 2;
    assert_eq!(machine.resign(now), [Action::Advertise(Priority::RESIGN)]);
    assert_eq!((machine.state(), machine.holds()), (State::Backup, true));
    let reason = Reason::Succeeded { by: node(135) };
    let later = now + Duration::from_millis(700);
    let answer = machine.hear(node(135), &advertisement(90), later);
    assert_eq!(answer, Ok(vec![Action::Release(reason)]));
    assert!(!machine.holds());
}

#[test]
fn who_resigned_and_hears_nobody_is_active_again() {
    let mut machine = active(parameters());
    machine.resign(since());
    let due = machine.deadline().unwrap();
    assert_eq!(due, since() + 3 * SECOND + skew(100));
    let actions = machine.timeout(due);
    assert_eq!(actions[0], Action::Advertise(Priority(100)));
    assert_eq!(machine.state(), State::Active);
}

#[test]
fn who_is_held_back_resigns_and_stays_backup() {
    let mut machine = active(parameters());
    assert_eq!(machine.hold_back(true, since()), [Action::Advertise(Priority::RESIGN)]);
    let due = machine.deadline().unwrap();
    assert_eq!(machine.timeout(due), [Action::Release(Reason::NoSuccessor)]);
    assert_eq!(machine.state(), State::Backup);
    let due = machine.deadline().unwrap();
    assert_eq!(machine.timeout(due), []);
    assert_eq!(machine.hold_back(false, due), []);
    let due = machine.deadline().unwrap();
    assert_eq!(machine.timeout(due)[0], Action::Advertise(Priority(100)));
}

#[test]
fn who_is_no_longer_held_back_listens_before_it_takes_over() {
    let mut machine = started(Parameters { preempt: false, ..parameters() });
    machine.hold_back(true, at(0));
    // Its link was down for as long as the others wait: one of them may be Active.
    machine.hold_back(false, at(3500));
    assert_eq!(waits(&machine, at(3500)), 3 * SECOND + skew(100));
    machine.hold_back(false, at(4000));
    assert_eq!(waits(&machine, at(3500)), 3 * SECOND + skew(100), "nothing was new");
    machine.hear(node(135), &advertisement(90), at(4100)).unwrap();
    assert_eq!(machine.state(), State::Backup);
}

#[test]
fn who_is_held_back_does_not_preempt() {
    let mut machine = started(parameters());
    machine.hold_back(true, at(0));
    machine.hear(node(135), &advertisement(1), at(500)).unwrap();
    assert_eq!(waits(&machine, at(500)), 3 * SECOND + skew(100));
}

#[test]
fn an_active_router_that_overslept_stops_before_it_sends() {
    let mut machine = active(parameters());
    // Its last advertisement is three intervals old: another may be Active.
    let woke = since() + 3 * SECOND;
    assert_eq!(machine.timeout(woke), [Action::Release(Reason::Overslept)]);
    assert_eq!((machine.state(), machine.holds()), (State::Backup, false));
    assert_eq!(waits(&machine, woke), 3 * SECOND + skew(100));
}

#[test]
fn an_active_router_that_overslept_does_not_outrank_its_successor() {
    let mut machine = active(Parameters { preempt: false, ..parameters() });
    let woke = since() + 4 * SECOND;
    let answer = machine.hear(node(135), &advertisement(90), woke);
    assert_eq!(answer, Ok(vec![Action::Release(Reason::Overslept)]));
    assert_eq!(machine.state(), State::Backup);
}

#[test]
fn an_active_router_that_is_only_late_goes_on_by_its_schedule() {
    let mut machine = active(parameters());
    let late = since() + SECOND + SECOND / 4;
    assert_eq!(machine.timeout(late), [Action::Advertise(Priority(100))]);
    assert_eq!(machine.deadline(), Some(since() + 2 * SECOND), "no drift");
    let very_late = since() + 2 * SECOND + SECOND + SECOND / 2;
    assert_eq!(machine.timeout(very_late), [Action::Advertise(Priority(100))]);
    assert_eq!(machine.deadline(), Some(very_late + SECOND), "no burst either");
}

#[test]
fn a_backup_that_overslept_listens_once_more() {
    let mut machine = started(parameters());
    let woke = machine.deadline().unwrap() + SECOND;
    assert_eq!(machine.timeout(woke), []);
    assert_eq!((machine.state(), waits(&machine, woke)), (State::Backup, 3 * SECOND + skew(100)));
}

#[test]
fn an_active_router_tells_a_changed_priority_at_once() {
    let mut machine = active(parameters());
    assert_eq!(machine.set_priority(Priority(50), since()), [Action::Advertise(Priority(50))]);
    assert_eq!(machine.set_priority(Priority(50), since()), []);
    let mut machine = started(parameters());
    assert_eq!(machine.set_priority(Priority(50), at(0)), []);
}

#[test]
fn a_backup_that_counts_for_less_gives_up_a_takeover_from_a_living_router() {
    let mut machine = started(parameters());
    machine.hear(node(133), &advertisement(90), at(1000)).unwrap();
    let due = machine.deadline();
    // More than before, or as much, changes nothing.
    machine.set_priority(Priority(120), at(1500));
    assert_eq!(machine.deadline(), due);
    machine.set_priority(Priority(80), at(2000));
    assert_eq!(waits(&machine, at(2000)), 3 * SECOND + skew(80));
}

#[test]
fn a_backup_that_counts_for_less_still_follows_a_silent_router_in_time() {
    let mut machine = started(parameters());
    machine.hear(node(133), &advertisement(110), at(1000)).unwrap();
    let due = machine.deadline();
    machine.set_priority(Priority(80), at(3000));
    assert_eq!(machine.deadline(), due);
}

/// Another group on the link has the same number, and nothing in common with this one.
#[test]
fn a_group_with_other_addresses_is_not_heard_as_the_active_router() {
    let mut machine = started(parameters());
    let due = machine.deadline();
    let stranger = Advertisement { addresses: vec![node(151), node(152)], ..advertisement(200) };
    let refusal = machine.hear(node(133), &stranger, at(100)).unwrap_err();
    assert_eq!(refusal, Refusal::DuplicateRouterId);
    assert_eq!(machine.deadline(), due);
    // One address in common makes it one group: an address is being added, node by node.
    let partner = Advertisement { addresses: vec![node(151), node(150)], ..advertisement(200) };
    assert_eq!(machine.hear(node(133), &partner, at(100)), Ok(Vec::new()));
    assert_ne!(machine.deadline(), due);
}

#[test]
fn nothing_happens_before_its_time() {
    let mut machine = started(parameters());
    let due = machine.deadline().unwrap();
    assert_eq!(machine.timeout(due - Duration::from_nanos(1)), []);
    assert_eq!(machine.deadline(), Some(due));
}
