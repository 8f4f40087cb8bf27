//! "NAT": full translation, by two entries for each flow.

use lb_common::backend::{ACCEPTS, ALIVE};
use lb_common::bucket::slot;
use lb_common::counter::Verdict;
use lb_common::flow::FlowKey;
use lb_common::hash::{mix, nat_port_hash};
use lb_common::nat::{
    FROM_BACKEND, FROM_CLIENT, NatEntry, SEEN_DATA, SEEN_FIN, SEEN_RST, SEEN_SYN,
};

use super::carry::leaves_its_vlan;
use super::parse::{Kind, Packet};
use super::state::{NotMade, State};
use super::{Outcome, answer, parse, passive, rewrite};

/// "Up to 16 ports are tried."
const TRIES: u32 = 16;

/// An entry's time is "written at most once a second".
const TOUCH_NS: u64 = 1_000_000_000;

/// "TCP or UDP to a NAT port, with an entry: translated back, sent to the client." Nothing where
/// there is none.
pub(super) fn from_backend(state: &mut State, frame: &[u8], packet: &Packet) -> Option<Outcome> {
    let entry = *state.nat_flows.get(&packet.tuple)?;
    Some(translate(state, frame, packet, &entry, Verdict::NatReturn))
}

/// "To a service with NAT backends, and the flow has an entry: translated, sent to its backend."
/// Nothing where there is none any more.
pub(super) fn from_client(state: &mut State, frame: &[u8], packet: &Packet) -> Option<Outcome> {
    let entry = *state.nat_flows.get(&packet.tuple)?;
    // "A new SYN from an old client port, and its former backend no longer accepts, or its place is
    // another's; a datagram whose backend is not ALIVE: both entries go, and it chooses anew."
    let is = |wanted: u8| {
        state.backend(entry.backend).is_some_and(|it| {
            let same = it.address == entry.destination && it.port_be == entry.destination_port_be;
            same && it.state & wanted != 0
        })
    };
    let over = match packet.kind {
        Kind::Syn => !is(ACCEPTS),
        Kind::Datagram => !is(ALIVE),
        _ => false,
    };
    if over {
        forget(state, &packet.tuple, &entry);
        return None;
    }
    let outcome = translate(state, frame, packet, &entry, Verdict::NatForward);
    if matches!(outcome.verdict, Some(Verdict::NatForward | Verdict::TooBig)) {
        state.count_backend(entry.backend, frame, packet.kind == Kind::Syn);
        if packet.kind == Kind::Syn {
            passive::sent(state, frame, packet, entry.backend);
        }
    }
    Some(outcome)
}

/// "Both entries go."
pub(super) fn forget(state: &mut State, key: &FlowKey, entry: &NatEntry) {
    state.nat_flows.remove(key);
    state.nat_flows.remove(&partner(key, entry));
}

/// An ICMP error "that quotes a packet of a translated flow, either way: the quotation becomes what its
/// sender sent, and the error comes from the VIP". Nothing where there is no entry. The entry is that
/// of the quoted packet's receiver, and leads to its sender.
pub(super) fn error(
    state: &State,
    frame: &[u8],
    packet: &Packet,
    quoted: &Packet,
) -> Option<Outcome> {
    let entry = state.nat_flows.get(&quoted.tuple)?;
    if packet.ip.ttl <= 1 {
        return Some(Outcome::dropped(Verdict::TtlExceeded, frame));
    }
    if leaves_its_vlan(packet, entry.ifindex) {
        return Some(Outcome::passed(Verdict::OtherVlan, frame));
    }
    let mut out = frame.to_vec();
    rewrite::macs(&mut out, entry.mac, entry.source_mac);
    // What lies behind the packet is the link's padding, and no part of the quotation.
    let (_, inside) = parse::inside(frame, &packet.ip)?;
    rewrite::error(&mut out[..inside.len()], packet, |out| {
        rewrite::source(out, quoted, &entry.destination, entry.destination_port_be);
        rewrite::destination(out, quoted, &entry.source, entry.source_port_be);
    });
    rewrite::error_addresses(&mut out, packet, &entry.source, &entry.destination);
    rewrite::ttl(&mut out, &packet.ip, packet.ip.ttl - 1);
    Some(Outcome::sent(Verdict::IcmpNat, entry.ifindex, out))
}

/// The key of the other entry: the tuple that the packet gets, reversed.
pub(super) fn partner(key: &FlowKey, entry: &NatEntry) -> FlowKey {
    FlowKey {
        source: entry.destination,
        destination: entry.source,
        source_port_be: entry.destination_port_be,
        destination_port_be: entry.source_port_be,
        protocol: key.protocol,
        padding: [0; 3],
    }
}

