//! `[peers]`: the nodes tell one another of their NAT flows.

use std::path::PathBuf;

/// What they need for that. They find one another by the addresses of `[[node]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peers {
    /// Holds the secret that all of them share.
    pub key_file: PathBuf,
    /// TCP.
    pub port: u16,
}

impl Peers {
    pub const DEFAULT_PORT: u16 = 9634;
}
