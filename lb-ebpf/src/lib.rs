//! The kernel side's pure half: parse, choose, rewrite. It knows frames and nodes by the traits in
//! [`environment`] only, so that it runs on the host under test as it runs in the kernel.
//!
//! Architecture invariant: no aya, no map and no packet pointer here; those are in the binary's
//! `kernel/`.

#![cfg_attr(target_arch = "bpf", no_std)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

pub mod answer;
pub mod carry;
pub mod choose;
pub mod cookie;
pub mod deep;
pub mod deliver;
pub mod egress;
pub mod environment;
pub mod fragment;
pub mod host;
pub mod icmp;
pub mod nat;
pub mod neighbour;
mod note;
mod opaque;
pub mod parse;
pub mod passive;
pub mod protect;
pub mod rare;
pub mod stay;
pub mod steer;
pub mod virtual_mac;
pub mod wire;
