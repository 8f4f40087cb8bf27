//! What happened on this node, for a while: everything that the agent logs as information or worse, numbered.
//!
//! The log is the one source: a line there and an event here are the same call ([`recorder`]). Lines with a field
//! `event` have a kind that programs can rely on; docs/api.md lists them.

mod journal;
mod recorder;

pub use journal::{Begin, Journal, Reader, journal};
pub use recorder::Recorder;
