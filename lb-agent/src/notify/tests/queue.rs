//! The queue: order, what is folded where too many wait, and what goes to disk.

use proptest::prelude::*;

use super::{event, role, router, trouble, turn};
use crate::notify::notice::{Event, Family, Notice, State, What};
use crate::notify::queue::{Leftovers, Queue, WAITING_MAX, Work};

fn queue() -> Queue {
    Queue::new("master1", "run", Leftovers::default())
}

/// Delivers everything, in order.
fn drain(queue: &mut Queue) -> Vec<Notice> {
    let mut delivered = Vec::new();
    while let Some(notice) = queue.first().cloned() {
        queue.first_delivered();
        delivered.push(notice);
    }
    delivered
}

fn write(queue: &mut Queue) -> Work {
    let work = queue.work();
    queue.done(&work);
    assert!(!queue.is_unsaved());
    work
}

fn numbers(notices: &[Notice]) -> Vec<u64> {
    notices.iter().map(|notice| notice.sequence).collect()
}

#[test]
fn notices_come_in_order_and_are_numbered_without_gaps() {
    let mut queue = queue();
    for number in 0..100 {
        queue.push(turn(number));
    }
    assert_eq!(numbers(&drain(&mut queue)), (1..=100).collect::<Vec<u64>>());
}

#[test]
fn numbers_go_on_after_a_restart_whether_or_not_something_waited() {
    let mut first = queue();
    first.push(turn(0));
    first.push(turn(1));
    first.first_delivered();
    let work = write(&mut first);
    for notices in [work.write, Vec::new()] {
        let waiting = notices.len();
        let delivered = if waiting == 0 { 2 } else { 1 };
        let mut next = Queue::new("master1", "next", Leftovers { delivered, notices });
        assert_eq!(next.len(), waiting);
        next.push(turn(2));
        assert_eq!(
            drain(&mut next).last().map(|n| (n.sequence, &*n.run == "next")),
            Some((3, true))
        );
    }
}

#[test]
fn what_was_delivered_before_a_crash_is_not_told_again_and_its_file_goes() {
    let mut first = queue();
    first.push(turn(0));
    first.push(turn(1));
    let notices = write(&mut first).write;
    let mut next = Queue::new("master1", "next", Leftovers { delivered: 1, notices });
    assert_eq!(write(&mut next).remove, [1]);
    assert_eq!(numbers(&drain(&mut next)), [2]);
}

#[test]
fn where_too_many_wait_the_newest_state_is_kept_and_the_folded_are_counted() {
    let mut queue = queue();
    let last = WAITING_MAX as u64 + 100;
    for number in 0..=last {
        queue.push(turn(number));
    }
    assert_eq!((queue.len(), queue.folded()), (WAITING_MAX, 101));
    let all = drain(&mut queue);
    assert_eq!(all.iter().map(|notice| notice.folded).sum::<u64>(), 101);
    assert_eq!(all[0].sequence, 1, "the first may be on its way");
    assert_eq!((all[1].sequence, all[1].folded), (103, 101), "the oldest are folded into one");
    let newest = all.last().expect("some");
    let expected = turn(last).what;
    assert_eq!((newest.sequence, &newest.what, newest.folded), (last + 1, &expected, 0));
}

/// Every change of role is told or is a part of one that is: the chain has no hole.
#[test]
fn folded_roles_begin_where_the_oldest_of_them_began() {
    let mut queue = queue();
    queue.push(role(State::Initialize, State::Backup, "first"));
    for number in 0..WAITING_MAX as u64 + 5 {
        queue.push(turn(number));
    }
    let mut state = State::Initialize;
    for notice in drain(&mut queue) {
        let What::Role { from, to, .. } = notice.what else { panic!("only roles") };
        assert_eq!(from, state, "{}", notice.sequence);
        state = to;
    }
}

#[test]
fn routers_are_folded_each_for_itself() {
    let mut queue = queue();
    let of = |family| {
        let what = |from, to| What::Role { from, to, reason: String::new() };
        event(router(family), what(State::Backup, State::Active))
    };
    queue.push(of(Family::Ipv4));
    queue.push(of(Family::Ipv6));
    for number in 0..WAITING_MAX as u64 {
        queue.push(turn(number));
    }
    let all = drain(&mut queue);
    let v6: Vec<_> = all.iter().filter(|n| n.router.family == Some(Family::Ipv6)).collect();
    assert_eq!(v6.len(), 1);
    assert_eq!(v6[0].folded, 0);
}

