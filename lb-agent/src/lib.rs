//! The agent: reads the configuration, checks backends, holds the VIP and writes the maps.
//!
//! Pure modules (`config`, `explain`, `import`, `table`, `plan`, `standing`, `rebalance`, `hysteresis`, the machines in `health`
//! and `role`, what is known in `discovery`) know nothing of tokio, sockets, files or clocks; drivers carry their decisions out; `agent` alone
//! composes.

pub mod absence;
pub mod agent;
pub mod announce;
pub mod cli;
pub mod config;
pub mod control;
pub mod dataplane;
pub mod discovery;
pub mod doctor;
pub mod events;
pub mod explain;
pub mod finding;
pub mod health;
mod hysteresis;
pub mod import;
pub mod kernel;
pub mod lists;
pub mod metrics;
pub mod netlink;
pub mod notify;
mod packet_socket;
pub mod plan;
pub mod rebalance;
pub mod replica;
pub mod role;
pub mod script;
pub mod standing;
pub mod table;
pub mod track;
pub mod vrrp;
mod web;
