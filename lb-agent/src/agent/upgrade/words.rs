//! What two agents say to one another, as lines of JSON. Fields may be added; what one does not know it
//! passes over. Where a word changes its meaning, [`PROTOCOL`] is raised. Pure.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::control::api::Event;
use crate::role::Role;
use crate::vrrp::Course;

/// Of the words' meaning.
pub(super) const PROTOCOL: u32 = 1;

/// What the one that is to follow says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Report {
    Hello(Hello),
    /// It is done with something, in a person's words.
    Step(String),
    Prepared,
    /// The data path is its own.
    Ready,
    Serving,
    /// It cannot, and ends.
    Refused(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) protocol: u32,
    pub(super) version: String,
    pub(super) layout: u32,
    pub(super) tables: u32,
}

/// What the one that runs says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Order {
    /// Comes with the descriptors of the listeners.
    Prepare(Offer),
    TakeOver(Known),
    GoOn(Vec<Course>),
}

/// What there is to be taken over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Offer {
    pub(super) layout: u32,
    pub(super) node: String,
    /// The first descriptor listens here.
    pub(super) socket: PathBuf,
    /// The second one here.
    pub(super) metrics: Option<SocketAddr>,
    /// The virtual routers.
    pub(super) routers: Vec<Identity>,
}

/// A virtual router, as far as another agent must have the same one to go on with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) router_id: u8,
    /// 2 or 3.
    pub(super) version: u8,
    pub(super) interval_ms: u64,
    /// The addresses, of one family.
    pub(super) vips: Vec<IpAddr>,
}

/// What the one that runs has found out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Known {
    /// Without VRRP: the role, and why.
    #[serde(default)]
    pub(super) role: Option<(StaticRole, String)>,
    #[serde(default)]
    pub(super) backends: Vec<KnownBackend>,
    #[serde(default)]
    pub(super) tracks: Vec<KnownTrack>,
    /// What happened, and the name of the run.
    #[serde(default)]
    pub(super) events: Option<(String, Vec<Event>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum StaticRole {
    Active,
    Backup,
}

/// A backend that was checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KnownBackend {
    pub(super) address: SocketAddr,
    pub(super) healthy: bool,
    pub(super) reason: String,
}

/// A track that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KnownTrack {
    pub(super) name: String,
    pub(super) good: bool,
    pub(super) reason: String,
}

impl From<Role> for StaticRole {
    fn from(role: Role) -> Self {
        match role {
            Role::Active => Self::Active,
            Role::Backup => Self::Backup,
        }
    }
}

impl From<StaticRole> for Role {
    fn from(role: StaticRole) -> Self {
        match role {
            StaticRole::Active => Self::Active,
            StaticRole::Backup => Self::Backup,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Another version wrote it: the words are a promise.
    #[test]
    fn the_words_of_the_first_version_are_understood_with_what_was_added_since() {
        let hello =
            r#"{"hello":{"protocol":1,"version":"9.9.9","layout":7,"tables":2,"more":true}}"#;
        let Ok(Report::Hello(hello)) = serde_json::from_str(hello) else { panic!("no hello") };
        assert_eq!((hello.version.as_str(), hello.layout), ("9.9.9", 7));
        let known = r#"{"take_over":{"role":["active","by hand"],"more":[]}}"#;
        let Ok(Order::TakeOver(known)) = serde_json::from_str(known) else { panic!("no order") };
        assert_eq!(known.role, Some((StaticRole::Active, "by hand".to_owned())));
        assert_eq!((known.backends.len(), known.tracks.len(), known.events), (0, 0, None));
        let course = r#"{"go_on":[{"router_id":51,"address":"192.0.2.1","interface":"ens33","progress":
            {"state":"active","deadline":{"secs":9,"nanos":5},"active_interval":{"secs":1,"nanos":0},
            "holds":true,"active_resigned":false,"outranking_since":null},"until":{"secs":11,"nanos":0},
            "held":false,"since":{"secs_since_epoch":1,"nanos_since_epoch":0},"transitions":2}]}"#;
        let Ok(Order::GoOn(courses)) = serde_json::from_str(course) else { panic!("no course") };
        assert_eq!(courses[0].progress.state, crate::vrrp::machine::State::Active);
    }
}
