//! A sequence from a seed: a few services and sockets, then frames and changes.

use std::net::IpAddr;

use anyhow::Result;
use lb_common::backend::RELUCTANT;
use lb_common::protection::{ALLOWED, DENIED, UNLISTED};
use lb_common::quic::Scheme;

use super::cast::{CLIENT_PORTS, DATAGRAM_SERVICES, PEERS, Place, SERVICES, VIPS};
use super::packets::{self, ROTATIONS};
use super::step::{Card, Forgotten, ProtectionChange, ServiceChange, Stays, Step, Unknown};
use crate::packet::names;
use crate::packet::scene::{INTERFACE, SceneBackend, State, Way};
use crate::simulation::random::Random;

/// Steps after the first services.
const MOST_STEPS: u8 = 18;

/// Time that passes in a sequence, at most this often and this long: what is stored is moved into
/// the past, which begins when the machine was started.
const MOST_WAITS: usize = 2;
const WAITS_S: [u64; 4] = [2, 10, 90, 121];

const MACHINES: [(&str, Way); 7] = [
    ("master1", Way::Local),
    ("master2", Way::Direct),
    ("master3", Way::Direct),
    ("server", Way::Nat),
    ("server2", Way::Nat),
    ("client2", Way::Unresolved),
    ("stranger", Way::Direct),
];

/// What a sequence is mostly about: some things need several steps to meet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Theme {
    Anything,
    /// ARP, neighbour discovery and the lease, which comes and goes.
    Neighbours,
    /// Flows through NAT: more than the map takes, over and begun again.
    Nat,
    /// Packets in pieces.
    Fragments,
    /// Lists and rates, which change while sources come back.
    Protection,
    /// Frames of more than a page, which lie in several buffers.
    Large,
    /// Datagrams that stay, while backends come, go and get ill.
    Staying,
}

pub(super) fn sequence(seed: u64) -> Result<Vec<Step>> {
    let mut random = Random::new(seed);
    let random = &mut random;
    let theme = match random.below(100) {
        0..12 => Theme::Neighbours,
        12..30 => Theme::Nat,
        30..45 => Theme::Fragments,
        45..60 => Theme::Protection,
        60..72 => Theme::Staying,
        72..76 => Theme::Large,
        _ => Theme::Anything,
    };
    // One service for most frames, so that they meet.
    let focus = match theme {
        Theme::Staying => random.pick(&DATAGRAM_SERVICES),
        _ => random.below(SERVICES.len()),
    };
    let mut steps = setting(random, theme, focus)?;
    let mut waits = 0;
    for _ in 0..random.between(1, MOST_STEPS) {
        let of = if random.chance(85) { focus } else { random.below(SERVICES.len()) };
        let place = &SERVICES[of];
        let step = match (theme, random.below(100)) {
            (Theme::Neighbours, 0..50) => Step::Arrive(packets::of_neighbours(random)?),
            (Theme::Neighbours, 50..65) => Step::Leave(packets::leaving(random, place)?),
            (Theme::Neighbours, 65..80) => lease(random),
            (Theme::Neighbours, 80..90) => Step::Wait(random.pick(&WAITS_S)),
            (Theme::Nat, 0..50) => Step::Arrive(packets::to_service(random, place)),
            (Theme::Fragments, 0..55) => Step::Arrive(packets::pieces_to_service(random, place)),
            (Theme::Fragments, 55..70) => {
                Step::Reply(random.below(4), packets::pieces_replying(random)?)
            }
            (Theme::Fragments, 70..80) => Step::Leave(packets::pieces_leaving(random, place)?),
            (Theme::Protection, 0..65) => Step::Arrive(packets::to_service(random, place)),
            (Theme::Protection, 65..75) => Step::Protect(focus, protection(random, place)?),
            (Theme::Protection, 75..82) => Step::Wait(random.pick(&WAITS_S)),
            (Theme::Staying, 0..46) => Step::Arrive(packets::datagram(random, place)),
            (Theme::Staying, 46..55) => Step::Arrive(packets::icmp_about_datagram(random, place)),
            (Theme::Staying, 55..68) => Step::Health(focus, random.below(5), health(random)),
            (Theme::Staying, 68..73) => Step::Service(focus, Some(service_that_stays(random))),
            (Theme::Staying, 73..80) => Step::Wait(random.pick(&WAITS_S)),
            (Theme::Large, 0..68) => Step::Arrive(packets::large(random, place)?),
            (Theme::Nat, 50..75) => Step::Reply(random.below(16), packets::replying(random)?),
            (_, 0..68) => Step::Arrive(packets::arriving(random, place)?),
            (_, 68..75) => Step::Reply(random.below(16), packets::replying(random)?),
            (_, 75..80) => Step::Leave(packets::leaving(random, place)?),
            _ => change(random, focus, &SERVICES[focus])?,
        };
        if matches!(step, Step::Wait(_)) {
            waits += 1;
            if waits > MOST_WAITS {
                continue;
            }
        }
        steps.push(step);
    }
    Ok(steps)
}

