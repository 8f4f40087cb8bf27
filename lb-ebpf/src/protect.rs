//! What a service refuses, by who sends it: lists of prefixes, rates of new connections, and how many a
//! source has at one time. And what the node does not take as it is while more SYNs come than it is to take.
//!
//! Only what comes from outside is asked: another node has asked for what it carried here, and would
//! have it counted twice.

use lb_common::Address;
use lb_common::connection::{CLOSED, Connection, ESTABLISHED, OPENING, counted};
use lb_common::counter::Verdict;
use lb_common::protection::{
    CONNECTION_LIMITED, DENIED, LISTED, Protection, RATE_LIMITED, SourceKey, UNLISTED, admit,
};
use lb_common::service::Service;
use lb_common::settings::{SYN_COOKIES, SYN_GUARD, Settings};

use crate::environment::Node;
use crate::parse::Packet;
use crate::wire::{TCP_FIN, TCP_RST};

/// The verdict on a packet that the service does not want; nothing where it may go on.
#[inline(always)]
pub fn refuse<N: Node>(
    node: &N,
    settings: &Settings,
    service: &Service,
    packet: &Packet,
) -> Option<Verdict> {
    let Some(protection) = node.protection(service.protection) else {
        return Some(Verdict::Inconsistent);
    };
    if protection.rules & LISTED != 0 {
        match node.listed(protection.list, &packet.flow.source) {
            DENIED => return Some(Verdict::Denied),
            UNLISTED => return Some(Verdict::NotAllowed),
            _ => {}
        }
    }
    if protection.rules & RATE_LIMITED != 0
        && packet.is_new()
        && !within_rate(node, service, protection, packet)
    {
        return Some(Verdict::RateLimited);
    }
    if protection.rules & CONNECTION_LIMITED != 0
        && !packet.is_udp()
        && !within_connections(node, settings, service, protection, packet)
    {
        return Some(Verdict::ConnectionLimited);
    }
    None
}

#[inline(always)]
fn within_rate<N: Node>(
    node: &N,
    service: &Service,
    protection: &Protection,
    packet: &Packet,
) -> bool {
    let source = masked(&packet.flow.source, &protection.rate_mask);
    let now_ns = node.now_ns();
    node.spend(&SourceKey { service: service.seed, source }, |paid_at_ns| {
        admit(paid_at_ns, now_ns, protection)
    })
}

/// Whether the source of a segment has no more connections than it may. Notes the connection's beginning
/// and its end.
///
/// One that is met in its midst is counted, but not refused: it began before there was a limit, or at
/// another node.
#[inline(always)]
fn within_connections<N: Node>(
    node: &N,
    settings: &Settings,
    service: &Service,
    protection: &Protection,
    packet: &Packet,
) -> bool {
    let flow = &packet.flow;
    let ends = packet.tcp_flags & (TCP_FIN | TCP_RST) != 0;
    let begins = packet.is_new();
    let mut closed = false;
    if let Some(known) = node.connection(flow) {
        closed = known.stage == CLOSED;
        if !closed {
            if ends {
                node.connection_close(flow, known);
            } else {
                node.connection_touch(flow, known, if begins { OPENING } else { ESTABLISHED });
            }
            return true;
        }
    }
    // The last acknowledgements of a closed one, or the end of one that nobody counted.
    if ends || (closed && !begins) {
        return true;
    }
    let source = masked(&packet.flow.source, &protection.connection_mask);
    let counted = counted(settings.nat_key, service.seed, &source);
    if begins && node.open_connections(counted) >= protection.connections {
        return false;
    }
    if closed {
        node.connection_forget(flow);
    }
    let last_seen_ns = node.now_ns();
    let connection = Connection { counted, last_seen_ns, stage: OPENING, padding: 0 };
    node.connection_begin(flow, &connection);
    true
}

/// Whether this is a SYN of a flood, of those that this node would take.
#[inline(always)]
pub fn is_syn_of_flood<N: Node>(node: &N, settings: &Settings, packet: &Packet) -> bool {
    settings.flags & SYN_GUARD != 0
        && packet.is_new()
        && !packet.is_udp()
        && node.syn_flood(settings.syn_interval_ns)
}

/// Whether a SYN for the listener of this backend is to be answered by a cookie, since this is a flood.
#[inline(always)]
pub fn may_answer<N: Node>(node: &N, index: u32) -> bool {
    let Some(settings) = node.settings() else { return false };
    settings.flags & SYN_GUARD != 0
        && node.syn_flood(settings.syn_interval_ns)
        && settings.flags & SYN_COOKIES != 0
        && !node.leave_syn(index)
}

#[inline(always)]
const fn masked(address: &Address, mask: &Address) -> Address {
    let (a, m) = (&address.words, &mask.words);
    Address { words: [a[0] & m[0], a[1] & m[1], a[2] & m[2], a[3] & m[3]] }
}
