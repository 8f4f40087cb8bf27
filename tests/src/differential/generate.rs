//! A sequence from a seed: a few services and sockets, then frames and changes.

use anyhow::Result;

use super::cast::{CLIENT_PORTS, PEERS, Place, SERVICES, VIPS};
use super::packets;
use super::step::{Card, Forgotten, ServiceChange, Step, Unknown};
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
}

pub(super) fn sequence(seed: u64) -> Result<Vec<Step>> {
    let mut random = Random::new(seed);
    let random = &mut random;
    let theme = match random.below(100) {
        0..12 => Theme::Neighbours,
        12..30 => Theme::Nat,
        30..45 => Theme::Fragments,
        _ => Theme::Anything,
    };
    // One service for most frames, so that they meet.
    let focus = random.below(SERVICES.len());
    let mut steps = setting(random, theme, focus);
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
            (Theme::Nat, 50..75) => Step::Reply(random.below(16), packets::replying(random)?),
            (_, 0..68) => Step::Arrive(packets::arriving(random, place)?),
            (_, 68..75) => Step::Reply(random.below(16), packets::replying(random)?),
            (_, 75..80) => Step::Leave(packets::leaving(random, place)?),
            _ => change(random, focus, &SERVICES[focus]),
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
fn setting(random: &mut Random, theme: Theme, focus: usize) -> Vec<Step> {
    let only = (theme == Theme::Nat && random.chance(70)).then_some(Way::Nat);
    let mut steps = vec![Step::Service(focus, Some(service(random, only)))];
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
    steps
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
        interface: if random.chance(15) { INTERFACE + 1 } else { INTERFACE },
    };
    ServiceChange {
        backends: chosen.into_iter().map(|at| backend(at, random)).collect(),
        many_buckets: random.chance(25),
        shuffle: if random.chance(25) { 1 + random.below(1000) as u64 } else { 0 },
        hash_port: random.chance(50),
        no_table: random.chance(1),
    }
}

fn health(random: &mut Random) -> State {
    random.pick(&[State::Up, State::Up, State::Up, State::Draining, State::Down])
}

fn nat_ports(random: &mut Random) -> Step {
    let (first, count) = random.pick(&[(61000, 1), (61000, 2), (61000, 3), (65533, 3), (0, 0)]);
    Step::NatPorts(first, count)
}

fn lease(random: &mut Random) -> Step {
    let seconds = random.chance(75).then(|| random.pick(&[0, 1, 5, 100]));
    Step::Lease(random.below(VIPS.len()), seconds)
}

fn change(random: &mut Random, focus: usize, place: &Place) -> Step {
    let family = place.family;
    match random.below(100) {
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
        90..95 => Step::Wait(random.pick(&WAITS_S)),
        _ => Step::Forget(random.below(16), random.pick(&[Forgotten::Both, Forgotten::This])),
    }
}
