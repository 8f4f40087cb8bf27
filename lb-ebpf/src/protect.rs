//! What a service refuses, by who sends it: lists of prefixes, and rates of new connections. And what
//! the node does not take as it is while more SYNs come than it is to take.
//!
//! Only what comes from outside is asked: another node has asked for what it carried here, and would
//! have it counted twice.

use lb_common::Address;
use lb_common::counter::Verdict;
use lb_common::protection::{DENIED, LISTED, Protection, RATE_LIMITED, SourceKey, UNLISTED, admit};
use lb_common::service::Service;
use lb_common::settings::{SYN_COOKIES, SYN_GUARD, Settings};

use crate::environment::Node;
use crate::parse::Packet;

/// The verdict on a packet that the service does not want; nothing where it may go on.
#[inline(always)]
pub fn refuse<N: Node>(node: &N, service: &Service, packet: &Packet) -> Option<Verdict> {
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