#[test]
fn trouble_gives_way_to_roles() {
    let mut queue = queue();
    for _ in 0..WAITING_MAX {
        queue.push(trouble("ttl"));
    }
    for number in 0..500 {
        queue.push(turn(number));
    }
    let all = drain(&mut queue);
    let roles: Vec<_> = all.iter().filter(|notice| notice.what.is_role()).collect();
    assert_eq!(roles.len(), 500);
    assert!(roles.iter().all(|notice| notice.folded == 0));
    assert_eq!(all.len() as u64 + queue.folded(), WAITING_MAX as u64 + 500);
}

#[test]
fn trouble_without_end_and_never_alike_takes_bounded_room() {
    let mut queue = queue();
    for number in 0..3 * WAITING_MAX {
        queue.push(trouble(&number.to_string()));
    }
    assert_eq!(queue.len(), WAITING_MAX);
}

#[test]
fn what_failed_on_disk_is_tried_again() {
    let mut queue = queue();
    queue.push(turn(0));
    let failed = queue.work();
    queue.push(turn(1));
    let again = queue.work();
    assert_eq!((numbers(&failed.write), numbers(&again.write)), (vec![1], vec![1, 2]));
}

#[test]
fn a_notice_that_was_folded_while_it_was_written_is_written_anew() {
    let mut queue = queue();
    for number in 0..WAITING_MAX as u64 {
        queue.push(turn(number));
    }
    let work = queue.work();
    queue.push(turn(WAITING_MAX as u64));
    queue.done(&work);
    let then = queue.work();
    assert_eq!(numbers(&then.write), [3, WAITING_MAX as u64 + 1]);
    assert_eq!(then.remove, [2]);
}

#[derive(Clone, Debug)]
enum Step {
    Push(Event),
    Deliver,
    /// True: it succeeds.
    Write(bool),
    /// SIGKILL, and the next run.
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u64..1000).prop_map(|number| Step::Push(turn(number))),
        3 => Just(Step::Deliver),
        3 => any::<bool>().prop_map(Step::Write),
        1 => Just(Step::Crash),
    ]
}

proptest! {
    /// A disk as a map: what was written stays, through crashes at any moment.
    #[test]
    fn what_was_on_disk_is_told_in_order(steps in prop::collection::vec(step(), 0..200)) {
        let mut disk = std::collections::BTreeMap::new();
        let (mut noted, mut run) = (0, 0);
        let mut queue = Queue::new("n", "0", Leftovers::default());
        let (mut saved, mut told) = (Vec::new(), Vec::new());
        for step in steps {
            match step {
                Step::Push(event) => queue.push(event),
                Step::Deliver => {
                    told.extend(queue.first().cloned());
                    queue.first_delivered();
                }
                Step::Write(succeeds) => {
                    let work = queue.work();
                    for notice in work.write.iter().take(if succeeds { usize::MAX } else { 1 }) {
                        disk.insert(notice.sequence, notice.clone());
                        saved.push((notice.run.clone(), notice.sequence));
                    }
                    if succeeds {
                        noted = work.delivered.unwrap_or(noted);
                        for sequence in &work.remove {
                            disk.remove(sequence);
                        }
                        queue.done(&work);
                    }
                }
                Step::Crash => {
                    run += 1;
                    let notices = disk.values().cloned().collect();
                    queue = Queue::new("n", &run.to_string(), Leftovers { delivered: noted, notices });
                }
            }
        }
        told.extend(drain(&mut queue));
        let keys: Vec<_> = told.iter().map(|n| (n.run.clone(), n.sequence)).collect();
        for key in &saved {
            prop_assert!(keys.contains(key), "{key:?} was lost");
        }
        // Told again after a crash at most; and the first time each was told is in order.
        let mut first = Vec::new();
        for key in keys {
            if !first.contains(&key) {
                first.push(key);
            }
        }
        let of_run = |wanted: i32| -> Vec<u64> {
            let wanted = wanted.to_string();
            first.iter().filter(|(run, _)| *run == wanted).map(|(_, n)| *n).collect()
        };
        for run in 0..=run {
            prop_assert!(of_run(run).is_sorted());
        }
    }
}
