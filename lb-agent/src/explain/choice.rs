//! Whose turn a packet is: docs/packet-path.md, Choosing.

use lb_common::backend::Delivery;

use crate::netlink::Mac;

/// What a bucket ranks, as far as it decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rank {
    pub delivery: Delivery,
    pub alive: bool,
    pub accepts: bool,
    pub reluctance: u32,
    /// Of the next hop.
    pub mac: Mac,
}

/// Whom the frame comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Outside,
    Peer(Mac),
}

/// Why a rank does not get the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    /// There is no way to it.
    NoWay,
    NotAccepting,
    NotAlive,
    /// It starts slowly, and this client is not among those that it takes already.
    Reluctant,
    /// The peer that carried it here had its turn, or this node's rank comes before.
    NotItsTurn,
    /// Segments of its connections go by NAT entries.
    ByEntries,
    /// An earlier one gets it.
    Later,
}

/// Who gets the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// The backend at this rank, on another node or by NAT.
    Rank(usize),
    /// This node if a socket of its own says so, for the backend at this rank or of one that the table has no more;
    /// otherwise that rank, or nobody.
    Here {
        rank: Option<usize>,
        otherwise: Option<usize>,
    },
    Nobody,
}

/// The choice, and why each rank is not the one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    pub expected: Expected,
    pub passed: Vec<Option<Passed>>,
}

/// Chooses for a packet that begins something (`new`) or any other segment; `chance` is the client's.
pub fn choose(ranks: &[Rank], new: bool, origin: Origin, chance: u32) -> Choice {
    let turn = turns(ranks, origin);
    let (expected, why): (_, Vec<Option<Passed>>) = match new {
        true => for_new(ranks, &turn, origin, chance),
        false => for_owner(ranks, &turn, origin),
    };
    let chosen = |rank: usize| match expected {
        Expected::Rank(at) => at == rank,
        Expected::Here { rank: here, otherwise } => here == Some(rank) || otherwise == Some(rank),
        Expected::Nobody => false,
    };
    let passed = why.into_iter().enumerate();
    let passed = passed.map(|(rank, why)| match chosen(rank) {
        true => None,
        false => why.or(Some(Passed::Later)),
    });
    Choice { expected, passed: passed.collect() }
}

/// The ranks whose turn it can be.
fn turns(ranks: &[Rank], origin: Origin) -> Vec<bool> {
    let own = ranks.iter().position(|rank| rank.delivery == Delivery::Local);
    let turn = |(place, rank): (usize, &Rank)| match (origin, own) {
        (Origin::Outside, _) => true,
        (Origin::Peer(_), Some(own)) => place >= own,
        (Origin::Peer(sender), None) => rank.mac != sender,
    };
    ranks.iter().enumerate().map(turn).collect()
}

const fn has_way(rank: &Rank) -> bool {
    matches!(rank.delivery, Delivery::Local | Delivery::Direct | Delivery::Nat)
}

fn for_new(
    ranks: &[Rank],
    turn: &[bool],
    origin: Origin,
    chance: u32,
) -> (Expected, Vec<Option<Passed>>) {
    let ranked_here = ranks.iter().any(|rank| rank.delivery == Delivery::Local);
    let accepts = |rank: &Rank| rank.accepts && has_way(rank);
    let in_turn = |at: usize| accepts(&ranks[at]) && turn[at];
    let anybody = (0..ranks.len()).any(in_turn);
    // The sender's table names this node, this node's the sender alone.
    let open = |at: usize| {
        if !anybody && !ranked_here { accepts(&ranks[at]) } else { in_turn(at) }
    };
    let willing = |at: usize| ranks[at].reluctance <= chance;
    let choosy = origin == Origin::Outside && (0..ranks.len()).any(|at| open(at) && willing(at));
    let open = |at: usize| open(at) && (!choosy || willing(at));
    let mut all = (0..ranks.len()).filter(|&at| open(at));
    let expected = match all.next() {
        None => Expected::Nobody,
        Some(first) if ranks[first].delivery == Delivery::Local => {
            let otherwise = all.find(|&at| ranks[at].delivery != Delivery::Local);
            Expected::Here { rank: Some(first), otherwise }
        }
        Some(first) => Expected::Rank(first),
    };
    let why = ranks.iter().enumerate().map(|(at, rank)| match rank {
        _ if open(at) => None,
        _ if !has_way(rank) => Some(Passed::NoWay),
        _ if !rank.accepts => Some(Passed::NotAccepting),
        _ if choosy && !willing(at) => Some(Passed::Reluctant),
        _ => Some(Passed::NotItsTurn),
    });
    (expected, why.collect())
}

