//! The node's network configuration: read as a value ([`Network`]), watched ([`Monitor`]), and
//! changed where the VIP demands it. Decides nothing: what to hold and whom to reach is said by
//! `role` and `plan`.
//!
//! Every socket belongs to the network namespace of the thread that opens it.

mod connection;
mod error;
mod established;
mod event;
mod hooked;
mod monitor;
mod network;
mod pace;
mod request;
mod snapshot;
mod sockets;
mod sysctl;
#[cfg(test)]
pub(crate) mod testbed;
#[cfg(test)]
mod tests;
mod virtual_link;

pub use connection::Netlink;
pub use error::NetlinkError;
pub use established::{Established, established, for_each_established};
pub use event::Change;
pub use hooked::{Hooked, HookedAt};
pub use monitor::{Monitor, MonitorOptions};
pub use network::{
    Hop, InterfaceAddress, Link, Mac, Neighbour, NeighbourState, Network, NextHop, Route,
    Unreachable, mac_text,
};
pub use pace::ProbePace;
pub use request::ROUTE_PROTOCOL;
pub use sockets::{end_connections, open_connections};
pub use sysctl::ipv6_obstacle;
pub use virtual_link::VirtualLinkError;