/// What is there before the first frame.
fn setting(random: &mut Random, theme: Theme, focus: usize) -> Result<Vec<Step>> {
    let only = (theme == Theme::Nat && random.chance(70)).then_some(Way::Nat);
    let first = match theme {
        Theme::Staying => service_that_stays(random),
        _ => service(random, only),
    };
    let mut steps = vec![Step::Service(focus, Some(first))];
    if random.chance(30) {
        steps.push(Step::Service(random.below(SERVICES.len()), Some(service(random, None))));
    }
    if random.chance(60) {
        steps.push(Step::Listener(SERVICES[focus].family, true));
        steps.push(Step::Datagrams(SERVICES[focus].family, true));
    }
    if random.chance(20) {
        steps.push(nat_ports(random));
    }
    if random.chance(12) {
        steps.push(syn_guard(random));
    }
    if theme == Theme::Protection || random.chance(5) {
        steps.push(Step::Protect(focus, protection(random, &SERVICES[focus])?));
    }
    Ok(steps)
}

/// Of backends that start slowly: a little, half, nearly and wholly reluctant.
const RELUCTANCES: [u32; 4] = [RELUCTANT / 8, RELUCTANT / 2, RELUCTANT - 1, RELUCTANT];

fn service_that_stays(random: &mut Random) -> ServiceChange {
    ServiceChange { stays: Some(stays(random)), ..service(random, None) }
}

fn service(random: &mut Random, only: Option<Way>) -> ServiceChange {
    let count = usize::from(random.between(0, 5));
    let mut chosen: Vec<usize> = Vec::new();
    // Some services are of one kind, as most are.
    let drawn = random.chance(35).then(|| random.pick(&[Way::Direct, Way::Nat, Way::Local]));
    let only = only.or(drawn);
    for _ in 0..count {
        let at = random.below(MACHINES.len());
        if !chosen.contains(&at) && only.is_none_or(|only| MACHINES[at].1 == only) {
            chosen.push(at);
        }
    }
    let backend = |at: usize, random: &mut Random| SceneBackend {
        name: MACHINES[at].0.to_owned(),
        delivery: MACHINES[at].1,
        state: health(random),
        reluctance: if random.chance(80) { 0 } else { random.pick(&RELUCTANCES) },
        interface: if random.chance(15) { INTERFACE + 1 } else { INTERFACE },
    };
    ServiceChange {
        backends: chosen.into_iter().map(|at| backend(at, random)).collect(),
        many_buckets: random.chance(25),
        shuffle: if random.chance(25) { 1 + random.below(1000) as u64 } else { 0 },
        hash_port: random.chance(50),
        noted: random.chance(50),
        no_table: random.chance(1),
        stays: random.chance(35).then(|| stays(random)),
    }
}

