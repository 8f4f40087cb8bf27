//! Whose turn it is: the ranks of a bucket, from the first to the last.
//!
//! Nodes may disagree: one of them thinks that others are dead, or has a newer table. A segment
//! finds its owner all the same, in at most two rounds:
//!
//! ```text
//! first round   each node asks its own sockets and sends the segment on to the next rank after
//!               its own that it thinks alive; who has none begins the last round. So does who gets
//!               it when a round's hops are used up: two nodes that rank one another the other way
//!               round would send it to and fro. The hops are what the TTL is above LAST_ROUND + 1
//! last round    TTL = one more than the other ranks; each node sends on to the next rank after its
//!               own, alive or not, and after the last to the first again, until the TTL is used up
//! ```
//!
//! A node that gets a segment from a peer always asks its sockets first, also when its own table
//! does not rank it any more. One that is not ranked cannot tell who was before it, so it begins
//! the last round. tests/disagreement.rs tries every disagreement of three nodes.
//!
//! Most packets from outside are settled by the first rank. The others look at all ranks once and
//! decide on sets of them, which keeps the program small for the verifier: no branch in the loop
//! depends on another.

use lb_common::backend::{ACCEPTS, ALIVE, Backend, Delivery};
use lb_common::bucket::{Bucket, NONE, RANKS, chance};
use lb_common::counter::Verdict;
use lb_common::service::Service;

use crate::environment::{Node, Owner};
use crate::opaque::unknown;
use crate::parse::Packet;
use crate::wire::Mac;

const LOCAL: u8 = Delivery::Local as u8;
const DIRECT: u8 = Delivery::Direct as u8;
const NAT: u8 = Delivery::Nat as u8;

/// A frame from a peer whose TTL is at most this is in its last round.
pub const LAST_ROUND: u8 = RANKS as u8;

/// What to do with a packet to a service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Choice {
    /// It is for a socket of this node, the backend at this index.
    Here { index: u32, verdict: Verdict },
    /// It is passed to the stack: to a socket of a backend that the table no longer has, or to be
    /// refused.
    Pass(Verdict),
    /// It is carried to the node of the backend at this index, with this TTL or hop limit.
    Direct { index: u32, verdict: Verdict, ttl: u8 },
    /// It is translated for the backend at this index.
    Nat { index: u32 },
}

/// Ranks of one bucket by what can be said of their backends: bit `n` is rank `n`.
#[derive(Clone, Copy, Default)]
struct Ranks {
    local: u32,
    direct: u32,
    nat: u32,
    alive: u32,
    accepts: u32,
    /// Start so slowly that this client is not for them yet.
    reluctant: u32,
    /// The frame came from this one.
    sender: u32,
    /// How many are direct.
    peers: u8,
}

impl Ranks {
    #[inline(always)]
    fn survey<N: Node>(
        node: &N,
        service: &Service,
        bucket: &Bucket,
        sender: Mac,
        chance: u32,
    ) -> Self {
        let mut ranks = Self::default();
        for rank in 0..RANKS {
            let relative = bucket.ranks[rank];
            if relative == NONE {
                break;
            }
            let Some(backend) = node.backend(service.backends.wrapping_add(relative as u32)) else {
                break;
            };
            ranks.note(rank as u32, backend.delivery, backend.state);
            ranks.reluctant |= below(chance, backend.reluctance) << rank;
            ranks.sender |=
                Mac::from_bytes(backend.mac).differs(sender).wrapping_sub(1) >> 31 << rank;
        }
        ranks
    }

    #[inline(always)]
    fn note(&mut self, rank: u32, delivery: u8, state: u8) {
        self.local |= is(delivery, LOCAL) << rank;
        self.direct |= is(delivery, DIRECT) << rank;
        self.peers += is(delivery, DIRECT) as u8;
        self.nat |= is(delivery, NAT) << rank;
        self.alive |= ((state & ALIVE) as u32) << rank;
        self.accepts |= (((state & ACCEPTS) >> 1) as u32) << rank;
    }

    /// The ranks whose turn it can be. From outside all of them; from a peer this node's own and
    /// later ones, or, where it has none, all but the sender's.
    #[inline(always)]
    const fn turns(&self, from_peer: bool) -> u32 {
        if !from_peer {
            u32::MAX
        } else if self.local != 0 {
            // From the lowest set bit on.
            !((self.local & self.local.wrapping_neg()) - 1)
        } else {
            !self.sender
        }
    }

