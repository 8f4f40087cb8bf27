//! "Noting".

use std::collections::BTreeMap;

use lb_common::backend::{BackendCounters, NO_BACKEND};
use lb_common::counter::Verdict;
use lb_common::flow::Flow;
use lb_common::service::{NOTED, Service, TCP};

use super::Outcome;
use super::parse::Packet;
use super::state::State;

/// What is noted of a segment, by what became of it; `counted` are the backends' counters before.
pub(super) fn note(
    state: &mut State,
    service: &Service,
    frame: &[u8],
    packet: &Packet,
    outcome: &Outcome,
    counted: &BTreeMap<u32, BackendCounters>,
) {
    if service.flags & NOTED == 0 || packet.tuple.protocol != TCP {
        return;
    }
    let header = &frame[packet.transport..];
    let number = |at: usize| {
        u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let has = |flag: u8| header[13] & flag != 0;
    let (fin, syn, rst, psh) = (has(1), has(2), has(4), has(8));
    let ended = outcome.verdict == Some(Verdict::Nobody);
    // "One with FIN or RST, or with PSH that nobody owns, forgets it."
    if fin || rst || psh && ended {
        state.flows.remove(&packet.tuple);
        return;
    }
    // "That has PSH and no SYN, and goes to somebody."
    let went = matches!(
        outcome.verdict,
        Some(
            Verdict::LocalEstablished
                | Verdict::LocalCookie
                | Verdict::DirectEstablished
                | Verdict::DirectNext
                | Verdict::DirectLast
                | Verdict::NatForward
                | Verdict::NatNew
        )
    );
    if !psh || syn || !went {
        return;
    }
    let moved = state.backend_counters.iter().find(|(index, it)| counted.get(*index) != Some(*it));
    let backend = moved.map_or(NO_BACKEND, |(index, _)| *index);
    // "The backend is that of the first one noted."
    let flow = state.flows.entry(packet.tuple).or_insert(Flow { backend, ..Flow::default() });
    (flow.sequence_be, flow.acknowledged_be) = (number(4), number(8));
}
