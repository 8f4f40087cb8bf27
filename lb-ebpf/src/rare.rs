//! Frames that are rare, and what they need: programs of their own, so that all others are spared their
//! instructions and their share of the stack, both of which the verifier bounds.

use lb_common::counter::Verdict;
use lb_common::deep::DeepPacket;
use lb_common::layout::stage;

use crate::deep::{Part, pack, uncover, unpack};
use crate::environment::{Frame, Node};
use crate::parse::{Parsed, parse};
use crate::steer::{Steered, packet_to_us, settle};
use crate::{fragment, icmp};

/// What became of a rare frame.
pub enum Rare {
    Steered(Steered),
    /// It has a tuple, by which [`steer_deep`] steers it.
    Deep(DeepPacket),
}

/// Decides on a frame that [`steer`](crate::steer::steer) left to this.
#[inline(always)]
pub fn steer_rare<F: Frame, N: Node>(frame: &mut F, node: &N) -> Rare {
    let verdict = match parse(frame, |address| node.may_be_ours(address)) {
        Parsed::Error(outer) => return Rare::Steered(icmp::error(frame, node, &outer)),
        Parsed::Deep(network) => return deep(frame, node, network),
        _ => Verdict::Inconsistent,
    };
    Rare::Steered(Steered::here(verdict))
}

#[inline(always)]
fn deep<F: Frame, N: Node>(frame: &mut F, node: &N, network: usize) -> Rare {
    let Some(uncovered) = uncover(frame, network) else {
        return Rare::Steered(Steered::here(Verdict::Truncated));
    };
    if let Part::Following = uncovered.part {
        return Rare::Steered(fragment::following(frame, node, &uncovered));
    }
    let verdict = match uncovered.parsed(frame) {
        Parsed::Packet(packet) => {
            return Rare::Deep(pack(&packet, uncovered.id, uncovered.is_first()));
        }
        // One that comes in pieces is not what a router sends.
        Parsed::Error(outer) if !uncovered.is_first() => {
            return Rare::Steered(icmp::error(frame, node, &outer));
        }
        Parsed::Truncated => Verdict::Truncated,
        Parsed::OtherProtocol => Verdict::OtherProtocol,
        // What neighbour discovery behind extension headers brings about is guarded where it leaves.
        _ => Verdict::IcmpOther,
    };
    Rare::Steered(Steered::here(verdict))
}

/// Steers a packet that [`steer_rare`] found the tuple of.
#[inline(always)]
pub fn steer_deep<F: Frame, N: Node>(frame: &mut F, node: &N, deep: &DeepPacket) -> Steered {
    let packet = unpack(deep);
    let steered = packet_to_us(frame, node, &packet);
    let steered = settle(frame, node, steered);
    if steered.stage() == Some(stage::STAY) {
        // Which notes a first fragment, too.
        return steered;
    }
    if steered.stage().is_some() {
        // No cookie for a SYN like this: nobody honest sends them in a flood.
        return Steered::here(Verdict::SynDropped);
    }
    if deep.first != 0 {
        fragment::first(frame, node, &packet, deep.id, steered);
    }
    steered
}
