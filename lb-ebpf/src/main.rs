//! Entry points of the kernel programs. Each builds the frame and the node, asks the pure half and
//! turns its verdict, counted once, into the kernel's answer.

#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]
#![cfg_attr(not(target_arch = "bpf"), allow(dead_code, reason = "built for the kernel only"))]

#[cfg(target_arch = "bpf")]
mod host_hooks;
#[cfg(target_arch = "bpf")]
mod kernel;
#[cfg(target_arch = "bpf")]
mod programs;

/// A build for the host has nothing to run: the programs are loaded by lb-agent.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
