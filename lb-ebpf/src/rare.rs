//! Frames that are rare, and what they need: a program of its own, so that all others are spared its
//! instructions and its share of the stack, both of which the verifier bounds.

use lb_common::counter::Verdict;

use crate::environment::{Frame, Node};
use crate::icmp;
use crate::parse::{Parsed, parse};
use crate::steer::Steered;

/// Decides on a frame that [`steer`](crate::steer::steer) left to this.
#[inline(always)]
pub fn steer_rare<F: Frame, N: Node>(frame: &mut F, node: &N) -> Steered {
    match parse(frame, |address| node.may_be_ours(address)) {
        Parsed::Error(outer) => icmp::error(frame, node, &outer),
        // Nothing else is left to it.
        _ => Steered::here(Verdict::Inconsistent),
    }
}
