//! What a node's being Active depends on, apart from the protocol: interfaces, scripts, healthy
//! backends, and the data path itself.
//!
//! Each is looked at again and again; `rise` and `fall` turn what was seen into a state. One that
//! fails lowers the node's priority by its weight, or, without a weight, makes the node resign and
//! stay Backup. [`board`], [`judge`] and [`frame`] are pure; [`driver`] has scripts run. Who is told what follows is for `agent` to know.

pub mod board;
mod driver;
pub mod frame;
pub mod judge;
mod script;
#[cfg(test)]
mod tests;

pub use board::{Board, Change, Tracked};
pub use driver::{Event, Watcher};
pub use judge::{Counts, Failure, Kind, Outcome};
