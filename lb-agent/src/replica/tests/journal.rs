//! What a peer is told of, and how often.

use std::time::Duration;

use lb_common::nat::{NatEntry, SEEN_FIN, SEEN_RST, SEEN_SYN};

use super::super::journal::Journal;
use super::{SECOND, flow};
use crate::dataplane::{Half, Translation};

const UDP: Duration = Duration::from_secs(120);
const TCP: Duration = Duration::from_secs(7440);

fn halves(flow: &Translation) -> [Half; 2] {
    [flow.forward, flow.back].map(|entry| Half {
        client: flow.client,
        entry,
        number: 1,
        translation: u32::from(flow.forward.source_port_be),
    })
}

/// Which flows a look tells of, and that the peer has heard it.
fn look(journal: &mut Journal, flows: &[Translation]) -> usize {
    let told = begin_look(journal, flows);
    journal.end_look();
    told
}

fn begin_look(journal: &mut Journal, flows: &[Translation]) -> usize {
    journal.begin_look(UDP, TCP);
    let mut told = 0;
    for flow in flows {
        for half in halves(flow) {
            if journal.may_be_due(&half) && journal.tell(&half, flow) {
                told += 1;
            }
        }
    }
    told
}

fn begun() -> Journal {
    let mut journal = Journal::default();
    journal.resume(None);
    journal
}

fn only_told(flow: &Translation) -> Translation {
    let mark = |entry: NatEntry| NatEntry { told: NatEntry::mark(entry.last_seen_ns), ..entry };
    Translation { client: flow.client, forward: mark(flow.forward), back: mark(flow.back) }
}

#[test]
fn a_flow_is_told_of_once_until_it_changes() {
    let mut journal = begun();
    assert_eq!(look(&mut journal, &[flow(1)]), 1);
    assert_eq!(look(&mut journal, &[flow(2)]), 0);
    let mut ends = flow(3);
    ends.back.seen |= SEEN_FIN;
    assert_eq!(look(&mut journal, &[ends]), 1);
    assert_eq!(look(&mut journal, &[ends]), 0);
    let mut moved = ends;
    moved.forward.source_port_be += 1;
    assert_eq!(look(&mut journal, &[moved]), 1);
}

#[test]
fn one_that_is_used_is_told_of_four_times_within_its_timeout() {
    let mut journal = begun();
    look(&mut journal, &[flow(1)]);
    assert_eq!(look(&mut journal, &[flow(1 + TCP.as_secs() / 4 - 1)]), 0);
    assert_eq!(look(&mut journal, &[flow(1 + TCP.as_secs() / 4)]), 1);
}

#[test]
fn what_is_not_open_yet_or_no_more_is_not_told_of() {
    for (client, backend) in [
        (SEEN_SYN, 0),
        (SEEN_SYN, flow(1).back.seen),
        (flow(1).forward.seen, 0),
        (flow(1).forward.seen | SEEN_RST, flow(1).back.seen),
        (flow(1).forward.seen | SEEN_FIN, flow(1).back.seen | SEEN_FIN),
    ] {
        let mut half_open = flow(1);
        (half_open.forward.seen, half_open.back.seen) = (client, backend);
        assert_eq!(look(&mut begun(), &[half_open]), 0, "{client:#b} {backend:#b}");
    }
}

#[test]
fn what_others_told_of_is_told_at_first_and_not_later() {
    let mut journal = begun();
    assert_eq!(look(&mut journal, &[only_told(&flow(1))]), 1);
    let mut changed = flow(1);
    changed.back.seen |= SEEN_FIN;
    assert_eq!(look(&mut journal, &[only_told(&changed)]), 0);
    let mut journal = begun();
    assert_eq!(look(&mut journal, &[]), 0);
    assert_eq!(look(&mut journal, &[only_told(&flow(1))]), 0);
    // A packet of this node's own.
    let mut used = only_told(&flow(1));
    used.forward.last_seen_ns += SECOND;
    assert_eq!(look(&mut journal, &[used]), 1);
}

#[test]
fn after_a_lost_connection_only_what_was_not_heard_is_told_again() {
    let mut other = flow(1);
    other.client.source_port_be += 1;
    let both = |journal: &mut Journal| {
        journal.begin_look(UDP, TCP);
        let mut told = Vec::new();
        for (number, flow) in [(1, flow(1)), (2, other)] {
            let [forward, _] = halves(&flow);
            let half = Half { number, ..forward };
            if journal.may_be_due(&half) && journal.tell(&half, &flow) {
                told.push(number);
            }
        }
        told
    };
    let mut journal = begun();
    assert_eq!(look(&mut journal, &[flow(1)]), 1);
    assert_eq!(both(&mut journal), [2]);
    journal.resume(Some(1));
    assert_eq!(both(&mut journal), [2]);
    journal.end_look();
    journal.resume(Some(3));
    assert_eq!(both(&mut journal), [0; 0]);
    for strange in [None, Some(0), Some(99), Some(u64::MAX)] {
        journal.resume(strange);
        assert_eq!(both(&mut journal), [1, 2], "{strange:?}");
    }
}

#[test]
fn a_flow_that_went_is_forgotten() {
    let mut journal = begun();
    look(&mut journal, &[flow(1)]);
    look(&mut journal, &[]);
    assert_eq!(look(&mut journal, &[flow(1)]), 1);
}
