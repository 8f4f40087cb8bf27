//! "Failed connections": what new connections come to.

use lb_common::layout::size::SYNS;
use lb_common::nat::{FROM_BACKEND, NatEntry, SEEN_SYN};
use lb_common::passive::{syn_hash, syn_place};

use super::nat::partner;
use super::parse::Packet;
use super::state::State;

const HALF_A_SECOND_NS: u64 = 500_000_000;
const LONGEST_NS: u64 = 64_000_000_000;

/// A SYN that is remembered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Syn {
    hash: u64,
    came_ns: u64,
    counted: bool,
}

/// Of one backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Failures {
    pub refused: u64,
    pub unanswered: u64,
}

/// "A SYN that comes again: [..] with the tuple, the sequence number and the backend of one that was half a second to
/// 64 seconds ago: unanswered, once for each try." "A place has the last one only."
pub(super) fn sent(state: &mut State, frame: &[u8], packet: &Packet, backend: u32) {
    let number = &frame[packet.transport + 4..packet.transport + 8];
    let sequence_be = u32::from_ne_bytes([number[0], number[1], number[2], number[3]]);
    let hash = syn_hash(&packet.tuple, sequence_be, backend);
    let place = syn_place(hash);
    debug_assert!((place as usize) < SYNS);
    let new = Syn { hash, came_ns: state.now_ns, counted: false };
    match state.syns.get_mut(&place) {
        Some(known) if known.hash == hash && state.now_ns - known.came_ns <= LONGEST_NS => {
            let again = state.now_ns - known.came_ns >= HALF_A_SECOND_NS && !known.counted;
            known.counted |= again;
            state.failures.entry(backend).or_default().unanswered += u64::from(again);
        }
        _ => drop(state.syns.insert(place, new)),
    }
    forget_none(state);
}

/// "A reset from the backend of a NAT flow whose client's entry has `SEEN_SYN` alone: refused."
pub(super) fn returned(state: &mut State, packet: &Packet, entry: &NatEntry) {
    let client = state.nat_flows.get(&partner(&packet.tuple, entry));
    if entry.direction == FROM_BACKEND
        && packet.rst
        && client.is_some_and(|client| client.seen == SEEN_SYN)
    {
        refused(state, entry.backend);
    }
}

pub(super) fn refused(state: &mut State, backend: u32) {
    state.failures.entry(backend).or_default().refused += 1;
}

/// Whoever has not failed has no entry, as in what is read of the map.
fn forget_none(state: &mut State) {
    state.failures.retain(|_, failures| *failures != Failures::default());
}