    /// The TTL with which a peer's segment goes on in the first round: a hop for each direct rank.
    #[inline(always)]
    const fn first_round(&self, packet: &Packet) -> u8 {
        let round = LAST_ROUND + 1 + self.peers;
        if packet.ttl <= round { packet.ttl.wrapping_sub(1) } else { round }
    }

    /// The TTL with which a segment goes round all direct ranks once, and back to where it began.
    #[inline(always)]
    const fn last_round(&self, packet: &Packet) -> u8 {
        let round = if self.peers < LAST_ROUND { self.peers + 1 } else { LAST_ROUND };
        if packet.ttl <= round { packet.ttl.wrapping_sub(1) } else { round }
    }
}

/// The first of these sets that is not empty.
#[inline(always)]
fn first_of<const N: usize>(sets: [u32; N]) -> u32 {
    let mut found = 0;
    for set in sets {
        if found == 0 {
            found = set;
        }
    }
    found
}

/// 1 where both are equal, without a branch.
#[inline(always)]
const fn is(a: u8, b: u8) -> u32 {
    (((a ^ b) as u32).wrapping_sub(1)) >> 31
}

/// 1 where the first is less, without a branch: of eight the verifier would try each outcome with each.
#[inline(always)]
fn below(a: u32, b: u32) -> u32 {
    (unknown((a as u64).wrapping_sub(b as u64)) >> 63) as u32
}

/// The lowest rank of a set that is not empty, by a multiplication (a de Bruijn sequence): BPF has
/// no instruction to count zeros.
#[inline(always)]
const fn lowest(set: u32) -> usize {
    let bit = set & set.wrapping_neg() & 0xff;
    // For each of the eight one-bit values the top three bits of the product differ.
    (0x5637_4210u32 >> (((bit.wrapping_mul(0x17) >> 5) & 7) << 2)) as usize & 7
}

#[inline(always)]
fn index_at(service: &Service, bucket: &Bucket, rank: usize) -> u32 {
    service.backends.wrapping_add(bucket.ranks[rank & (RANKS - 1)] as u32)
}

/// Chooses for a packet that may begin something: the first backend that accepts. `hash` is the client's.
#[inline(always)]
pub fn for_new<N: Node>(
    node: &N,
    packet: &Packet,
    service: &Service,
    bucket: &Bucket,
    hash: u64,
    sender: Mac,
    from_peer: bool,
) -> Choice {
    let (index, chance) = (index_at(service, bucket, 0), chance(hash));
    if !from_peer
        && let Some(first) = node.backend(index)
        && first.state & ACCEPTS != 0
        && first.delivery == DIRECT
        && first.reluctance <= chance
    {
        return Choice::Direct { index, verdict: Verdict::DirectNew, ttl: less_one(packet) };
    }
    let ranks = Ranks::survey(node, service, bucket, sender, chance);
    let accepting = ranks.accepts & (ranks.local | ranks.direct | ranks.nat);
    let mut open = accepting & ranks.turns(from_peer);
    if open == 0 && ranks.local == 0 {
        // The sender's table names this node, this node's the sender alone.
        open = accepting;
    }
    // Who is chosen by a peer takes what comes.
    if !from_peer && open & !ranks.reluctant != 0 {
        open &= !ranks.reluctant;
    }
    let local = open & ranks.local;
    if local != 0 && lowest(open) == lowest(local) {
        let index = index_at(service, bucket, lowest(local));
        if node.backend(index).is_some_and(|backend| listens(node, packet, backend)) {
            return Choice::Here { index, verdict: here(packet) };
        }
        if !packet.is_udp() {
            node.note_refused(index);
        }
    }
    open &= !ranks.local;
    if open == 0 {
        return Choice::Pass(Verdict::NoBackend);
    }
    let rank = lowest(open);
    let index = index_at(service, bucket, rank);
    if ranks.nat & open & open.wrapping_neg() != 0 {
        return Choice::Nat { index };
    }
    Choice::Direct { index, verdict: Verdict::DirectNew, ttl: less_one(packet) }
}

#[inline(always)]
const fn less_one(packet: &Packet) -> u8 {
    packet.ttl.wrapping_sub(1)
}

#[inline(always)]
const fn here(packet: &Packet) -> Verdict {
    if packet.is_udp() { Verdict::LocalUdp } else { Verdict::LocalNew }
}

/// Whether the backend on this node has a socket for the packet. A process that has just died is
/// noticed here, before any health check does, and the next in rank gets the connection.
#[inline(always)]
fn listens<N: Node>(node: &N, packet: &Packet, backend: &Backend) -> bool {
    if packet.is_udp() {
        node.udp_socket(packet, backend)
    } else {
        node.tcp_listener(packet, backend)
    }
}

