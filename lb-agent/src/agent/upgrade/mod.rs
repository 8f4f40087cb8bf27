//! One agent follows another in place, while everything goes on: connections, the VIPs, the control socket.
//!
//! ```text
//! the one that runs                              the one that is to follow, its child
//!   starts it, with a channel as its input
//!                                   <-- Hello    its version, its layout of the maps
//!   Prepare: what it is to follow   -->          reads the file, has its programs verified
//!                                   <-- Prepared changes nothing yet
//!   rests its loop: no map is written
//!   TakeOver: what it knows         -->          maps, then programs; tries a packet
//!                                   <-- Ready
//!   pauses VRRP
//!   GoOn: where VRRP is             -->          VRRP, the VIPs, the API
//!                                   <-- Serving  its predecessor's pins go
//!   ends
//! ```
//!
//! Whatever goes wrong until then, the child is killed and the one that runs goes on, its programs put back.
//! Of the two never both write maps or speak VRRP. Where the channel ends, whoever has taken over goes on.

mod channel;
mod incoming;
mod outgoing;
mod service_manager;
mod words;

pub(super) use incoming::{Inheritance, take_over};
pub(super) use outgoing::{Event, Talk};
pub(super) use service_manager::tell as tell_service_manager;
