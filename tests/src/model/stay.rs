//! "Staying": datagrams that go where the ones before went, or to the server that their connection id names.

use lb_common::affinity::Affinity;
use lb_common::backend::{ALIVE, Delivery};
use lb_common::counter::Verdict;
use lb_common::quic::{Scheme, ServerId};
use lb_common::service::{HAS_NAT, STAYS, Service, UDP};

use super::choose::{self, Choice};
use super::parse::Packet;
use super::state::State;
use super::steer::carry_out;
use super::{Action, Outcome, deliver, nat, parse};

/// A time is "written at most once a second".
const TOUCH_NS: u64 = 1_000_000_000;

/// What becomes of a datagram to a service whose datagrams stay.
pub(super) fn steer(
    state: &mut State,
    frame: &[u8],
    packet: &Packet,
    interface: u32,
    service: &Service,
) -> Outcome {
    // "The first of these that is to be had."
    let named = named(state, frame, packet, service)
        .and_then(|index| Some((index, to(state, packet, index)?)));
    // "A NAT entry [..] goes, where the connection id names another backend than its."
    if service.flags & HAS_NAT != 0
        && let Some(entry) = state.nat_flows.get(&packet.tuple).copied()
    {
        if named.is_some_and(|(index, _)| index != entry.backend) {
            nat::forget(state, &packet.tuple, &entry);
        } else if let Some(outcome) = nat::from_client(state, frame, packet) {
            return outcome;
        }
    }
    let noted = noted(state, packet, service);
    let stays = named
        .map(|(_, choice)| choice)
        .or_else(|| noted.and_then(|index| to(state, packet, index)));
    let (choice, new) = match stays {
        Some(choice) => (choice, noted.is_none()),
        None => match choose::ranked(state, service, packet) {
            Some(ranked) => (choose::choose(state, packet, &ranked), true),
            None => return Outcome::passed(Verdict::Inconsistent, frame),
        },
    };
    let mut outcome = carry_out(state, frame, packet, interface, choice, new);
    let backend = match choice {
        Choice::Here { backend, .. } => backend,
        Choice::Carry { backend, .. } => Some(backend),
        _ => None,
    };
    let Some(index) = backend else { return outcome };
    // "Whom it went to is noted."
    let gone =
        outcome.verdict == Some(Verdict::LocalUdp) || matches!(outcome.action, Action::Send(_));
    if gone && service.affinity_ns() != 0 {
        note(state, packet, index);
    }
    // "The destination is rewritten to it, and the reply's tuple remembered."
    if matches!(choice, Choice::Here { .. }) {
        let backend = state.backends[index as usize];
        deliver::address_to(state, &mut outcome.frame, packet, &backend);
    }
    outcome
}

/// "An ICMP error goes to whom the client's last datagram went": `packet` has the quoted tuple, turned round.
pub(super) fn whom_to_tell(state: &State, packet: &Packet, service: &Service) -> Option<Choice> {
    if service.flags & STAYS == 0 || packet.tuple.protocol != UDP {
        return None;
    }
    to(state, packet, noted(state, packet, service)?)
}

/// "The backend that the connection id names."
fn named(state: &State, frame: &[u8], packet: &Packet, service: &Service) -> Option<u32> {
    let scheme = Scheme::of(service)?;
    let payload = packet.transport + 8;
    let long = parse::byte(frame, payload)? & 0x80 != 0;
    let at = if long {
        let length = parse::byte(frame, payload + 5)?;
        if length < 1 + scheme.id_bytes {
            return None;
        }
        payload + 6
    } else {
        payload + 1
    };
    // "Nine octets of it are there."
    let octets = frame.get(at..at + 9)?;
    if octets[0] >> 5 != scheme.rotation {
        return None;
    }
    let id = octets[1..].iter().take(usize::from(scheme.id_bytes));
    let id = id.fold(0, |id, octet| id << 8 | u64::from(*octet));
    let key = ServerId { backends: service.backends, padding: 0, id };
    Some(service.backends + state.server_ids.get(&key)?)
}

/// "The backend that is noted, if that was within `affinity` and the service still has it at its place."
fn noted(state: &State, packet: &Packet, service: &Service) -> Option<u32> {
    let affinity = state.affinities.get(&packet.tuple)?;
    let index = affinity.backend;
    let ours = (service.backends..service.backends + service.backend_count).contains(&index);
    let backend = state.backend(index)?;
    let same = backend.address == affinity.address && backend.port_be == affinity.port_be;
    let lately = state.now_ns - affinity.last_seen_ns < service.affinity_ns();
    (ours && same && lately).then_some(index)
}

/// The way there, if it lives; "from a peer only to a socket here".
fn to(state: &State, packet: &Packet, index: u32) -> Option<Choice> {
    let backend = state.backend(index)?;
    if backend.state & ALIVE == 0 {
        return None;
    }
    let from_peer = state.is_peer(&packet.link.from);
    let is = |delivery: Delivery| backend.delivery == delivery as u8;
    let socket = (backend.address, u16::from_be(backend.port_be));
    if is(Delivery::Local) && state.sockets.datagrams.contains(&socket) {
        return Some(Choice::Here { verdict: Verdict::LocalUdp, backend: Some(index) });
    }
    if is(Delivery::Direct) && !from_peer {
        let verdict = Verdict::DirectEstablished;
        return Some(Choice::Carry { verdict, backend: index, ttl_limit: u8::MAX });
    }
    (is(Delivery::Nat) && !from_peer).then_some(Choice::Translate { backend: index })
}

fn note(state: &mut State, packet: &Packet, index: u32) {
    let (backend, now_ns) = (state.backends[index as usize], state.now_ns);
    let new = Affinity::new(&backend, index, now_ns);
    let noted = state.affinities.entry(packet.tuple).or_insert(new);
    let same = Affinity { last_seen_ns: noted.last_seen_ns, ..new } == *noted;
    if !same || now_ns - noted.last_seen_ns >= TOUCH_NS {
        *noted = new;
    }
}
