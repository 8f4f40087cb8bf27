//! "Noting".

use lb_common::backend::{ALIVE, NO_BACKEND};
use lb_common::flow::Flow;
use lb_common::service::{NOTED, Service, TCP};

use super::choose::ranked;
use super::parse::Packet;
use super::state::State;

/// What is noted of a segment from outside.
pub(super) fn note(state: &mut State, service: &Service, frame: &[u8], packet: &Packet) {
    if service.flags & NOTED == 0 || packet.tuple.protocol != TCP {
        return;
    }
    let header = &frame[packet.transport..];
    let number = |at: usize| {
        u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let has = |flag: u8| header[13] & flag != 0;
    let (fin, syn, rst, psh) = (has(1), has(2), has(4), has(8));
    // "With FIN or RST."
    if fin || rst {
        state.flows.remove(&packet.tuple);
    } else if psh && !syn {
        // "The first of the first two ranks that is ALIVE."
        let ranked = ranked(state, service, packet).unwrap_or_default();
        let likely = ranked.iter().take(2).find(|rank| rank.backend.state & ALIVE != 0);
        let backend = likely.map_or(NO_BACKEND, |rank| rank.index);
        let flow = state.flows.entry(packet.tuple).or_insert(Flow { backend, ..Flow::default() });
        (flow.sequence_be, flow.acknowledged_be) = (number(4), number(8));
    }
}
