//! Whether what is carried to another node is served there: a SYN for the service goes to the node's MAC, as those of
//! clients do, now and then. A node may be up, and its server well, while its programs are not attached: then its stack
//! resets what comes for a virtual address, and no check of the server's own address finds that out.
//!
//! ```text
//!   this node                                      the other
//!   SYN from an own address to VIP:port  ------>   its program, its listener
//!   SYN, ACK from VIP:port               <------
//!   RST                                  ------>   nothing is left of it
//! ```
//!
//! The answer is caught below the IP stack, which would take it for forged: its source is an address of this node's as
//! well. One socket for each interface hears all of them. [`probe`] is pure, [`link`] carries, [`driver`] decides when.

mod driver;
mod link;
mod probe;

use std::net::{IpAddr, SocketAddr};

use super::{Schedule, State};
use crate::netlink::Mac;

pub use driver::Prober;
pub use probe::{Answer, Heard, Ports, Probe};

/// A service's way to another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Way {
    pub service: SocketAddr,
    /// The address of the service's backends on it.
    pub node: IpAddr,
}

/// A way to probe, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    pub way: Way,
    /// The interface that leads to the node, and its MAC there.
    pub ifindex: u32,
    pub mac: Mac,
    /// This node's address on that interface, of the service's family.
    pub from: IpAddr,
    pub schedule: Schedule,
    /// No new connection is meant for the backends there: that the node carries on what is not theirs is enough.
    pub drains: bool,
}

/// What is known of a way changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub way: Way,
    pub state: State,
    /// For people: `no answer within 1s, 3 times in a row`.
    pub reason: String,
}
