//! VRRP routers in virtual time: what holds whatever the network, the machines and the people do.
//!
//! The routers are the agent's own state machines, and models of keepalived and FRR. A seed
//! determines everything, so a failure can be seen again. Not here: sockets, clocks and leases in
//! the kernel, which the lab's scenarios have.
//!
//! - [`runner`]: many scenarios, and what they came to
//! - `scenario`: what happens in one
//! - `world`: carries it out
//! - `router`, `model`: who takes part
//! - `link`, `lease`, `random`, `trace`: what they need
//! - [`watch`]: the invariants

pub mod command;
mod lease;
mod link;
mod model;
pub(crate) mod random;
mod router;
pub mod runner;
mod scenario;
#[cfg(test)]
mod tests;
mod trace;
pub mod watch;
mod world;

pub use lease::Cause;

/// Where no other is asked for: every run is the same one.
pub const SEED: u64 = 9568;
