//! "Choosing": whose packet it is, from the ranks of the client's bucket.

use lb_common::backend::{ACCEPTS, ALIVE, Backend, Delivery};
use lb_common::bucket::{NONE, chance, slot};
use lb_common::counter::Verdict;
use lb_common::hash::client_hash;
use lb_common::service::{HASH_PORT, Service, UDP};

use super::parse::{Kind, Packet};
use super::state::State;

/// A frame from a peer with no more than this is in its last round.
const LAST_ROUND: u8 = 8;

/// Who gets the packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Choice {
    /// A socket of this node; of this backend, where the bucket ranks it.
    Here { verdict: Verdict, backend: Option<u32> },
    /// Another node, with a TTL of at most `ttl_limit`.
    Carry { verdict: Verdict, backend: u32, ttl_limit: u8 },
    /// A backend by NAT.
    Translate { backend: u32 },
    /// This node's stack, which refuses it.
    Nobody(Verdict),
}

/// A backend in its rank.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ranked {
    pub(super) index: u32,
    pub(super) backend: Backend,
    /// The frame came from its MAC.
    is_sender: bool,
    /// "Its reluctance is above the client's chance."
    is_reluctant: bool,
}

impl Ranked {
    fn is(&self, delivery: Delivery) -> bool {
        self.backend.delivery == delivery as u8
    }

    fn is_alive(&self) -> bool {
        self.backend.state & ALIVE != 0
    }

    /// "A peer that sends is alive, whatever the checks say."
    fn is_living_node(&self) -> bool {
        self.is(Delivery::Direct) && (self.is_alive() || self.is_sender)
    }

    fn accepts(&self) -> bool {
        self.backend.state & ACCEPTS != 0
    }

    fn is_reachable(&self) -> bool {
        [Delivery::Local, Delivery::Direct, Delivery::Nat].iter().any(|way| self.is(*way))
    }
}

/// The ranks of the client's bucket, up to one that has no backend; nothing where "the service's table
/// is missing".
pub(super) fn ranked(state: &State, service: &Service, packet: &Packet) -> Option<Vec<Ranked>> {
    let port_be = match service.flags & HASH_PORT {
        0 => 0,
        _ => packet.tuple.source_port_be,
    };
    let hash = client_hash(service.seed, &packet.tuple.source, port_be);
    let table = state.tables.get(&service.table)?;
    let bucket = table.get(slot(hash, service.slots) as usize)?;
    let used = bucket.ranks.iter().take_while(|rank| **rank != NONE);
    let indices = used.map(|rank| service.backends + u32::from(*rank));
    let ranked = indices.map_while(|index| {
        let backend = *state.backend(index)?;
        let is_sender = backend.mac == packet.link.from;
        let is_reluctant = backend.reluctance > chance(hash);
        Some(Ranked { index, backend, is_sender, is_reluctant })
    });
    Some(ranked.collect())
}

pub(super) fn choose(state: &State, packet: &Packet, ranked: &[Ranked]) -> Choice {
    let from_peer = state.is_peer(&packet.link.from);
    if packet.kind == Kind::Syn || packet.tuple.protocol == UDP {
        choose_new(state, packet, ranked, from_peer)
    } else {
        choose_owner(state, packet, ranked, from_peer)
    }
}

fn own_rank(ranked: &[Ranked]) -> Option<usize> {
    ranked.iter().position(|rank| rank.is(Delivery::Local))
}

/// The ranks that have the turn. "From a peer: the peer chose this node, so its own rank has the
/// turn, then only later ones, the sender among them where it ranks there. Where its table does not
/// rank this node everybody but the sender has the turn."
fn turns(ranked: &[Ranked], from_peer: bool) -> Vec<&Ranked> {
    match own_rank(ranked) {
        _ if !from_peer => ranked.iter().collect(),
        Some(own) => ranked[own..].iter().collect(),
        None => ranked.iter().filter(|rank| !rank.is_sender).collect(),
    }
}

/// The ranks that have the turn and accept.
fn accepting(ranked: &[Ranked], from_peer: bool) -> Vec<&Ranked> {
    let accepts = |rank: &&Ranked| rank.is_reachable() && rank.accepts();
    let mut turns: Vec<&Ranked> = turns(ranked, from_peer).into_iter().filter(accepts).collect();
    // "For what is new the sender, too, where nobody else accepts."
    if turns.is_empty() && own_rank(ranked).is_none() {
        return ranked.iter().filter(accepts).collect();
    }
    // "From outside those that start slowly are passed over while another one accepts."
    if !from_peer && turns.iter().any(|rank| !rank.is_reluctant) {
        turns.retain(|rank| !rank.is_reluctant);
    }
    turns
}

/// The backend here that has the first turn for a SYN, "and nothing listens on its port".
pub(super) fn here_without_listener(
    state: &State,
    packet: &Packet,
    ranked: &[Ranked],
) -> Option<u32> {
    let turns = accepting(ranked, state.is_peer(&packet.link.from));
    let first = turns.first().filter(|first| first.is(Delivery::Local))?;
    let socket = (first.backend.address, u16::from_be(first.backend.port_be));
    (!state.sockets.listeners.contains(&socket)).then_some(first.index)
}

