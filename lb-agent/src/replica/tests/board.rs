//! For whom a node waits, and what is counted.

use std::time::{Duration, Instant};

use super::super::board::{Board, Refusal};

fn board() -> Board {
    Board::new(["master2", "master3"].map(str::to_owned))
}

#[test]
fn a_node_waits_until_each_peer_has_told_all_or_cannot_be_reached() {
    let (board, now) = (board(), Instant::now());
    assert_eq!(board.waits_for(now), None);
    board.wait(now);
    assert_eq!(board.waits_for(now).as_deref(), Some("master2"));
    board.told(0);
    assert_eq!(board.waits_for(now).as_deref(), Some("master3"));
    board.failed(1, Instant::now(), "refused");
    assert_eq!(board.waits_for(now), None);
}

#[test]
fn what_was_before_says_nothing_of_now() {
    let (board, before) = (board(), Instant::now());
    board.told(0);
    board.told(1);
    let now = Instant::now() + Duration::from_secs(1);
    board.wait(now);
    // An attempt that began while this node was cut off.
    board.failed(0, before, "no route to host");
    assert_eq!(board.waits_for(now).as_deref(), Some("master2"));
}

#[test]
fn it_waits_for_ten_seconds_and_no_longer() {
    let (board, now) = (board(), Instant::now());
    board.wait(now);
    assert!(board.waits_for(now + Duration::from_millis(9_999)).is_some());
    assert_eq!(board.waits_for(now + Duration::from_secs(10)), None);
    assert_eq!(board.waits_for(now), None, "and not again");
}

#[tokio::test]
async fn who_waits_hears_of_a_change() {
    let board = board();
    board.wait(Instant::now());
    board.told(0);
    board.changed().await;
    assert_eq!(board.waits_for(Instant::now()).as_deref(), Some("master3"));
}

#[test]
fn what_is_refused_is_counted_where_it_came_from() {
    let board = board();
    board.refused(Some(1), Refusal::Key);
    board.refused(None, Refusal::Stranger);
    let counts: Vec<u64> = board.peers().iter().map(|p| p.refused[&Refusal::Key]).collect();
    assert_eq!((counts, board.strangers()), (vec![0, 1], 1));
}

#[test]
fn every_refusal_has_a_name_of_its_own() {
    let mut names = Refusal::ALL.map(Refusal::name);
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
}
