//! The EndpointSlices of one service (discovery.k8s.io/v1), as a list and a watch tell of them. Pure.
//!
//! ```text
//! list ───────────────────────────────> answer     410, or an ERROR event with it: everything is listed anew
//! watch: ADDED, MODIFIED, DELETED ────> answer     BOOKMARK: the version alone
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;

use super::Wanted;
use crate::config::Protocol;
use crate::discovery::Answer;

/// A service of a hundred thousand endpoints has that many.
const SLICES_MAX: usize = 1024;

/// HTTP's Gone: the version that a watch is to begin at is no longer remembered.
pub(in crate::discovery) const GONE: u16 = 410;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct List {
    metadata: ListMeta,
    #[serde(default)]
    items: Option<Vec<Slice>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMeta {
    resource_version: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Meta {
    name: String,
    resource_version: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Slice {
    metadata: Meta,
    address_type: String,
    #[serde(default)]
    endpoints: Option<Vec<Endpoint>>,
    #[serde(default)]
    ports: Option<Vec<Port>>,
}

#[derive(Debug, Deserialize)]
struct Endpoint {
    #[serde(default)]
    addresses: Vec<String>,
    #[serde(default)]
    conditions: Conditions,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct Conditions {
    /// Absent is true.
    ready: Option<bool>,
    /// Absent is what `ready` is.
    serving: Option<bool>,
    /// Absent is false.
    terminating: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct Port {
    name: Option<String>,
    port: Option<u16>,
    protocol: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    object: serde_json::Value,
}

/// What a server says where it cannot do what it was asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    code: u16,
    message: String,
    reason: String,
}

/// What a line of a watch brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::discovery) enum News {
    /// Slices are others.
    Changed,
    /// The same holds at a later version.
    Confirmed,
}

/// Why a list or a line is of no use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::discovery) enum Lost {
    /// What was heard before does not lead to what comes.
    Expired,
    Said(String),
}

/// What is known.
#[derive(Debug)]
pub(in crate::discovery) struct Slices {
    version: String,
    by_name: BTreeMap<String, Slice>,
}

impl Slices {
    /// From the answer to a list.
    pub(in crate::discovery) fn list(bytes: &[u8]) -> Result<Self, Lost> {
        let list: List = parse(bytes)?;
        let mut slices = Self { version: list.metadata.resource_version, by_name: BTreeMap::new() };
        for slice in list.items.unwrap_or_default() {
            slices.insert(slice)?;
        }
        Ok(slices)
    }

    /// Where a watch is to go on.
    pub(in crate::discovery) fn version(&self) -> &str {
        &self.version
    }

    /// Takes a line of a watch.
    pub(in crate::discovery) fn apply(&mut self, line: &[u8]) -> Result<News, Lost> {
        let Event { kind, object } = parse(line)?;
        match kind.as_str() {
            "ADDED" | "MODIFIED" => {
                let slice: Slice = of_event(object)?;
                self.version.clone_from(&slice.metadata.resource_version);
                self.insert(slice)?;
                Ok(News::Changed)
            }
            "DELETED" => {
                let slice: Slice = of_event(object)?;
                self.version = slice.metadata.resource_version;
                self.by_name.remove(&slice.metadata.name);
                Ok(News::Changed)
            }
            "BOOKMARK" => {
                #[derive(Deserialize)]
                struct Bookmark {
                    metadata: Meta,
                }
                let bookmark: Bookmark = of_event(object)?;
                self.version = bookmark.metadata.resource_version;
                Ok(News::Confirmed)
            }
            "ERROR" => Err(refusal(object)),
            // Of a later API: what it says is not understood, and what it means may be missed.
            _ => Err(Lost::Expired),
        }
    }

    fn insert(&mut self, slice: Slice) -> Result<(), Lost> {
        let name = slice.metadata.name.clone();
        if self.by_name.len() >= SLICES_MAX && !self.by_name.contains_key(&name) {
            return Err(Lost::Said(format!("tells of more than {SLICES_MAX} EndpointSlices")));
        }
        self.by_name.insert(name, slice);
        Ok(())
    }

    /// The service's backends. Where none is ready those that still serve are wanted, as Kubernetes' own proxies do.
    ///
    /// # Errors
    /// Where a slice does not say which port is meant.
    pub(in crate::discovery) fn answer(
        &self,
        port_name: Option<&str>,
        wanted: Wanted,
    ) -> Result<Answer, String> {
        let family = if wanted.v4 { "IPv4" } else { "IPv6" };
        let (mut ready, mut ending) = (BTreeSet::new(), BTreeSet::new());
        for slice in self.by_name.values().filter(|slice| slice.address_type == family) {
            let Some(port) = slice.port(port_name, wanted.protocol)? else { continue };
            for endpoint in slice.endpoints.iter().flatten() {
                let addresses = endpoint.addresses.iter().filter_map(|text| text.parse().ok());
                let addresses = addresses.map(|ip: IpAddr| SocketAddr::new(ip, port));
                match endpoint.conditions.fate() {
                    Fate::Wanted => ready.extend(addresses),
                    Fate::Leaving => ending.extend(addresses),
                    Fate::Neither => {}
                }
            }
        }
        // One may be in two slices while it moves from one to the other.
        ending.retain(|address| !ready.contains(address));
        Ok(match ready.is_empty() {
            true => Answer { wanted: ending, leaving: BTreeSet::new() },
            false => Answer { wanted: ready, leaving: ending },
        })
    }
}

enum Fate {
    Wanted,
    Leaving,
    Neither,
}

impl Conditions {
    fn fate(self) -> Fate {
        let ready = self.ready.unwrap_or(true);
        let serving = self.serving.unwrap_or(ready);
        match (self.terminating.unwrap_or(false), ready, serving) {
            (false, true, _) => Fate::Wanted,
            (true, _, true) => Fate::Leaving,
            _ => Fate::Neither,
        }
    }
}

impl Slice {
    /// The port that is meant; None where this slice has none of that kind.
    fn port(&self, name: Option<&str>, protocol: Protocol) -> Result<Option<u16>, String> {
        let protocol = match protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
        };
        let is_meant = |port: &&Port| {
            port.protocol.as_deref().unwrap_or("TCP") == protocol
                && name.is_none_or(|name| port.name.as_deref().unwrap_or_default() == name)
        };
        let ports: Vec<&Port> = self.ports.iter().flatten().filter(is_meant).collect();
        match ports[..] {
            [] => Ok(None),
            [one] => Ok(one.port),
            _ => {
                let names: Vec<&str> =
                    ports.iter().map(|port| port.name.as_deref().unwrap_or("\"\"")).collect();
                Err(format!(
                    "EndpointSlice {} has several ports over {protocol}, {}: write `port_name` in \
                     [service.discover.kubernetes]",
                    self.metadata.name,
                    names.join(", ")
                ))
            }
        }
    }
}

fn parse<'b, T: Deserialize<'b>>(bytes: &'b [u8]) -> Result<T, Lost> {
    serde_json::from_slice(bytes)
        .map_err(|error| Lost::Said(format!("says what is no EndpointSlice: {error}")))
}

fn of_event<T: for<'de> Deserialize<'de>>(object: serde_json::Value) -> Result<T, Lost> {
    serde_json::from_value(object)
        .map_err(|error| Lost::Said(format!("tells of what is no EndpointSlice: {error}")))
}

fn refusal(object: serde_json::Value) -> Lost {
    let status: Status = serde_json::from_value(object).unwrap_or_default();
    match status.code {
        GONE => Lost::Expired,
        _ => Lost::Said(format!("ends the watch: {} {}", status.reason, status.message)),
    }
}

/// The words in the body of an answer that is no success.
pub(in crate::discovery) fn message(body: &[u8]) -> String {
    let status: Status = serde_json::from_slice(body).unwrap_or_default();
    status.message
}
