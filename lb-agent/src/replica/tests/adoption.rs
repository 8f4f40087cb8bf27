//! What a node makes of a flow that it is told of, and why not.

use lb_common::backend::{Backend, Delivery};
use lb_common::nat::NatEntry;

use super::super::adoption::{Ways, told};
use super::super::board::Refusal;
use super::super::record::Record;
use super::{OWN_MAC, SECOND, flow, record, ways};

#[test]
fn the_entries_are_those_that_the_programs_would_have_made_and_are_marked() {
    let now_ns = 100 * SECOND;
    let adopted = ways().adopt(&record(), now_ns).expect("there is a way");
    let mut expected = flow(95);
    for entry in [&mut expected.forward, &mut expected.back] {
        entry.told = NatEntry::mark(entry.last_seen_ns);
    }
    assert_eq!(adopted, expected);
    assert!(adopted.forward.is_only_told() && adopted.back.is_only_told());
    assert_eq!(told(&record(), now_ns).used_ns, 95 * SECOND);
}

#[test]
fn a_flow_from_before_this_node_started_is_as_old_as_can_be() {
    let old = Record { silent_s: u32::MAX, ..record() };
    let adopted = ways().adopt(&old, SECOND).expect("there is a way");
    assert_eq!(adopted.forward.last_seen_ns, 0);
    assert!(adopted.forward.is_only_told());
}

#[test]
fn where_there_is_no_way_the_reason_is_named() {
    let with = |change: fn(&mut Ways)| {
        let mut ways = ways();
        change(&mut ways);
        ways
    };
    let direct = |(_, to): &mut (u32, Backend)| to.delivery = Delivery::Direct as u8;
    let mut carried = ways();
    carried.backends.values_mut().for_each(direct);
    for (refusal, ways, record) in [
        (Refusal::NoBackend, with(|ways| ways.backends.clear()), record()),
        (Refusal::NoBackend, carried, record()),
        (Refusal::NoPort, with(|ways| ways.ports = 62_000..=63_000), record()),
        (Refusal::NoLink, with(|ways| ways.vips.clear()), record()),
        (Refusal::OwnClient, ways(), Record { hop: Some(OWN_MAC), ..record() }),
        (Refusal::NoWayBack, ways(), Record { hop: None, ..record() }),
    ] {
        assert_eq!(ways.adopt(&record, SECOND), Err(refusal));
    }
}
