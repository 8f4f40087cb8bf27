//! Which way a packet is to go, worked out from what the agent knows, and a packet by which the loaded program is
//! asked the same. Pure.
//!
//! Written from docs/packet-path.md and not from the program, so that the two can disagree.

mod choice;
mod packet;

pub use choice::{Choice, Expected, Origin, Passed, Rank, choose};
pub use packet::{Question, Seen, TTL, seen};
