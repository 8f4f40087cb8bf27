//! Every way through the ledger, as a table of cases and as a property.

use super::*;

fn placement(last: u8, ifindex: u32) -> Placement {
    let interface = Interface { index: ifindex, name: format!("eth{ifindex}"), mac: [2; 6] };
    Placement { vip: [192, 0, 2, last].into(), interface }
}

/// The questions that were asked, as number and last byte of the VIP.
fn asks(actions: &[Action]) -> Vec<(u64, IpAddr)> {
    let ask = |action: &Action| match action {
        Action::Ask(number, placement) => Some((*number, placement.vip)),
        Action::Perform(..) => None,
    };
    actions.iter().filter_map(ask).collect()
}

/// What is to be done, as step and last byte of the VIP.
fn done(actions: &[Action]) -> Vec<(Step, u8)> {
    let done = |action: &Action| match action {
        Action::Perform(step, Placement { vip: IpAddr::V4(vip), .. }) => {
            Some((*step, vip.octets()[3]))
        }
        _ => None,
    };
    actions.iter().filter_map(done).collect()
}

fn answer_all(ledger: &mut Ledger, actions: &[Action], answer: &Answer) -> Vec<Action> {
    let answers = asks(actions).into_iter();
    answers.flat_map(|(number, vip)| ledger.answered(number, vip, answer.clone())).collect()
}

fn active(placements: &[Placement]) -> Ledger {
    let mut ledger = Ledger::default();
    ledger.place(placements.to_vec());
    let questions = ledger.want(Role::Active, Claim::Insist);
    answer_all(&mut ledger, &questions, &Answer::Free);
    assert_eq!(ledger.role(), Role::Active);
    ledger
}

const RIVAL: Answer = Answer::TakenBy([6, 5, 4, 3, 2, 1]);

#[test]
fn nothing_is_held_before_every_question_is_answered() {
    let mut ledger = Ledger::default();
    assert_eq!(ledger.place(vec![placement(1, 2), placement(2, 2)]), []);
    let questions = ledger.want(Role::Active, Claim::Insist);
    let asked = asks(&questions);
    assert_eq!(asked.len(), 2);
    assert_eq!(done(&questions), []);
    assert_eq!(ledger.answered(asked[0].0, asked[0].1, Answer::Free), []);
    assert_eq!(ledger.role(), Role::Backup);
    let actions = ledger.answered(asked[1].0, asked[1].1, Answer::Free);
    assert_eq!(ledger.role(), Role::Active);
    use Step::{AddAddress, Announce, GrantLease, Tables};
    let expected = [Tables, GrantLease, AddAddress, Announce];
    let expected = expected.into_iter().flat_map(|step| [(step, 1), (step, 2)]);
    assert_eq!(done(&actions), expected.collect::<Vec<_>>());
}

#[test]
fn one_vip_that_is_taken_refuses_the_whole_set() {
    let mut ledger = Ledger::default();
    ledger.place(vec![placement(1, 2), placement(2, 2)]);
    let asked = asks(&ledger.want(Role::Active, Claim::Once));
    ledger.answered(asked[0].0, asked[0].1, Answer::Free);
    assert_eq!(ledger.answered(asked[1].0, asked[1].1, RIVAL), []);
    assert_eq!(ledger.role(), Role::Backup);
    assert!(ledger.settled());
    assert_eq!(
        ledger.refusal().unwrap(),
        "192.0.2.2 is held by another machine with the MAC 06:05:04:03:02:01 on eth2; make \
         that node backup first, or remove the address from it"
    );
}

#[test]
fn a_person_is_refused_once_and_the_configuration_insists() {
    for (claim, again) in [(Claim::Once, false), (Claim::Insist, true)] {
        let mut ledger = Ledger::default();
        ledger.place(vec![placement(1, 2)]);
        let questions = ledger.want(Role::Active, claim);
        answer_all(&mut ledger, &questions, &RIVAL);
        assert_eq!(ledger.wants_retry(), again);
        let questions = ledger.retry();
        assert_eq!(asks(&questions).len(), usize::from(again));
        answer_all(&mut ledger, &questions, &Answer::Free);
        assert_eq!(ledger.role() == Role::Active, again);
        assert_eq!(ledger.refusal().is_none(), again);
    }
}

#[test]
fn a_forced_claim_asks_nobody() {
    for claim in [Claim::Forced, Claim::Resume] {
        let mut ledger = Ledger::default();
        ledger.place(vec![placement(1, 2)]);
        let actions = ledger.want(Role::Active, claim);
        assert_eq!((asks(&actions).len(), done(&actions).len()), (0, 4));
        let later = ledger.place(vec![placement(1, 2), placement(2, 2)]);
        assert_eq!(asks(&later).len(), usize::from(claim == Claim::Resume));
    }
}

#[test]
fn leaving_gives_up_in_reverse_and_forgets_open_questions() {
    let mut ledger = active(&[placement(1, 2)]);
    let questions = ledger.place(vec![placement(1, 2), placement(2, 2)]);
    let actions = ledger.want(Role::Backup, Claim::Once);
    use Step::{RemoveAddress, RevokeLease, Silence};
    assert_eq!(done(&actions), [(Silence, 1), (RemoveAddress, 1), (RevokeLease, 1)]);
    assert_eq!(answer_all(&mut ledger, &questions, &Answer::Free), []);
    assert_eq!(ledger.refresh(), []);
}

