//! Who tells of backends.

use serde::{Deserialize, Serialize};

/// How a service's backends are discovered. Counts are since the agent's start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Discovery {
    /// `dns` or `kubernetes`.
    pub source: String,
    /// What is asked for.
    pub about: String,
    /// When something was heard last that can be relied on; none where nothing ever was, and the file's backends are
    /// used.
    pub heard: Option<f64>,
    /// How long ago that was.
    pub age_seconds: Option<f64>,
    /// When the set of backends became what it is.
    pub changed: Option<f64>,
    /// Since when nothing is heard; none where all is well.
    pub failing_since: Option<f64>,
    /// Why.
    pub failure: Option<String>,
    /// What is wrong with the last answer, though there was one.
    pub flaw: Option<String>,
    pub answers: u64,
    pub failures: u64,
}

/// Who said that a backend is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackendSource {
    #[default]
    File,
    Dns,
    Kubernetes,
}
