//! "Steering: XDP, or tc ingress": the table, from its first row to its last. The first row that
//! fits decides.

use lb_common::Address;
use lb_common::counter::Verdict;
use lb_common::service::{HAS_NAT, PROTECTED, STAYS, Service, ServiceKey, UDP};
use lb_common::settings::DROP_UNKNOWN_PORTS;

use super::choose::{self, Choice};
use super::parse::{self, Family, Kind, Packet};
use super::state::State;
use super::{Outcome, answer, carry, fragment, nat, neighbour, note, passive, protect, stay};

/// What becomes of a frame that came in on `interface`.
pub fn steer(state: &mut State, frame: &[u8], interface: u32) -> Outcome {
    // "Too short for an Ethernet, VLAN or IP header; neither ARP, IPv4 nor IPv6."
    let Some(link) = parse::link(frame) else { return Outcome::passed(Verdict::NotIp, frame) };
    let family = match link.ethertype {
        parse::ETHERTYPE_ARP => return neighbour::arp_arrives(state, frame, link.end),
        parse::ETHERTYPE_IPV4 => Family::V4,
        parse::ETHERTYPE_IPV6 => Family::V6,
        _ => return Outcome::passed(Verdict::NotIp, frame),
    };
    let Some(ip) = parse::ip(frame, link.end, family) else {
        return Outcome::passed(Verdict::NotIp, frame);
    };
    // "Neighbour solicitation for a VIP", "any other [..] neighbour solicitation or advertisement".
    if let Some(outcome) = neighbour::discovery_arrives(state, frame, &ip) {
        return outcome;
    }
    // "Its destination misses the address filter, or is an IPv4-mapped address in an IPv6 header."
    if is_mapped(&ip.destination, family) || !state.filter.may_contain(&ip.destination) {
        return Outcome::passed(Verdict::NotOurs, frame);
    }
    match parse::packet(frame, link, ip, interface) {
        Ok(packet) if packet.kind == Kind::Following => {
            fragment::following(state, frame, &packet, interface)
        }
        Ok(packet) => {
            let counted = state.backend_counters.clone();
            let outcome = steer_packet(state, frame, &packet, interface);
            let outcome = unless_trial(outcome, &packet, frame);
            fragment::first(state, &packet, &outcome, &counted);
            answer::instead(state, frame, &packet, outcome)
        }
        Err(verdict) => Outcome::passed(verdict, frame),
    }
}

/// An IPv4 address where an IPv6 one belongs: nobody's (RFC 4291, 2.5.5.2), though the maps hold IPv4
/// addresses in that form.
pub(super) const fn is_mapped(address: &Address, family: Family) -> bool {
    matches!(family, Family::V6) && address.is_v4()
}

/// "A segment or datagram that would end as `ttl_exceeded` or `nobody` and comes from this node to itself
/// [..] is the agent's synthetic packet: it is dropped."
fn unless_trial(outcome: Outcome, packet: &Packet, frame: &[u8]) -> Outcome {
    let to_itself = packet.link.from == packet.link.to && packet.kind != Kind::Error;
    match outcome.verdict {
        Some(Verdict::TtlExceeded | Verdict::Nobody) if to_itself => {
            Outcome::dropped(Verdict::Trial, frame)
        }
        _ => outcome,
    }
}

fn steer_packet(state: &mut State, frame: &[u8], packet: &Packet, interface: u32) -> Outcome {
    if is_another_host_s(state, packet, interface) {
        return Outcome::passed(Verdict::OtherHost, frame);
    }
    // "An ICMP error."
    if packet.kind == Kind::Error {
        return match parse::quoted(frame, packet) {
            Ok(quoted) => steer_error(state, frame, packet, &quoted),
            Err(verdict) => Outcome::passed(verdict, frame),
        };
    }
    let service = service(state, packet);
    // "TCP or UDP to a NAT port, with an entry"; "to a NAT port of a VIP, no entry".
    if state.is_nat_port(u16::from_be(packet.tuple.destination_port_be)) {
        if let Some(outcome) = nat::from_backend(state, frame, packet) {
            return outcome;
        }
        if state.is_vip(&packet.tuple.destination) {
            return Outcome::dropped(Verdict::NatUnknown, frame);
        }
    }
    // "To an address and port that no service has: no VIP / a VIP."
    let Some(service) = service else { return without_service(state, frame, packet) };
    // "To a service that refuses it."
    if service.flags & PROTECTED != 0
        && let Some(verdict) = protect::refuse(state, &service, packet)
    {
        return match verdict {
            Verdict::Inconsistent => Outcome::passed(verdict, frame),
            _ => Outcome::dropped(verdict, frame),
        };
    }
    // "A datagram to a service whose datagrams stay."
    if service.flags & STAYS != 0 && packet.tuple.protocol == UDP {
        return stay::steer(state, frame, packet, interface, &service);
    }
    // "A segment from outside."
    if !state.is_peer(&packet.link.from) {
        note::note(state, &service, frame, packet);
    }
    // "To a service with NAT backends, and the flow has an entry."
    if service.flags & HAS_NAT != 0
        && let Some(outcome) = nat::from_client(state, frame, packet)
    {
        return outcome;
    }
    // "Anything else to a service."
    let choice = match choose::ranked(state, &service, packet) {
        Some(ranked) => {
            // "A SYN for a backend here that accepts, and nothing listens on its port."
            if packet.kind == Kind::Syn
                && let Some(silent) = choose::here_without_listener(state, packet, &ranked)
            {
                passive::refused(state, silent);
            }
            choose::choose(state, packet, &ranked)
        }
        None => return Outcome::passed(Verdict::Inconsistent, frame),
    };
    // "In a flood": a SYN that is not carried.
    let taken = matches!(choice, Choice::Here { .. } | Choice::Translate { .. });
    if packet.kind == Kind::Syn
        && taken
        && protect::is_flood(state)
        && matches!(choice, Choice::Translate { .. })
    {
        return Outcome::dropped(Verdict::SynDropped, frame);
    }
    carry_out(state, frame, packet, interface, choice, packet.is_new())
}

