//! The reference model: what must come of a frame, given what the node knows. Written from
//! docs/packet-path.md, row by row, and not from the programs; comments quote the rows.
//!
//! It is meant to be read. It is slow, it computes checksums from the whole, and it shares with the
//! programs only what is the contract: the maps' layout, the hashes and the verdicts' names. Not
//! here: frames to try, which [`differential`](crate::differential) makes up, and the programs.
//!
//! A new behaviour begins as rows of that page. Then come the same rows here, in the file of their
//! table; frames and changes that reach them, in `differential`; and the programs.
//!
//! - [`state`]: maps, sockets and clock as one value
//! - `parse`: what is in a frame
//! - `steer`: the table "Steering", the first row that fits
//! - `choose`: "Choosing"
//! - `stay`: "Staying"
//! - `carry`: carrying to another node
//! - `protect`: "Refusing"
//! - `nat`: "NAT"
//! - `note`: "Noting"
//! - `passive`: "Failed connections"
//! - `answer`: "Answers"
//! - `neighbour`: ARP and neighbour discovery, on their way in and out
//! - `fragment`: "Fragments", at each of the three
//! - `deliver`, `egress`: "Delivery" and "Leaving"
//! - `rewrite`: changed fields, and the checksums that follow from them

mod answer;
mod carry;
mod choose;
mod deliver;
mod egress;
mod fragment;
mod nat;
mod neighbour;
mod note;
mod parse;
pub mod passive;
mod protect;
mod rewrite;
pub mod state;
mod stay;
mod steer;

use lb_common::counter::Verdict;

pub use deliver::deliver;
pub use egress::leave;
pub use steer::steer;

/// What becomes of the frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// To whoever comes next: the node's stack, or the wire.
    Pass,
    Drop,
    /// Out of an interface.
    Send(u32),
}

/// What a program does with a frame. What it does to the state stands in the state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// The counter that moves by one.
    pub verdict: Option<Verdict>,
    pub action: Action,
    /// The frame as it leaves.
    pub frame: Vec<u8>,
    /// What a packet is too large for, if it is.
    mtu: u16,
}

impl Outcome {
    fn passed(verdict: Verdict, frame: &[u8]) -> Self {
        Self { verdict: Some(verdict), action: Action::Pass, frame: frame.to_vec(), mtu: 0 }
    }

    fn dropped(verdict: Verdict, frame: &[u8]) -> Self {
        Self { verdict: Some(verdict), action: Action::Drop, frame: frame.to_vec(), mtu: 0 }
    }

    fn sent(verdict: Verdict, interface: u32, frame: Vec<u8>) -> Self {
        Self { verdict: Some(verdict), action: Action::Send(interface), frame, mtu: 0 }
    }

    fn too_large(mtu: u16, frame: &[u8]) -> Self {
        Self { mtu, ..Self::dropped(Verdict::TooBig, frame) }
    }

    /// Passed on without a counter.
    fn untouched(frame: &[u8]) -> Self {
        Self { verdict: None, action: Action::Pass, frame: frame.to_vec(), mtu: 0 }
    }
}
