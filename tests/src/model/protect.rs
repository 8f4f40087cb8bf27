//! "Refusing": what a service does not want of who sends it. "A SYN flood": what a node does not take as it
//! is.

use lb_common::Address;
use lb_common::connection::{CLOSED, ESTABLISHED, OPENING};
use lb_common::counter::Verdict;
use lb_common::protection::{
    CONNECTION_LIMITED, DENIED, LISTED, PrefixKey, Protection, RATE_LIMITED, SourceKey, UNLISTED,
};
use lb_common::service::{Service, TCP};
use lb_common::settings::SYN_GUARD;

use super::parse::Packet;
use super::state::{Open, State};

/// Why the packet is refused; nothing where it is not.
pub(super) fn refuse(state: &mut State, service: &Service, packet: &Packet) -> Option<Verdict> {
    // "That does not come from a peer."
    if state.is_peer(&packet.link.from) {
        return None;
    }
    // "An element of `protections` that is missing is a defect of ours."
    let Some(protection) = state.protections.get(&service.protection).copied() else {
        return Some(Verdict::Inconsistent);
    };
    // "The longest of its prefixes that has the source address says [..]."
    if protection.rules & LISTED != 0 {
        match longest(state, protection.list, &packet.tuple.source) {
            Some(DENIED) => return Some(Verdict::Denied),
            Some(UNLISTED) => return Some(Verdict::NotAllowed),
            _ => {}
        }
    }
    // "A SYN without ACK or a datagram, the service limits the rate of a source, and the source has
    // spent it."
    let limited = protection.rules & RATE_LIMITED != 0 && packet.is_new();
    if limited && !pays(state, &protection, service.seed, &packet.tuple.source) {
        return Some(Verdict::RateLimited);
    }
    let limited = protection.rules & CONNECTION_LIMITED != 0 && packet.tuple.protocol == TCP;
    let refused = limited && !may_go_on(state, &protection, service.seed, packet);
    refused.then_some(Verdict::ConnectionLimited)
}

/// "A SYN without ACK that begins a connection, and the source has as many" may not.
fn may_go_on(state: &mut State, protection: &Protection, service: u64, packet: &Packet) -> bool {
    let (now_ns, ends) = (state.now_ns, packet.fin || packet.rst);
    let known = state.connections.get_mut(&packet.tuple);
    if let Some(open) = known {
        if open.stage != CLOSED {
            // "CLOSED at a FIN or RST of its client."
            if ends {
                (open.stage, open.last_seen_ns) = (CLOSED, now_ns);
                return true;
            }
            // "ESTABLISHED at the first without a SYN after that." "A packet notes its time once a second."
            let stage = if packet.is_new() { open.stage } else { ESTABLISHED };
            if stage != open.stage || now_ns - open.last_seen_ns >= 1_000_000_000 {
                (open.stage, open.last_seen_ns) = (stage, now_ns);
            }
            return true;
        }
        // "What comes after that begins nothing, but for a SYN."
        if !packet.is_new() {
            return true;
        }
    }
    // "A FIN or RST of one that is not there is nothing."
    if ends {
        return true;
    }
    // "A source is the address with the mask `connection_mask`."
    let masked = number(&packet.tuple.source) & number(&protection.connection_mask);
    let source = SourceKey { service, source: Address::from_v6(masked.to_be_bytes()) };
    let of_source = |open: &&Open| open.source == source && open.stage != CLOSED;
    let open = state.connections.values().filter(of_source).count() as u64;
    if packet.is_new() && open >= protection.connections {
        return false;
    }
    let open = Open { source, stage: OPENING, last_seen_ns: now_ns };
    state.connections.insert(packet.tuple, open);
    true
}

fn longest(state: &State, list: u32, source: &Address) -> Option<u32> {
    let list = state.lists.get(&list)?;
    let having = list.iter().filter(|(prefix, _)| has(prefix, source));
    having.max_by_key(|(prefix, _)| prefix.length).map(|(_, value)| *value)
}

fn number(address: &Address) -> u128 {
    u128::from_be_bytes(address.octets())
}

/// Whether the first bits are the same, as many as the prefix has.
fn has(prefix: &PrefixKey, address: &Address) -> bool {
    let differ = number(&prefix.address) ^ number(address);
    differ.leading_zeros() >= prefix.length
}

/// "Each new connection adds `interval_ns`. Where that would be more than `allowance_ns` from now the
/// packet is refused, and adds nothing."
fn pays(state: &mut State, protection: &Protection, service: u64, source: &Address) -> bool {
    // "A source is the address with the mask `rate_mask`."
    let masked = number(source) & number(&protection.rate_mask);
    let key = SourceKey { service, source: Address::from_v6(masked.to_be_bytes()) };
    // "One that is not there, or is in the past, is now."
    let paid_until_ns = state.rates.get(&key).copied().unwrap_or(0).max(state.now_ns);
    let until_ns = paid_until_ns + protection.interval_ns;
    let may = until_ns - state.now_ns <= protection.allowance_ns;
    if may {
        state.rates.insert(key, until_ns);
    }
    may
}

/// "For so long after more than a tenth of a second's SYNs came at once."
const HOLD_NS: u64 = 1_000_000_000;
const ALLOWANCE_NS: u64 = 100_000_000;

/// Counts a SYN that this node would take, and says whether it is one of a flood.
pub(super) fn is_flood(state: &mut State) -> bool {
    if state.settings.flags & SYN_GUARD == 0 {
        return false;
    }
    let (now_ns, flood) = (state.now_ns, &mut state.syn_flood);
    // "In the first half of that time nothing is counted."
    if flood.flooded_until_ns > now_ns + HOLD_NS / 2 {
        return true;
    }
    let until_ns = flood.paid_until_ns.max(now_ns) + u64::from(state.settings.syn_interval_ns);
    if until_ns - now_ns > ALLOWANCE_NS {
        flood.flooded_until_ns = now_ns + HOLD_NS;
        return true;
    }
    flood.paid_until_ns = until_ns;
    flood.flooded_until_ns > now_ns
}