/// "Carries another machine's MAC [..], or came in on an interface that the maps do not know."
pub(super) fn is_another_host_s(state: &State, packet: &Packet, interface: u32) -> bool {
    state.interface(interface).is_none_or(|own| own.mac != packet.link.to)
}

fn service(state: &State, packet: &Packet) -> Option<Service> {
    let key = ServiceKey {
        address: packet.tuple.destination,
        port_be: packet.tuple.destination_port_be,
        protocol: packet.tuple.protocol,
        padding: 0,
    };
    state.services.get(&key).copied()
}

fn without_service(state: &State, frame: &[u8], packet: &Packet) -> Outcome {
    if !state.is_vip(&packet.tuple.destination) {
        Outcome::passed(Verdict::NotOurs, frame)
    } else if state.settings.flags & DROP_UNKNOWN_PORTS != 0 {
        Outcome::dropped(Verdict::NoServiceDropped, frame)
    } else {
        Outcome::passed(Verdict::NoService, frame)
    }
}

/// `new`: it counts as a connection.
pub(super) fn carry_out(
    state: &mut State,
    frame: &[u8],
    packet: &Packet,
    interface: u32,
    choice: Choice,
    new: bool,
) -> Outcome {
    match choice {
        Choice::Here { verdict, backend } => {
            if let Some(backend) = backend {
                state.count_backend(backend, frame, new);
                if verdict == Verdict::LocalNew && !state.is_peer(&packet.link.from) {
                    passive::sent(state, frame, packet, backend);
                }
            }
            if verdict == Verdict::LocalCookie {
                state.runtime.cookie_seen_ns = state.now_ns;
            }
            Outcome::passed(verdict, frame)
        }
        Choice::Carry { verdict, backend, ttl_limit } => {
            carry::carry(state, frame, packet, verdict, backend, ttl_limit, new)
        }
        Choice::Translate { backend } => nat::open(state, frame, packet, interface, backend),
        Choice::Nobody(verdict) => Outcome::passed(verdict, frame),
    }
}

/// "That quotes a packet of a translated flow, either way: [..] translated, sent to that sender"; "any
/// other ICMP error: goes where the quoted packet came from".
fn steer_error(state: &mut State, frame: &[u8], packet: &Packet, quoted: &Packet) -> Outcome {
    if let Some(outcome) = nat::error(state, frame, packet, quoted) {
        return outcome;
    }
    let packet = &Packet { tuple: quoted.tuple, ..*packet };
    // "Quotes no service, or nobody owns it."
    let Some(service) = service(state, packet) else {
        return Outcome::passed(Verdict::IcmpOther, frame);
    };
    let choice = match stay::whom_to_tell(state, packet, &service) {
        Some(choice) => choice,
        None => match choose::ranked(state, &service, packet) {
            Some(ranked) => choose::choose(state, packet, &ranked),
            None => return Outcome::passed(Verdict::Inconsistent, frame),
        },
    };
    match choice {
        Choice::Here { backend, .. } => {
            if let Some(backend) = backend {
                state.count_backend(backend, frame, false);
            }
            Outcome::passed(Verdict::IcmpLocal, frame)
        }
        Choice::Carry { backend, ttl_limit, .. } => {
            carry::carry(state, frame, packet, Verdict::IcmpDirect, backend, ttl_limit, false)
        }
        Choice::Translate { .. } | Choice::Nobody(_) => Outcome::passed(Verdict::IcmpOther, frame),
    }
}
