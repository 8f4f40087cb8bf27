//! "Fragments": the following ones go where the first one went.

use std::collections::BTreeMap;

use lb_common::Address;
use lb_common::backend::{BackendCounters, NO_BACKEND};
use lb_common::counter::Verdict;
use lb_common::fragment::{Fragment, FragmentKey, LEAVING};
use lb_common::service::UDP;

use super::parse::{self, Family, Packet};
use super::state::State;
use super::steer::is_another_host_s;
use super::{Action, Outcome, rewrite};

/// "For 5 s."
const REMEMBERED_NS: u64 = 5_000_000_000;

/// "What becomes of a first fragment is remembered"; `counted` are the backends' counters before.
pub(super) fn first(
    state: &mut State,
    packet: &Packet,
    outcome: &Outcome,
    counted: &BTreeMap<u32, BackendCounters>,
) {
    let Some(key) = packet.fragment else { return };
    if outcome.action == Action::Drop {
        state.fragments.remove(&key);
        return;
    }
    // "Unless it is another machine's."
    if outcome.verdict == Some(Verdict::OtherHost) {
        return;
    }
    let Some(link) = parse::link(&outcome.frame) else { return };
    let moved = state.backend_counters.iter().find(|(index, it)| counted.get(*index) != Some(*it));
    let (sent, ifindex) = match outcome.action {
        Action::Send(interface) => (1, interface),
        _ => (0, 0),
    };
    let how = Fragment {
        backend: moved.map_or(NO_BACKEND, |(index, _)| *index),
        ifindex,
        mac: link.to,
        source_mac: link.from,
        ttl: ttl(&outcome.frame, packet),
        sent,
        protocol: packet.tuple.protocol,
        ..Fragment::EMPTY
    };
    remember(state, key, packet, &outcome.frame, how);
}

/// Remembers a first fragment by a key, as it went on.
fn remember(state: &mut State, key: FragmentKey, packet: &Packet, frame: &[u8], how: Fragment) {
    let Some((source, destination)) = addresses(frame, packet) else { return };
    let seen_ns = state.now_ns;
    state.fragments.insert(key, Fragment { source, destination, seen_ns, ..how });
}

fn addresses(frame: &[u8], packet: &Packet) -> Option<(Address, Address)> {
    let ip = parse::ip(frame, packet.ip.at, packet.ip.family)?;
    Some((ip.source, ip.destination))
}

fn ttl(frame: &[u8], packet: &Packet) -> u8 {
    frame[packet.ip.at + if packet.ip.family == Family::V4 { 8 } else { 7 }]
}

/// The first fragment, if that was seen in time.
fn recalled(state: &State, key: &FragmentKey) -> Option<Fragment> {
    let first = state.fragments.get(key)?;
    (state.now_ns - first.seen_ns < REMEMBERED_NS).then_some(*first)
}

/// "A following fragment."
pub(super) fn following(
    state: &mut State,
    frame: &[u8],
    packet: &Packet,
    interface: u32,
) -> Outcome {
    if is_another_host_s(state, packet, interface) {
        return Outcome::passed(Verdict::OtherHost, frame);
    }
    let first = packet.fragment.and_then(|key| recalled(state, &key));
    let Some(first) = first else { return Outcome::passed(Verdict::Fragment, frame) };
    let sent = first.sent != 0;
    if sent && packet.ip.ttl <= 1 {
        return Outcome::dropped(Verdict::TtlExceeded, frame);
    }
    if first.backend != NO_BACKEND {
        state.count_backend(first.backend, frame, false);
    }
    if !sent {
        return Outcome::passed(Verdict::FragmentLocal, frame);
    }
    let mut out = frame.to_vec();
    rewrite::macs(&mut out, first.mac, first.source_mac);
    rewrite::addresses(&mut out, &packet.ip, &first.source, &first.destination);
    rewrite::ttl(&mut out, &packet.ip, (packet.ip.ttl - 1).min(first.ttl));
    Outcome::sent(Verdict::FragmentForward, first.ifindex, out)
}

/// "Delivery gives following fragments of a datagram that steering left here its backend's address."
pub(super) fn delivered(state: &State, frame: &[u8], packet: &Packet) -> Option<Outcome> {
    let first = recalled(state, &packet.fragment?)?;
    if first.sent != 0 || first.protocol != UDP || first.backend == NO_BACKEND {
        return None;
    }
    let backend = state.backend(first.backend)?;
    let mut outcome = Outcome::passed(Verdict::UdpDelivered, frame);
    rewrite::addresses(&mut outcome.frame, &packet.ip, &first.source, &backend.address);
    Some(outcome)
}

/// "Egress remembers in the same way what it rewrote": the first fragment, which left as `rewritten` where it
/// was.
pub(super) fn first_leaves(state: &mut State, packet: &Packet, rewritten: Option<&Outcome>) {
    let Some(key) = packet.fragment.map(leaving) else { return };
    match rewritten {
        Some(outcome) => remember(state, key, packet, &outcome.frame, Fragment::EMPTY),
        None => {
            state.fragments.remove(&key);
        }
    }
}

const fn leaving(key: FragmentKey) -> FragmentKey {
    FragmentKey { at: LEAVING, ..key }
}

/// A following one, there.
pub(super) fn following_leaves(state: &State, frame: &[u8], packet: &Packet) -> Option<Outcome> {
    let first = recalled(state, &leaving(packet.fragment?))?;
    let mut outcome = Outcome::passed(Verdict::UdpReply, frame);
    rewrite::addresses(&mut outcome.frame, &packet.ip, &first.source, &first.destination);
    Some(outcome)
}
