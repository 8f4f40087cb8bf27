//! Why the agent does not start, or stops.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::control::server::ServeError;
use crate::dataplane::DataPlaneError;
use crate::lists::ListError;
use crate::netlink::NetlinkError;
use crate::plan::TablesError;
use crate::replica::KeyError;

#[derive(Debug, Error)]
pub enum AgentError {
    #[error("cannot read {path}: {source}; name the configuration with --config")]
    ReadConfig { path: PathBuf, source: io::Error },

    /// All problems of the file, each with its place and remedy.
    #[error("{report}")]
    Config { report: String },

    #[error("{0}")]
    Node(String),

    #[error(transparent)]
    DataPlane(#[from] DataPlaneError),

    #[error(transparent)]
    Netlink(#[from] NetlinkError),

    #[error(transparent)]
    Tables(#[from] TablesError),

    #[error(transparent)]
    List(#[from] ListError),

    #[error("`key_file` in [peers]: {0}")]
    Key(#[from] KeyError),

    #[error(transparent)]
    Serve(#[from] ServeError),

    /// It cannot go on where another agent was.
    #[error("{0}")]
    Follow(String),

    #[error("cannot listen on {address} for metrics: {source}; choose another metrics.listen")]
    Metrics { address: std::net::SocketAddr, source: io::Error },

    #[error(
        "cannot listen on {address} for the other nodes: {source}; choose another port in [peers]"
    )]
    Peers { address: std::net::SocketAddr, source: io::Error },

    #[error("{operation}: {source}")]
    System { operation: &'static str, source: io::Error },
}

impl AgentError {
    /// 2 where the user's input is to blame, 1 otherwise.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::ReadConfig { .. }
            | Self::Config { .. }
            | Self::Node(_)
            | Self::Tables(_)
            | Self::List(_)
            | Self::Key(_) => 2,
            _ => 1,
        }
    }
}
