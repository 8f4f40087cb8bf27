//! Whose turn it is: the ranks of a bucket, from the first to the last.
//!
//! Every node sees the same ranks. A node that got the frame from a peer was chosen, so it begins
//! with itself and looks only at later ranks: a frame never goes back, and ends where nobody is
//! left. A node that is thought dead comes last, with a TTL of one, so that a false verdict breaks
//! nothing and a true one costs one frame.
//!
//! Most packets from outside are settled by the first rank. The others look at all ranks once and
//! decide on sets of them, which keeps the program small for the verifier: no branch in the loop
//! depends on another.

use lb_common::backend::{ACCEPTS, ALIVE, Backend, Delivery};
use lb_common::bucket::{Bucket, NONE, RANKS};
use lb_common::counter::Verdict;
use lb_common::service::Service;

use crate::environment::{Node, Owner};
use crate::parse::Packet;
use crate::wire::Mac;

const LOCAL: u8 = Delivery::Local as u8;
const DIRECT: u8 = Delivery::Direct as u8;
const NAT: u8 = Delivery::Nat as u8;

/// What to do with a packet to a service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Choice {
    /// It is for a socket of this node, the backend at this index.
    Here { index: u32, verdict: Verdict },
    /// It is passed to the stack, which refuses it.
    Refuse(Verdict),
    /// It is carried to the node of the backend at this index.
    Direct { index: u32, verdict: Verdict, last: bool },
    /// It is translated for the backend at this index.
    Nat { index: u32 },
}

/// Ranks of one bucket by what can be said of their backends: bit `n` is rank `n`.
#[derive(Clone, Copy)]
struct Ranks {
    local: u32,
    direct: u32,
    nat: u32,
    alive: u32,
    accepts: u32,
    /// The frame came from this one.
    sender: u32,
}

impl Ranks {
    #[inline(always)]
    fn survey<N: Node>(node: &N, service: &Service, bucket: &Bucket, sender: Mac) -> Self {
        let mut ranks = Self { local: 0, direct: 0, nat: 0, alive: 0, accepts: 0, sender: 0 };
        for rank in 0..RANKS {
            let relative = bucket.ranks[rank];
            if relative == NONE {
                break;
            }
            let Some(backend) = node.backend(service.backends.wrapping_add(relative as u32)) else {
                break;
            };
            ranks.note(rank as u32, backend.delivery, backend.state);
            ranks.sender |=
                Mac::from_bytes(backend.mac).differs(sender).wrapping_sub(1) >> 31 << rank;
        }
        ranks
    }

    #[inline(always)]
    fn note(&mut self, rank: u32, delivery: u8, state: u8) {
        self.local |= is(delivery, LOCAL) << rank;
        self.direct |= is(delivery, DIRECT) << rank;
        self.nat |= is(delivery, NAT) << rank;
        self.alive |= ((state & ALIVE) as u32) << rank;
        self.accepts |= (((state & ACCEPTS) >> 1) as u32) << rank;
    }

    /// The ranks whose turn it can be: all of them, or from this node's own on.
    #[inline(always)]
    const fn turns(&self, from_peer: bool) -> u32 {
        if from_peer && self.local != 0 {
            // From the lowest set bit on.
            !((self.local & self.local.wrapping_neg()) - 1)
        } else {
            u32::MAX
        }
    }
}

/// 1 where both are equal, without a branch.
#[inline(always)]
const fn is(a: u8, b: u8) -> u32 {
    (((a ^ b) as u32).wrapping_sub(1)) >> 31
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

/// Chooses for a packet that may begin something: the first backend that accepts.
#[inline(always)]
pub fn for_new<N: Node>(
    node: &N,
    packet: &Packet,
    service: &Service,
    bucket: &Bucket,
    sender: Mac,
    from_peer: bool,
) -> Choice {
    let index = index_at(service, bucket, 0);
    if !from_peer
        && let Some(first) = node.backend(index)
        && first.state & ACCEPTS != 0
        && first.delivery == DIRECT
    {
        return Choice::Direct { index, verdict: Verdict::DirectNew, last: false };
    }
    let ranks = Ranks::survey(node, service, bucket, sender);
    let mut open =
        ranks.accepts & (ranks.local | ranks.direct | ranks.nat) & ranks.turns(from_peer);
    let local = open & ranks.local;
    if local != 0 && lowest(open) == lowest(local) {
        let index = index_at(service, bucket, lowest(local));
        if node.backend(index).is_some_and(|backend| listens(node, packet, backend)) {
            return Choice::Here { index, verdict: here(packet) };
        }
    }
    open &= !ranks.local;
    if open == 0 {
        return Choice::Refuse(Verdict::NoBackend);
    }
    let rank = lowest(open);
    let index = index_at(service, bucket, rank);
    if ranks.nat & open & open.wrapping_neg() != 0 {
        return Choice::Nat { index };
    }
    Choice::Direct { index, verdict: Verdict::DirectNew, last: false }
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

/// Chooses for a segment of a connection: the first living backend that owns it.
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
        return Choice::Direct { index, verdict: Verdict::DirectEstablished, last: false };
    }
    let ranks = Ranks::survey(node, service, bucket, sender);
    let turns = ranks.turns(from_peer);
    let carried = ranks.direct & ranks.alive & turns;
    let local = ranks.local & turns;
    let mut verdict = Verdict::DirectEstablished;
    if local != 0 && (carried == 0 || lowest(local) < lowest(carried)) {
        // Whatever the health check says: a socket of ours is ours.
        let index = index_at(service, bucket, lowest(local));
        if let Some(verdict) = owned(node, packet, index, may_be_cookie) {
            return Choice::Here { index, verdict };
        }
        verdict = Verdict::DirectNext;
    }
    // Whoever is thought dead here; and for a frame from a peer, whoever the peer may have passed
    // over because it thinks so.
    let suspects = ranks.direct & !ranks.alive & !ranks.sender;
    let passed_over = ranks.direct & !turns & !ranks.sender;
    let translated = ranks.nat & ranks.alive & turns;
    if carried != 0 {
        let index = index_at(service, bucket, lowest(carried));
        Choice::Direct { index, verdict, last: false }
    } else if suspects | passed_over != 0 {
        let chosen = if suspects != 0 { suspects } else { passed_over };
        let index = index_at(service, bucket, lowest(chosen));
        Choice::Direct { index, verdict: Verdict::DirectLast, last: true }
    } else if translated != 0 {
        // No entry here: it was lost, or another node made it. The keyed port hash rebuilds most.
        Choice::Nat { index: index_at(service, bucket, lowest(translated)) }
    } else {
        Choice::Refuse(Verdict::Nobody)
    }
}

#[inline(always)]
fn owned<N: Node>(node: &N, packet: &Packet, index: u32, may_be_cookie: bool) -> Option<Verdict> {
    if node.tcp_owner(packet) != Owner::Nobody {
        return Some(Verdict::LocalEstablished);
    }
    let backend = node.backend(index)?;
    let cookie = may_be_cookie && node.tcp_cookie(packet, backend);
    cookie.then_some(Verdict::LocalCookie)
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
    fn equality_without_a_branch_is_equality() {
        for a in 0..=255 {
            for b in 0..=255 {
                assert_eq!(is(a, b), u32::from(a == b));
            }
        }
    }
}