/// Makes a flow's two entries: "the reply's first, since it claims the port, then the client's. If
/// the second cannot be made the first goes too."
pub(super) fn open(
    state: &mut State,
    frame: &[u8],
    packet: &Packet,
    interface: u32,
    index: u32,
) -> Outcome {
    // "Its TTL or hop limit is at most 1 [..]. It takes no port."
    if packet.ip.ttl <= 1 {
        return Outcome::dropped(Verdict::TtlExceeded, frame);
    }
    if leaves_its_vlan(packet, state.backends[index as usize].ifindex) {
        return Outcome::passed(Verdict::OtherVlan, frame);
    }
    let ports = u32::from(state.settings.nat_port_count);
    if ports == 0 {
        return Outcome::passed(Verdict::NatExhausted, frame);
    }
    let mut hash = nat_port_hash(state.settings.nat_key, &packet.tuple);
    for _ in 0..TRIES {
        // "`first + scale(hi(h), count)`, and for the next try `h = mix(h)`."
        let port = u32::from(state.settings.nat_port_first) + slot(hash, ports);
        hash = mix(hash);
        let entry = client_entry(state, packet, index, port as u16);
        let reply = reply_entry(state, packet, interface, index);
        let reply_key = partner(&packet.tuple, &entry);
        match state.insert_flow(reply_key, reply) {
            Ok(()) => {}
            Err(NotMade::Taken) => continue,
            Err(NotMade::Full) => return Outcome::passed(Verdict::NatFull, frame),
        }
        if state.insert_flow(packet.tuple, entry).is_err() {
            state.nat_flows.remove(&reply_key);
            return Outcome::passed(Verdict::NatFull, frame);
        }
        state.count_backend(index, frame, packet.is_new());
        if packet.kind == Kind::Syn {
            passive::sent(state, frame, packet, index);
        }
        return rewritten(state, frame, packet, &entry, Verdict::NatNew);
    }
    // "All 16 ports taken for this backend, or no NAT ports."
    Outcome::passed(Verdict::NatExhausted, frame)
}

/// What the client's packets become: "the source towards the backend is the VIP itself, with a port
/// of `nat.ports`".
fn client_entry(state: &State, packet: &Packet, index: u32, port: u16) -> NatEntry {
    let backend = state.backends[index as usize];
    NatEntry {
        source: packet.tuple.destination,
        destination: backend.address,
        source_port_be: port.to_be(),
        destination_port_be: backend.port_be,
        ifindex: backend.ifindex,
        mac: backend.mac,
        direction: FROM_CLIENT,
        seen: seen(packet),
        source_mac: backend.source_mac,
        last_seen_ns: state.now_ns,
        backend: index,
        ..NatEntry::EMPTY
    }
}

/// What the backend's packets become. "Reply frames go to the MAC and interface that the client's
/// first packet came from."
fn reply_entry(state: &State, packet: &Packet, interface: u32, index: u32) -> NatEntry {
    NatEntry {
        source: packet.tuple.destination,
        destination: packet.tuple.source,
        source_port_be: packet.tuple.destination_port_be,
        destination_port_be: packet.tuple.source_port_be,
        ifindex: interface,
        mac: packet.link.from,
        direction: FROM_BACKEND,
        seen: 0,
        source_mac: packet.link.to,
        last_seen_ns: state.now_ns,
        backend: index,
        ..NatEntry::EMPTY
    }
}

/// The flags that a packet leaves on its entry: "a SYN without ACK (`SEEN_SYN`), any other packet
/// (`SEEN_DATA`), FIN and RST".
fn seen(packet: &Packet) -> u8 {
    let flag = |is: bool, flag: u8| if is { flag } else { 0 };
    let kind = if packet.kind == Kind::Syn { SEEN_SYN } else { SEEN_DATA };
    kind | flag(packet.fin, SEEN_FIN) | flag(packet.rst, SEEN_RST)
}

/// Sends a packet of a flow that has its entry, and notes it there.
fn translate(
    state: &mut State,
    frame: &[u8],
    packet: &Packet,
    entry: &NatEntry,
    verdict: Verdict,
) -> Outcome {
    // "Its TTL or hop limit is at most 1 [..], and an entry does not notice it."
    if packet.ip.ttl <= 1 {
        return Outcome::dropped(Verdict::TtlExceeded, frame);
    }
    if leaves_its_vlan(packet, entry.ifindex) {
        return Outcome::passed(Verdict::OtherVlan, frame);
    }
    let now_ns = state.now_ns;
    if let Some(entry) = state.nat_flows.get_mut(&packet.tuple) {
        // "A client's SYN begins its entry's notes anew."
        let begins = packet.kind == Kind::Syn && entry.direction == FROM_CLIENT;
        entry.seen = if begins { SEEN_SYN } else { entry.seen | seen(packet) };
        if now_ns - entry.last_seen_ns >= TOUCH_NS {
            entry.last_seen_ns = now_ns;
        }
    }
    passive::returned(state, packet, entry);
    rewritten(state, frame, packet, entry, verdict)
}

fn rewritten(
    state: &State,
    frame: &[u8],
    packet: &Packet,
    entry: &NatEntry,
    verdict: Verdict,
) -> Outcome {
    if let Some(mtu) = answer::too_large(state, frame, packet, entry.ifindex) {
        return Outcome::too_large(mtu, frame);
    }
    let mut out = frame.to_vec();
    rewrite::macs(&mut out, entry.mac, entry.source_mac);
    rewrite::source(&mut out, packet, &entry.source, entry.source_port_be);
    rewrite::destination(&mut out, packet, &entry.destination, entry.destination_port_be);
    rewrite::ttl(&mut out, &packet.ip, packet.ip.ttl - 1);
    Outcome::sent(verdict, entry.ifindex, out)
}
