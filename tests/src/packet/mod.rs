//! Single packets through the kernel program, by BPF_PROG_TEST_RUN: fixtures that say what goes in
//! and what must come out, and the harness under them. What a packet costs is [`bench`](crate::bench)'s.
//!
//! Nothing is attached and nothing leaves the machine: a thread with a network namespace of its
//! own holds the maps, the sockets and the loopback interface that stands for the network card.

pub mod checksum;
pub mod fixture;
pub mod frame;
pub mod guard;
pub mod kernel;
pub mod made_up;
pub mod names;
pub mod scene;
pub mod syscall;
