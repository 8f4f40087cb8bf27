//! The kernel half: entry points' context, maps, packet memory and sockets. All unsafe code of the
//! programs is in these files, one for each kind of memory.

pub(crate) mod cookie;
pub(crate) mod maps;
pub(crate) mod memory;
pub(crate) mod node;
pub(crate) mod sockets;