/// Chooses for a segment of a connection: the backend that owns it, wherever that is.
#[inline(always)]
pub fn for_owner<N: Node>(
    node: &N,
    packet: &Packet,
    service: &Service,
    bucket: &Bucket,
    sender: Mac,
    from_peer: bool,
    may_be_cookie: bool,
) -> Choice {
    let index = index_at(service, bucket, 0);
    if !from_peer
        && let Some(first) = node.backend(index)
        && first.state & ALIVE != 0
        && first.delivery == DIRECT
    {
        return Choice::Direct {
            index,
            verdict: Verdict::DirectEstablished,
            ttl: less_one(packet),
        };
    }
    let ranks = Ranks::survey(node, service, bucket, sender, 0);
    // Who sends is alive.
    let alive = ranks.alive | ranks.sender;
    let turns = ranks.turns(from_peer);
    let next = ranks.direct & alive & turns;
    let local = ranks.local & turns;
    let mut verdict = Verdict::DirectEstablished;
    if from_peer || next == 0 || (local != 0 && lowest(local) < lowest(next)) {
        // Whatever the health check and the table say: a socket of ours is ours.
        if let Some(choice) = owned(node, packet, service, bucket, local, may_be_cookie) {
            return choice;
        }
        verdict = Verdict::DirectNext;
    }
    let others = ranks.direct & !ranks.sender;
    if from_peer && packet.ttl <= LAST_ROUND {
        let set = first_of([next & others, turns & others, others]);
        return carried(service, bucket, set, verdict, less_one(packet));
    }
    let used_up = from_peer && packet.ttl == LAST_ROUND + 1;
    if next != 0 && !used_up {
        let ttl = match (from_peer, local) {
            (false, _) => less_one(packet),
            // It cannot tell who was before it.
            (true, 0) => ranks.last_round(packet),
            (true, _) => ranks.first_round(packet),
        };
        return carried(service, bucket, next, verdict, ttl);
    }
    // The last round begins with whom the peers may have passed over, since this node thinks them
    // alive; then come those whom it thinks dead; and the sender where nobody else is left, or
    // where there is no telling whether it has asked its own sockets.
    let back = ranks.direct & ranks.sender;
    let unranked = if local == 0 { back } else { 0 };
    let set = first_of([others & alive, unranked, others, back]);
    let translated = ranks.nat & ranks.alive & turns;
    if set == 0 && translated != 0 {
        // No entry here: it was lost, or another node made it. The keyed port hash rebuilds most.
        return Choice::Nat { index: index_at(service, bucket, lowest(translated)) };
    }
    carried(service, bucket, set, Verdict::DirectLast, ranks.last_round(packet))
}

/// Carries a segment to the lowest rank of a set.
#[inline(always)]
fn carried(service: &Service, bucket: &Bucket, set: u32, verdict: Verdict, ttl: u8) -> Choice {
    if set == 0 {
        return Choice::Pass(Verdict::Nobody);
    }
    Choice::Direct { index: index_at(service, bucket, lowest(set)), verdict, ttl }
}

/// Whether a socket of this node has the segment; `local` are its ranks, perhaps none.
#[inline(always)]
fn owned<N: Node>(
    node: &N,
    packet: &Packet,
    service: &Service,
    bucket: &Bucket,
    local: u32,
    may_be_cookie: bool,
) -> Option<Choice> {
    let owner = node.tcp_owner(packet) != Owner::Nobody;
    if local == 0 {
        return owner.then_some(Choice::Pass(Verdict::LocalEstablished));
    }
    let index = index_at(service, bucket, lowest(local));
    if owner {
        return Some(Choice::Here { index, verdict: Verdict::LocalEstablished });
    }
    let backend = node.backend(index)?;
    let cookie = may_be_cookie && node.tcp_cookie(packet, backend);
    cookie.then_some(Choice::Here { index, verdict: Verdict::LocalCookie })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_rank_of_every_set_is_found() {
        for set in 1..256u32 {
            assert_eq!(lowest(set), set.trailing_zeros() as usize, "{set:#b}");
        }
    }

    #[test]
    fn less_without_a_branch_is_less() {
        for (a, b) in [(0, 0), (0, 1), (1, 0), (0xffff, 0x1_0000), (0xffff, 0xffff), (7, 6)] {
            assert_eq!(below(a, b), u32::from(a < b), "{a} {b}");
        }
    }

    #[test]
    fn equality_without_a_branch_is_equality() {
        for a in 0..=255 {
            for b in 0..=255 {
                assert_eq!(is(a, b), u32::from(a == b));
            }
        }
    }
}
