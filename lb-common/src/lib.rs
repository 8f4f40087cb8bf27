//! What the kernel program and the agent share: the layout of every map, the names of the
//! counters, the hashes that steer, and checksum arithmetic.
//!
//! Nothing here does I/O, allocates or knows aya (but for `Pod` behind the feature `user`). Shared
//! structs have explicit padding, integers instead of bool, and their sizes asserted at compile
//! time, because both sides read the same bytes.

#![no_std]

pub mod address;
pub mod affinity;
pub mod answers;
pub mod backend;
pub mod bucket;
pub mod checksum;
pub mod connection;
pub mod counter;
pub mod deep;
pub mod filter;
pub mod flow;
pub mod fragment;
pub mod hash;
pub mod host;
pub mod interface;
pub mod layout;
pub mod nat;
pub mod passive;
pub mod permutation;
#[cfg(feature = "user")]
mod pod;
pub mod protection;
pub mod quic;
pub mod service;
pub mod settings;
pub mod syn_flood;
pub mod vip;
pub mod virtual_mac;

pub use address::Address;