fn stays(random: &mut Random) -> Stays {
    let id_bytes = random.pick(&[1, 2, 4, 8]);
    let rotation = random.pick(&ROTATIONS);
    let scheme = random.chance(70).then_some(Scheme { rotation, id_bytes });
    let seconds = random.pick(&[1, 5, 60, 100]);
    let affinity_s = if scheme.is_none() || random.chance(60) { seconds } else { 0 };
    Stays { affinity_s, scheme }
}

/// Rules about the clients that frames come from, and nearly so.
fn protection(random: &mut Random, place: &Place) -> Result<Option<ProtectionChange>> {
    if random.chance(10) {
        return Ok(None);
    }
    let mut list = Vec::new();
    if random.chance(70) {
        for _ in 0..random.between(1, 5) {
            let name = random.pick(&["client", "client2", "stranger", "vip"]);
            let address = names::address(name, place.family)?;
            let bits = if place.family == 4 { 32 } else { 128 };
            let length = random.pick(&[bits, bits, bits - 1, bits - 4, bits - 8, 16, 0]);
            let says = random.pick(&[ALLOWED, DENIED]);
            list.push((cut(address, length), length, says));
        }
        if random.chance(40) {
            list.push((cut(names::address("vip", 6)?, 0), 0, UNLISTED));
        }
        list.sort_unstable();
        list.dedup_by_key(|(address, length, _)| (*address, *length));
    }
    let most = random.pick(&[1, 1, 2, 3]);
    let seconds = random.pick(&[1, 2, 30]);
    Ok(Some(ProtectionChange {
        list,
        rate: random.chance(70).then_some((seconds, most)),
        mask: random.pick(&[128, 128, 127, 124, 120, 96]),
        connections: random.chance(60).then(|| random.pick(&[0, 1, 1, 2, 3])),
        missing: random.chance(2),
    }))
}

/// The address with only so many of its leading bits.
fn cut(address: IpAddr, length: u32) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

fn health(random: &mut Random) -> State {
    use State::{Distrusted, Down, Draining, Up};
    random.pick(&[Up, Up, Up, Up, Draining, Down, Distrusted])
}

fn nat_ports(random: &mut Random) -> Step {
    let (first, count) = random.pick(&[(61000, 1), (61000, 2), (61000, 3), (65533, 3), (0, 0)]);
    Step::NatPorts(first, count)
}

/// A flood, or none: what is between them is the real clock's.
fn syn_guard(random: &mut Random) -> Step {
    Step::SynGuard(random.chance(75).then(|| random.chance(60)))
}

fn lease(random: &mut Random) -> Step {
    let seconds = random.chance(75).then(|| random.pick(&[0, 1, 5, 100]));
    Step::Lease(random.below(VIPS.len()), seconds)
}

fn change(random: &mut Random, focus: usize, place: &Place) -> Result<Step> {
    let family = place.family;
    Ok(match random.below(100) {
        0..8 => Step::Service(focus, random.chance(85).then(|| service(random, None))),
        8..30 => Step::Health(focus, random.below(5), health(random)),
        30..38 => Step::Reach(
            focus,
            random.below(5),
            random.pick(&[Way::Unresolved, Way::Direct, Way::Nat]),
        ),
        38..50 => lease(random),
        50..56 => Step::Peer(random.pick(&PEERS), random.chance(50)),
        56..60 => nat_ports(random),
        60..64 => Step::UnknownPorts(random.pick(&[Unknown::Pass, Unknown::Drop])),
        64..67 => Step::Interface(random.pick(&[Card::Usual, Card::NoAddress, Card::Missing])),
        67..74 => Step::Listener(family, random.chance(50)),
        74..80 => Step::Datagrams(family, random.chance(50)),
        80..90 => Step::Connection(family, random.pick(&CLIENT_PORTS[..2]), random.chance(75)),
        90..93 => Step::Wait(random.pick(&WAITS_S)),
        93..94 => syn_guard(random),
        94..96 => Step::Protect(focus, protection(random, place)?),
        _ => Step::Forget(random.below(16), random.pick(&[Forgotten::Both, Forgotten::This])),
    })
}
