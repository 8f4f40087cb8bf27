//! Why a verb failed.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use thiserror::Error;

use crate::control::client::ClientError;

#[derive(Debug, Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("the answer cannot be written: {0}")]
    Output(#[from] io::Error),
    #[error("the answer cannot be written as JSON: {0}")]
    Json(serde_json::Error),
    #[error("the answer cannot be written as YAML: {0}")]
    Yaml(#[from] serde_yaml_ng::Error),
    #[error("cannot read {}: {source}", file.display())]
    Unreadable { file: PathBuf, source: io::Error },
    #[error("{} is larger than {most} bytes: is it a configuration?", file.display())]
    TooLarge { file: PathBuf, most: u64 },
    #[error("{} is not UTF-8 from byte {valid} on: save it as UTF-8", file.display())]
    NotUtf8 { file: PathBuf, valid: usize },
    #[error("{} is there already: name another file, or replace it with --force", file.display())]
    Exists { file: PathBuf },
    #[error("cannot write {}: {source}", file.display())]
    Unwritable { file: PathBuf, source: io::Error },
    #[error("there is no service `{name}`: {advice}")]
    NoSuchService { name: String, advice: String },
    #[error(
        "{backend} is draining, but its connections cannot be counted here: run this on {}",
        node.as_deref().unwrap_or("the node that has it")
    )]
    CountedElsewhere { backend: SocketAddr, node: Option<String> },
    #[error(
        "no more connections of {service} are moved: {reason}; {moved} were (lbctl rebalance {service} \
         --dry-run shows what is left)"
    )]
    RebalancingEnded { service: String, reason: String, moved: u64 },
    #[error("{moved} connections of {service} were moved in {waited}, {left} are left; it goes on")]
    StillRebalancing { service: String, moved: u64, left: u64, waited: String },
    #[error("the kernel does not tell the flows: {0}")]
    Flows(String),
    #[error(
        "more than {0} flows are too many to follow: ask for those of one client, backend or service"
    )]
    TooManyFlows(usize),
    #[error("{backend} is not draining any more: somebody else has enabled or disabled it")]
    NoLongerDraining { backend: SocketAddr },
    #[error(
        "{} connections are left after {waited}; it goes on draining (lbctl backends)",
        left.map_or_else(|| "uncounted".to_owned(), |left| left.to_string())
    )]
    StillConnected { left: Option<u64>, waited: String },
}

impl Failure {
    pub(super) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}
