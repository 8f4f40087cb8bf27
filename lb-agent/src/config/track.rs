//! What `[[track]]` says, as types: on what a node's priority, or its being Active at all, depends.
//! Not the watching itself: that is the module `track`.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::duration_text;

/// What is watched without a table of the file, and by these names in metrics: no `[[track]]` may
/// have one of them.
pub const BUILT_IN: [&str; 2] = ["data-path", "synthetic-packet"];

/// One thing that is watched, and what follows while it fails.
#[derive(Clone, Debug, PartialEq)]
pub struct Track {
    /// Unique, and none of [`BUILT_IN`].
    pub name: String,
    pub watched: Watched,
    /// Added to the node's priority while it fails, -254 to -1. None: the node resigns.
    pub weight: Option<i16>,
    /// Successes in a row after which it is good again, at least 1.
    pub rise: u32,
    /// Failures in a row after which it fails, at least 1.
    pub fall: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Watched {
    /// It exists, is up and has a carrier.
    Interface(String),
    Script(Script),
    /// At least so many backends of the service, or of each, are not down.
    HealthyBackends {
        at_least: u32,
        service: Option<String>,
    },
}

/// A program whose exit status tells.
#[derive(Clone, Debug, PartialEq)]
pub struct Script {
    pub path: PathBuf,
    pub arguments: Vec<String>,
    /// From the start of one run to the start of the next.
    pub interval: Duration,
    /// At most `interval`.
    pub timeout: Duration,
    /// Whom it runs as.
    pub user: String,
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interface(name) => write!(f, "interface {name}"),
            Self::Script(script) => {
                write!(f, "script {}", script.path.display())?;
                for argument in &script.arguments {
                    write!(f, " {argument}")?;
                }
                let every = duration_text(script.interval);
                write!(f, " every {every} as {}", script.user)
            }
            Self::HealthyBackends { at_least, service: Some(name) } => {
                write!(f, "{at_least} healthy backends of service {name}")
            }
            Self::HealthyBackends { at_least, service: None } => {
                write!(f, "{at_least} healthy backends of each service")
            }
        }
    }
}
