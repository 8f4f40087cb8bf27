//! Finds a toolchain for BPF and builds lb-ebpf with it. Not for installing one: that is
//! `cargo xtask setup`.
//!
//! Two roads lead to an object, and the first that is there is taken:
//!
//! | road | rustc and cargo | `core` for BPF |
//! |---|---|---|
//! | Debian | packages rustc-web and cargo-web | prebuilt, package libstd-rust-web-dev-bpf |
//! | rustup | a nightly | built on the way from the component rust-src |
//!
//! Both need bpf-linker beside them.

mod compile;
mod search;

pub use compile::{BuildError, Built, Request};
pub use search::{Compiler, NIGHTLY, NotFound, Road, Search, Toolchain};
