//! What `GET /v1/events` says.

use serde::{Deserialize, Serialize};

/// The query of `GET /v1/events`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventsRequest {
    /// Those after the one of this number. Without it all that are kept.
    #[serde(default)]
    pub since: Option<u64>,
    /// The run that this number is of.
    #[serde(default)]
    pub run: Option<String>,
    /// Also those that come, until the agent ends.
    #[serde(default)]
    pub follow: bool,
}

/// A line of the answer to `GET /v1/events`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventLine {
    /// The first one.
    Begin(EventsBegin),
    Event(Event),
    /// Here some are missing.
    Gap(EventGap),
}

/// What events there are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsBegin {
    /// Names the run of the agent whose numbers these are. An upgrade begins no other run, a restart does.
    pub run: String,
    /// The number of the oldest one that is kept.
    pub oldest: u64,
    /// The number of the newest one; less than `oldest` where there is none.
    pub newest: u64,
}

/// Something that happened: a line of the agent's log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// From 1 up by 1. Only where an agent followed another, some numbers are left out.
    pub sequence: u64,
    pub at: f64,
    pub severity: Severity,
    /// A name that stays the same, such as `backend-down`; none of lines that are for people alone.
    pub kind: Option<String>,
    pub sentence: String,
    /// What it is about: names and numbers.
    pub fields: serde_json::Map<String, serde_json::Value>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    Information,
    Warning,
    Error,
}

/// Events that happened and are not among these lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventGap {
    /// How many; none where nobody knows.
    pub missed: Option<u64>,
    /// Why, and where they can be read.
    pub reason: String,
}