/// "A SYN, or any datagram, goes to the first rank that ACCEPTS."
fn choose_new(state: &State, packet: &Packet, ranked: &[Ranked], from_peer: bool) -> Choice {
    let turns = accepting(ranked, from_peer);
    let datagram = packet.tuple.protocol == UDP;
    for rank in turns {
        let socket = (rank.backend.address, u16::from_be(rank.backend.port_be));
        let (backend, ttl_limit) = (rank.index, u8::MAX);
        if rank.is(Delivery::Local) {
            // "Here, but nothing listens: the next rank that accepts."
            if datagram && state.sockets.datagrams.contains(&socket) {
                return Choice::Here { verdict: Verdict::LocalUdp, backend: Some(backend) };
            }
            if !datagram && state.sockets.listeners.contains(&socket) {
                return Choice::Here { verdict: Verdict::LocalNew, backend: Some(backend) };
            }
        } else if rank.is(Delivery::Direct) {
            // "`direct_new`; a datagram from a peer `direct_next`."
            let next = datagram && from_peer;
            let verdict = if next { Verdict::DirectNext } else { Verdict::DirectNew };
            return Choice::Carry { verdict, backend, ttl_limit };
        } else {
            return Choice::Translate { backend };
        }
    }
    Choice::Nobody(Verdict::NoBackend)
}

/// "Any other segment goes to whoever owns it."
fn choose_owner(state: &State, packet: &Packet, ranked: &[Ranked], from_peer: bool) -> Choice {
    let carried = |verdict, rank: &Ranked, ttl_limit| Choice::Carry {
        verdict,
        backend: rank.index,
        ttl_limit,
    };
    let own = own_rank(ranked);
    // "A living node is ranked, and this one not before it (from outside)."
    let before = &ranked[..own.unwrap_or(ranked.len())];
    if let (false, Some(rank)) = (from_peer, before.iter().find(|rank| rank.is_living_node())) {
        return carried(Verdict::DirectEstablished, rank, u8::MAX);
    }
    // "A socket other than a listener has the tuple", "whatever the health checks say, and also where
    // its table does not rank it any more".
    let backend = own.map(|rank| ranked[rank].index);
    if state.sockets.has_connection(&packet.tuple) {
        return Choice::Here { verdict: Verdict::LocalEstablished, backend };
    }
    // "It acknowledges a SYN cookie of the listener here."
    if packet.may_be_cookie && backend.is_some() && state.sockets.has_cookie(&packet.tuple) {
        return Choice::Here { verdict: Verdict::LocalCookie, backend };
    }
    let turns = turns(ranked, from_peer);
    let nodes: Vec<&Ranked> = ranked.iter().filter(|rank| rank.is(Delivery::Direct)).collect();
    // "It comes from a peer with a TTL of at most 8, so it is in its last round."
    if from_peer && packet.ip.ttl <= LAST_ROUND {
        let next = in_last_round(&turns, &nodes);
        return next.map_or(Choice::Nobody(Verdict::Nobody), |rank| {
            carried(Verdict::DirectNext, rank, u8::MAX)
        });
    }
    // "A TTL of one more than the other nodes, at most 8."
    let hops = (nodes.len() as u8 + 1).min(LAST_ROUND);
    // "A living node has the next turn, and it does not come from a peer with a TTL of 9: the second chance."
    let second = turns.iter().find(|rank| rank.is_living_node());
    let used_up = from_peer && packet.ip.ttl == LAST_ROUND + 1;
    if let (Some(rank), false) = (second, used_up) {
        // "From a peer with a TTL of 9 more than the other nodes; with the last round's TTL where this node is not
        // ranked."
        let ttl_limit = match (from_peer, own) {
            (false, _) => u8::MAX,
            (true, Some(_)) => LAST_ROUND + 1 + nodes.len() as u8,
            (true, None) => hops,
        };
        return carried(Verdict::DirectNext, rank, ttl_limit);
    }
    if let Some(rank) = begins_last_round(&nodes, own.is_some()) {
        return carried(Verdict::DirectLast, rank, hops);
    }
    // "No other node is ranked, and a living NAT backend has the turn."
    let living_nat = turns.iter().find(|rank| rank.is(Delivery::Nat) && rank.is_alive());
    match living_nat {
        Some(rank) => Choice::Translate { backend: rank.index },
        None => Choice::Nobody(Verdict::Nobody),
    }
}

/// "Carried to the next later rank, living ones first, and after the last to the first, but not back
/// to the sender."
fn in_last_round<'a>(turns: &[&'a Ranked], nodes: &[&'a Ranked]) -> Option<&'a Ranked> {
    let others = |ranks: &[&'a Ranked]| -> Vec<&'a Ranked> {
        let other = |rank: &&Ranked| rank.is(Delivery::Direct) && !rank.is_sender;
        ranks.iter().copied().filter(other).collect()
    };
    let later = others(turns);
    let living = later.iter().find(|rank| rank.is_living_node());
    living.or_else(|| later.first()).copied().or_else(|| others(nodes).first().copied())
}

/// "The last round begins, with whom a peer may have passed over, or else with whom this node thinks
/// dead; the sender comes last, or before the dead where this node is not ranked."
fn begins_last_round<'a>(nodes: &[&'a Ranked], is_ranked: bool) -> Option<&'a Ranked> {
    let sender = || nodes.iter().find(|rank| rank.is_sender);
    let mut others = nodes.iter().filter(|rank| !rank.is_sender);
    let living = nodes.iter().find(|rank| !rank.is_sender && rank.is_alive());
    let unranked_sender = || if is_ranked { None } else { sender() };
    living.or_else(unranked_sender).or_else(|| others.next()).or_else(sender).copied()
}