fn for_owner(ranks: &[Rank], turn: &[bool], origin: Origin) -> (Expected, Vec<Option<Passed>>) {
    let is = |at: usize, delivery| ranks[at].delivery == delivery;
    let is_sender = |at: usize| match origin {
        Origin::Peer(sender) => ranks[at].mac == sender,
        Origin::Outside => false,
    };
    // Who sends is alive.
    let alive = |at: usize| ranks[at].alive || is_sender(at);
    let first = |fits: &dyn Fn(usize) -> bool| (0..ranks.len()).find(|&at| fits(at));
    let next = first(&|at| is(at, Delivery::Direct) && alive(at) && turn[at]);
    let here = first(&|at| is(at, Delivery::Local) && turn[at]);
    // The last round begins where nobody living has a turn.
    let other = |at: usize| is(at, Delivery::Direct) && !is_sender(at);
    let back = |at: usize| is(at, Delivery::Direct) && is_sender(at);
    let last = || {
        first(&|at| other(at) && alive(at))
            .or_else(|| first(&|at| here.is_none() && back(at)))
            .or_else(|| first(&other))
            .or_else(|| first(&back))
            .or_else(|| first(&|at| is(at, Delivery::Nat) && ranks[at].alive && turn[at]))
    };
    let carried_at_once =
        origin == Origin::Outside && next.is_some_and(|next| here.is_none_or(|here| next < here));
    let expected = match next {
        Some(next) if carried_at_once => Expected::Rank(next),
        next => Expected::Here { rank: here, otherwise: next.or_else(last) },
    };
    let why = ranks.iter().enumerate().map(|(at, rank)| match rank.delivery {
        Delivery::Nat => Some(Passed::ByEntries),
        Delivery::Local | Delivery::Direct if !turn[at] => Some(Passed::NotItsTurn),
        Delivery::Direct if !alive(at) => Some(Passed::NotAlive),
        Delivery::Local | Delivery::Direct => None,
        Delivery::None | Delivery::Tunnel => Some(Passed::NoWay),
    });
    (expected, why.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Mac = [2, 0, 0, 0, 0, 1];
    const B: Mac = [2, 0, 0, 0, 0, 2];

    fn rank(delivery: Delivery, mac: Mac) -> Rank {
        Rank { delivery, alive: true, accepts: true, reluctance: 0, mac }
    }

    fn three() -> [Rank; 3] {
        [rank(Delivery::Direct, A), rank(Delivery::Local, [0; 6]), rank(Delivery::Direct, B)]
    }

    #[test]
    fn a_new_connection_goes_to_the_first_that_accepts_and_each_other_says_why_not() {
        let mut ranks = three();
        let all = |ranks: &[Rank]| choose(ranks, true, Origin::Outside, 100);
        assert_eq!(all(&ranks).expected, Expected::Rank(0));
        assert_eq!(all(&ranks).passed, [None, Some(Passed::Later), Some(Passed::Later)]);
        ranks[0].accepts = false;
        let here = Expected::Here { rank: Some(1), otherwise: Some(2) };
        assert_eq!(all(&ranks).expected, here);
        assert_eq!(all(&ranks).passed, [Some(Passed::NotAccepting), None, None]);
        ranks[0] = Rank { delivery: Delivery::None, ..rank(Delivery::None, A) };
        assert_eq!(all(&ranks).passed[0], Some(Passed::NoWay));
        ranks.iter_mut().for_each(|rank| rank.accepts = false);
        assert_eq!(all(&ranks).expected, Expected::Nobody);
    }

    #[test]
    fn who_starts_slowly_is_passed_over_while_another_one_accepts() {
        let mut ranks = three();
        ranks[0].reluctance = 101;
        let choice = choose(&ranks, true, Origin::Outside, 100);
        assert_eq!(choice.passed[0], Some(Passed::Reluctant));
        assert_eq!(choose(&ranks, true, Origin::Outside, 101).expected, Expected::Rank(0));
        ranks[1].accepts = false;
        ranks[2].accepts = false;
        assert_eq!(choose(&ranks, true, Origin::Outside, 100).expected, Expected::Rank(0));
        // Who is chosen by a peer takes what comes.
        let mut ranks = three();
        ranks[1].reluctance = 65_536;
        let chosen = Expected::Here { rank: Some(1), otherwise: Some(2) };
        assert_eq!(choose(&ranks, true, Origin::Peer(A), 0).expected, chosen);
    }

    #[test]
    fn what_a_peer_carried_here_never_goes_before_this_nodes_rank() {
        let ranks = three();
        let choice = choose(&ranks, true, Origin::Peer(B), 0);
        assert_eq!(choice.expected, Expected::Here { rank: Some(1), otherwise: Some(2) });
        assert_eq!(choice.passed[0], Some(Passed::NotItsTurn));
        let unranked = [rank(Delivery::Direct, A), rank(Delivery::Direct, B)];
        assert_eq!(choose(&unranked, true, Origin::Peer(A), 0).expected, Expected::Rank(1));
        assert_eq!(choose(&unranked[..1], true, Origin::Peer(A), 0).expected, Expected::Rank(0));
    }

    #[test]
    fn a_segment_is_carried_to_who_lives_or_asked_of_the_sockets_here() {
        let mut ranks = three();
        let outside = |ranks: &[Rank]| choose(ranks, false, Origin::Outside, 0).expected;
        assert_eq!(outside(&ranks), Expected::Rank(0));
        ranks[0].alive = false;
        assert_eq!(outside(&ranks), Expected::Here { rank: Some(1), otherwise: Some(2) });
        ranks[2].alive = false;
        // The last round: those who are thought dead.
        assert_eq!(outside(&ranks), Expected::Here { rank: Some(1), otherwise: Some(0) });
        let from_peer = choose(&ranks, false, Origin::Peer(A), 0).expected;
        assert_eq!(from_peer, Expected::Here { rank: Some(1), otherwise: Some(2) });
        let nat = [rank(Delivery::Nat, A)];
        assert_eq!(outside(&nat), Expected::Here { rank: None, otherwise: Some(0) });
    }
}
