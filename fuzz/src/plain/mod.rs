//! The kernel programs' world in memory: a frame, and a node with its maps and sockets.

pub mod frame;
pub mod node;
