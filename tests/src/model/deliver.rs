//! "Delivery: tc ingress": what steering left here and begins something is handed to a socket.

use lb_common::backend::{ACCEPTS, Backend, Delivery};
use lb_common::counter::Verdict;
use lb_common::flow::{Endpoint, FlowKey};
use lb_common::service::{HAS_LOCAL, ServiceKey, UDP};
use lb_common::settings::COOKIE_WATCH_NS;

use super::parse::{self, Family, Kind, Packet};
use super::state::State;
use super::{Outcome, choose, fragment, passive, rewrite};

/// What becomes of a frame that steering passed. `assigns` is whether a listener can be assigned to it: the kernel's
/// test runs have no way to.
pub fn deliver(state: &mut State, frame: &[u8], assigns: bool) -> Outcome {
    handed_over(state, frame, assigns).unwrap_or_else(|| Outcome::untouched(frame))
}

fn read(state: &State, frame: &[u8]) -> Option<Packet> {
    let link = parse::link(frame)?;
    let family = match link.ethertype {
        parse::ETHERTYPE_IPV4 => Family::V4,
        parse::ETHERTYPE_IPV6 => Family::V6,
        _ => return None,
    };
    let ip = parse::ip(frame, link.end, family)?;
    if !state.filter.may_contain(&ip.destination) {
        return None;
    }
    // Where it came in is no matter here.
    parse::packet(frame, link, ip, 0).ok()
}

/// "It looks only at SYNs and datagrams to services with a backend here." Nothing where it does not.
fn handed_over(state: &mut State, frame: &[u8], assigns: bool) -> Option<Outcome> {
    let packet = read(state, frame)?;
    match packet.kind {
        Kind::Following => fragment::delivered(state, frame, &packet),
        // "A segment in pieces is not delivered."
        Kind::Syn | Kind::Segment if packet.fragment.is_some() => None,
        _ => whole(state, frame, &packet, assigns),
    }
}

fn whole(state: &mut State, frame: &[u8], packet: &Packet, assigns: bool) -> Option<Outcome> {
    if !packet.is_new() {
        return acknowledged(state, frame, packet, assigns);
    }
    let key = ServiceKey {
        address: packet.tuple.destination,
        port_be: packet.tuple.destination_port_be,
        protocol: packet.tuple.protocol,
        padding: 0,
    };
    let service = *state.services.get(&key)?;
    if service.flags & HAS_LOCAL == 0 {
        return None;
    }
    let ranked = choose::ranked(state, &service, packet)?;
    let local = *ranked.iter().find(|rank| rank.backend.delivery == Delivery::Local as u8)?;
    let (index, local) = (local.index, local.backend);
    if local.state & ACCEPTS == 0 {
        return None;
    }
    let socket = (local.address, u16::from_be(local.port_be));
    if packet.tuple.protocol != UDP {
        // "A SYN that was sent again" has a socket.
        if state.sockets.has_connection(&packet.tuple) {
            return None;
        }
        // "The listener on the backend's own address and port"; "the listener went meanwhile".
        return Some(match assigns && state.sockets.listeners.contains(&socket) {
            true => Outcome::passed(Verdict::Assigned, frame),
            false => {
                passive::refused(state, index);
                Outcome::passed(Verdict::AssignFailed, frame)
            }
        });
    }
    if !state.sockets.datagrams.contains(&socket) {
        return None;
    }
    let mut out = Outcome::passed(Verdict::UdpDelivered, frame);
    address_to(state, &mut out.frame, packet, &local);
    Some(out)
}

/// "The destination is rewritten to it, and the reply's tuple remembered."
pub(super) fn address_to(state: &mut State, frame: &mut [u8], packet: &Packet, local: &Backend) {
    let reply = FlowKey {
        source: local.address,
        destination: packet.tuple.source,
        source_port_be: local.port_be,
        destination_port_be: packet.tuple.source_port_be,
        protocol: UDP,
        padding: [0; 3],
    };
    let asked = Endpoint {
        address: packet.tuple.destination,
        port_be: packet.tuple.destination_port_be,
        padding: [0; 2],
    };
    state.udp_replies.insert(reply, asked);
    rewrite::destination(frame, packet, &local.address, local.port_be);
}

/// "For two minutes after a valid SYN cookie was seen also at bare ACKs."
fn acknowledged(state: &State, frame: &[u8], packet: &Packet, assigns: bool) -> Option<Outcome> {
    let seen_ns = state.runtime.cookie_seen_ns;
    let about = seen_ns != 0 && state.now_ns - seen_ns < COOKIE_WATCH_NS;
    let is_cookie = packet.may_be_cookie && state.sockets.has_cookie(&packet.tuple);
    let verdict = if assigns { Verdict::Assigned } else { Verdict::AssignFailed };
    (about && is_cookie).then(|| Outcome::passed(verdict, frame))
}