#[test]
fn the_lease_is_refreshed_before_the_address() {
    let ledger = active(&[placement(1, 2)]);
    let expected = [(Step::GrantLease, 1), (Step::AddAddress, 1)];
    assert_eq!(done(&ledger.refresh()), expected);
}

#[test]
fn a_vip_that_comes_later_stands_for_itself() {
    let mut ledger = active(&[placement(1, 2)]);
    let questions = ledger.place(vec![placement(1, 2), placement(2, 2)]);
    assert_eq!(asks(&questions).len(), 1);
    assert_eq!(answer_all(&mut ledger, &questions, &RIVAL), []);
    assert_eq!(ledger.role(), Role::Active);
    assert!(ledger.holds([192, 0, 2, 1].into()) && !ledger.holds([192, 0, 2, 2].into()));
    assert!(ledger.wants_retry());
    let questions = ledger.retry();
    let actions = answer_all(&mut ledger, &questions, &Answer::Free);
    assert_eq!(done(&actions).len(), 4);
}

#[test]
fn a_vip_that_is_no_longer_placed_is_given_up() {
    let mut ledger = active(&[placement(1, 2), placement(2, 2)]);
    let actions = ledger.place(vec![placement(2, 2)]);
    use Step::{RemoveAddress, RevokeLease, Silence};
    assert_eq!(done(&actions), [(Silence, 1), (RemoveAddress, 1), (RevokeLease, 1)]);
    assert!(ledger.holds([192, 0, 2, 2].into()));
}

#[test]
fn a_vip_follows_its_interface() {
    let mut ledger = active(&[placement(1, 2)]);
    let actions = ledger.place(vec![placement(1, 3)]);
    assert_eq!(done(&actions).len(), 7);
    assert!(
        matches!(&actions[1], Action::Perform(Step::RemoveAddress, p) if p == &placement(1, 2))
    );
    assert!(matches!(&actions[6], Action::Perform(Step::Announce, p) if p == &placement(1, 3)));
    let mut other_mac = placement(1, 3);
    other_mac.interface.mac = [4; 6];
    assert_eq!(done(&ledger.place(vec![other_mac])), [(Step::Announce, 1)]);
}

#[test]
fn a_vip_that_cannot_be_held_leaves_the_others_alone() {
    let mut ledger = Ledger::default();
    ledger.place(vec![placement(1, 2), placement(2, 2)]);
    let asked = asks(&ledger.want(Role::Active, Claim::Insist));
    let failed = Answer::Unknown("IPv6 is disabled on eth2".to_owned());
    ledger.answered(asked[0].0, asked[0].1, failed.clone());
    ledger.answered(asked[1].0, asked[1].1, Answer::Free);
    assert_eq!(ledger.role(), Role::Active);
    let states: Vec<_> = ledger.placements().map(|(_, held, why)| (held, why)).collect();
    assert_eq!(states, [(false, Some("IPv6 is disabled on eth2")), (true, None)]);

    let mut alone = Ledger::default();
    alone.place(vec![placement(1, 2)]);
    let questions = alone.want(Role::Active, Claim::Insist);
    answer_all(&mut alone, &questions, &failed);
    assert_eq!((alone.role(), alone.refusal()), (Role::Backup, Some("IPv6 is disabled on eth2")));
}

#[test]
fn without_a_vip_a_node_can_be_active() {
    let mut ledger = Ledger::default();
    assert_eq!(ledger.want(Role::Active, Claim::Insist), []);
    assert_eq!(ledger.role(), Role::Active);
}

proptest::proptest! {
    /// Whatever happens: what was granted is revoked once, and a Backup holds nothing.
    #[test]
    fn every_grant_is_revoked_and_a_backup_holds_nothing(
        events in proptest::collection::vec((0u8..6, 0u8..4, 2u32..4), 0..60)
    ) {
        let mut ledger = Ledger::default();
        let mut leased = std::collections::BTreeSet::new();
        let mut open = Vec::new();
        for (kind, mask, ifindex) in events {
            let actions = match kind {
                0 => ledger.want(Role::Active, Claim::Insist),
                1 => ledger.want(Role::Backup, Claim::Once),
                2 => {
                    let vips = (0..2).filter(|bit| mask & 1 << bit != 0);
                    ledger.place(vips.map(|last| placement(last, ifindex)).collect())
                }
                3 => ledger.retry(),
                _ => {
                    let answer = if mask == 0 { RIVAL } else { Answer::Free };
                    let questions = std::mem::take(&mut open);
                    answer_all(&mut ledger, &questions, &answer)
                }
            };
            for (step, vip) in done(&actions) {
                match step {
                    Step::GrantLease => assert!(leased.insert(vip), "{vip} granted twice"),
                    Step::RevokeLease => assert!(leased.remove(&vip), "{vip} revoked twice"),
                    _ => {}
                }
            }
            open.extend(actions.into_iter().filter(|a| matches!(a, Action::Ask(..))));
            let held = ledger.placements().filter(|(_, held, _)| *held).count();
            assert_eq!(held, leased.len());
            assert!(ledger.role() == Role::Active || held == 0);
        }
    }
}
