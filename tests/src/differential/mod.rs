//! The same sequences of frames and changes for the [`model`](crate::model) and for the programs as the
//! kernel verified them, and what must be the same: verdict, action, bytes, and the state after.
//!
//! A seed determines a sequence, so that a difference can be seen again; it is shown with as few
//! steps and as plain frames as still show it. Not here: packets on wires, which the lab's
//! scenarios have.
//!
//! - `cast`: who takes part, and what the maps hold to begin with
//! - `step`: what can happen, and what it changes
//! - `generate`, `packets`: sequences and frames from a seed
//! - `machine`: a set of loaded programs with their maps
//! - `sockets`: the node's own
//! - `trial`: one sequence, on the model and on every machine
//! - `compare`: what is held against what
//! - `shrink`: fewer and plainer steps that still differ
//! - [`runner`], [`command`]: many sequences

mod cast;
pub mod command;
mod compare;
mod generate;
mod machine;
mod packets;
pub mod runner;
mod shrink;
mod sockets;
mod step;
mod trial;

/// Where no other is asked for: every run is the same one.
pub const SEED: u64 = 768;
