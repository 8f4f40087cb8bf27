//! What persons have said of backends, and since when.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::Admin;

/// Something said of one backend of one service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Said {
    pub admin: Admin,
    /// Seconds since the Unix epoch.
    pub since: f64,
}

/// All that was said and still holds, by service and address. A backend that is not in it is enabled.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sayings {
    services: BTreeMap<String, BTreeMap<SocketAddr, Said>>,
}

impl Sayings {
    /// Reads what [`serde_json`] wrote of it, or says what is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let read: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let mut times = read.services.values().flat_map(BTreeMap::values).map(|said| said.since);
        match times.find(|since| !since.is_finite() || *since < 0.0) {
            Some(since) => Err(format!("{since} is no point in time")),
            None => Ok(read),
        }
    }

    pub fn of(&self, service: &str, backend: SocketAddr) -> Option<Said> {
        self.services.get(service)?.get(&backend).copied()
    }

    /// Whether anything was said of any backend of this service.
    pub fn has(&self, service: &str) -> bool {
        self.services.contains_key(service)
    }

    /// That a backend is enabled needs not be remembered.
    pub fn say(&mut self, service: &str, backend: SocketAddr, said: Said) {
        if said.admin == Admin::Enabled {
            if let Some(backends) = self.services.get_mut(service) {
                backends.remove(&backend);
            }
        } else {
            self.services.entry(service.to_owned()).or_default().insert(backend, said);
        }
        self.services.retain(|_, backends| !backends.is_empty());
    }

    /// Whether this holds for every backend that something was said of.
    pub fn all(&self, mut holds: impl FnMut(&str, SocketAddr) -> bool) -> bool {
        self.services
            .iter()
            .all(|(service, backends)| backends.keys().all(|&backend| holds(service, backend)))
    }

    /// Forgets what is said of backends that are no more. Returns of how many.
    pub fn keep_only(&mut self, is_there: impl Fn(&str, SocketAddr) -> bool) -> usize {
        let mut gone = 0;
        for (service, backends) in &mut self.services {
            let before = backends.len();
            backends.retain(|&backend, _| is_there(service, backend));
            gone += before - backends.len();
        }
        self.services.retain(|_, backends| !backends.is_empty());
        gone
    }
}
