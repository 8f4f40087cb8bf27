//! What a hook is told: one notice, as JSON, as environment variables and as arguments. Pure.
//!
//! A promise to the users' scripts and servers, described in docs/api.md: within a format fields are
//! added, never renamed or removed.

use std::fmt;
use std::net::IpAddr;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::timestamp::rfc3339;

/// [`Notice::format`]: raised where a field is renamed or removed.
const FORMAT: u32 = 1;

/// No run counts so far: a larger number on disk is a spoilt one.
const SEQUENCE_MAX: u64 = u64::MAX / 2;

/// Something that hooks are told of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    pub at: SystemTime,
    pub router: Router,
    pub what: What,
}

/// An event with its place in the order of a hook's.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Notice {
    pub format: u32,
    /// The run of the agent that it is from: with `sequence` it names the notice for ever.
    pub run: String,
    /// Counts up by one for each hook, also across runs.
    pub sequence: u64,
    /// When it happened, RFC 3339.
    pub time: String,
    pub node: String,
    #[serde(flatten)]
    pub what: What,
    #[serde(flatten)]
    pub router: Router,
    /// Older notices that are not told for themselves any more, since too many waited.
    pub folded: u64,
}

/// Where it happened. Without VRRP there are only virtual addresses.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Router {
    pub router_id: Option<u8>,
    pub version: Option<u8>,
    pub interface: Option<String>,
    pub family: Option<Family>,
    pub priority: Option<u8>,
    pub virtual_addresses: Vec<IpAddr>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    Ipv4,
    Ipv6,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum What {
    /// The router changed its state.
    Role { from: State, to: State, reason: String },
    /// Something that a person should look at.
    Trouble {
        /// Its kind, by which it is counted too.
        trouble: String,
        /// The rival's.
        address: Option<IpAddr>,
        mac: Option<String>,
        sentence: String,
    },
}

/// RFC 9568, 6.4.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Takes no part: not yet, no more, or its interface is of no use.
    Initialize,
    Backup,
    Active,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Initialize => "initialize",
            Self::Backup => "backup",
            Self::Active => "active",
        })
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        })
    }
}

impl Router {
    /// As keepalived's scripts get an instance's name: `51-ipv4`.
    pub(super) fn name(&self) -> String {
        match (self.router_id, self.family) {
            (Some(router_id), Some(family)) => format!("{router_id}-{family}"),
            (Some(router_id), None) => router_id.to_string(),
            (None, _) => "static".to_owned(),
        }
    }

    /// The same for the same virtual router, whatever its priority and interface were.
    pub(super) const fn key(&self) -> (Option<u8>, Option<Family>) {
        (self.router_id, self.family)
    }
}

impl Notice {
    pub(super) fn new(event: Event, node: &str, run: &str, sequence: u64) -> Self {
        Self {
            format: FORMAT,
            run: run.to_owned(),
            sequence,
            time: rfc3339(event.at),
            node: node.to_owned(),
            what: event.what,
            router: event.router,
            folded: 0,
        }
    }

    /// What an earlier run wrote, or what is wrong with it. One that no hook could be given, however
    /// often it is tried, would keep all later ones from it.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let notice: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if notice.format != FORMAT {
            return Err(format!("its format is {}, not {FORMAT}", notice.format));
        }
        if !(1..=SEQUENCE_MAX).contains(&notice.sequence) {
            return Err(format!("its number is {}", notice.sequence));
        }
        if notice.run.is_empty() || !notice.run.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(format!("its run is {:?}", notice.run));
        }
        let variables = notice.variables();
        match variables.iter().find(|(_, value)| value.contains('\0')) {
            Some((name, _)) => Err(format!("{name} has a NUL byte, which no program can be given")),
            None => Ok(notice),
        }
    }

    /// The same for every attempt to deliver it, and for no other notice.
    pub(super) fn key(&self) -> String {
        format!("{}-{}", self.run, self.sequence)
    }

    /// One line.
    pub(super) fn json(&self) -> Vec<u8> {
        // Keys are strings and there are no foreign serializers: nothing can fail.
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }

    /// As keepalived calls a notify script: `INSTANCE NAME STATE PRIORITY`.
    pub(super) fn arguments(&self) -> Vec<String> {
        let (what, word) = match &self.what {
            What::Role { to, .. } => ("INSTANCE", to.to_string()),
            What::Trouble { trouble, .. } => ("TROUBLE", trouble.clone()),
        };
        let priority = self.router.priority.unwrap_or(0);
        vec![what.to_owned(), self.router.name(), word, priority.to_string()]
    }

    /// Each is there for each notice, empty where it does not apply, so that `set -u` is possible.
    pub(super) fn variables(&self) -> Vec<(&'static str, String)> {
        let router = &self.router;
        let vips: Vec<String> = router.virtual_addresses.iter().map(IpAddr::to_string).collect();
        let mut variables = vec![
            ("LB_FORMAT", self.format.to_string()),
            ("LB_RUN", self.run.clone()),
            ("LB_SEQUENCE", self.sequence.to_string()),
            ("LB_TIME", self.time.clone()),
            ("LB_NODE", self.node.clone()),
            ("LB_ROUTER_ID", text(router.router_id)),
            ("LB_VERSION", text(router.version)),
            ("LB_INTERFACE", text(router.interface.as_ref())),
            ("LB_FAMILY", text(router.family)),
            ("LB_PRIORITY", text(router.priority)),
            ("LB_VIRTUAL_ADDRESSES", vips.join(" ")),
            ("LB_FOLDED", self.folded.to_string()),
        ];
        variables.extend(self.what.variables());
        variables
    }
}

impl What {
    pub(super) const fn is_role(&self) -> bool {
        matches!(self, Self::Role { .. })
    }

    fn variables(&self) -> [(&'static str, String); 8] {
        let none = String::new;
        let (kind, role, trouble) = match self {
            Self::Role { from, to, reason } => (
                "role",
                [from.to_string(), to.to_string(), reason.clone()],
                [(); 4].map(|()| none()),
            ),
            Self::Trouble { trouble, address, mac, sentence } => (
                "trouble",
                [(); 3].map(|()| none()),
                [trouble.clone(), text(*address), text(mac.as_ref()), sentence.clone()],
            ),
        };
        let ([from, to, reason], [trouble, address, mac, sentence]) = (role, trouble);
        [
            ("LB_KIND", kind.to_owned()),
            ("LB_FROM", from),
            ("LB_TO", to),
            ("LB_REASON", reason),
            ("LB_TROUBLE", trouble),
            ("LB_ADDRESS", address),
            ("LB_MAC", mac),
            ("LB_SENTENCE", sentence),
        ]
    }
}

/// How far a hook was, as an earlier run wrote it, or what is wrong with that.
pub(super) fn read_sequence(bytes: &[u8]) -> Result<u64, String> {
    let text = str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let sequence = text.trim().parse::<u64>().map_err(|error| error.to_string())?;
    if sequence > SEQUENCE_MAX {
        return Err(format!("{sequence} is further than any run comes"));
    }
    Ok(sequence)
}

fn text(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}
