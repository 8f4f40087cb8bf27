//! The connections of clients that the programs noted, for who tells them of a backend's end.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use lb_common::flow::{Endpoint, Flow, FlowKey};
use lb_common::host::OriginKey;
use lb_common::layout::map;
use lb_common::nat::{FROM_BACKEND, FROM_CLIENT, NatEntry};
use lb_common::service::ServiceKey;

use super::nat::partner;
use super::{DataPlaneError, batch};

/// Handles of its own on the maps, for a thread that may block.
#[derive(Debug)]
pub struct Flows {
    pub(super) noted: OwnedFd,
    pub(super) translated: OwnedFd,
    pub(super) origins: OwnedFd,
}

/// Connections of a service.
#[derive(Debug, Default)]
pub struct Noted {
    /// Which went to one of the backends that were asked for, by index.
    pub of: Vec<(u32, FlowKey, Flow)>,
    /// Whose backend may be any.
    pub others: Vec<(FlowKey, Flow)>,
}

impl Flows {
    /// Another handle on the same maps.
    ///
    /// # Errors
    /// Where this process has too many descriptors.
    pub fn try_clone(&self) -> std::io::Result<Self> {
        Ok(Self {
            noted: self.noted.try_clone()?,
            translated: self.translated.try_clone()?,
            origins: self.origins.try_clone()?,
        })
    }

    /// Connections to these services, told apart by whether they went to one of their backends, given by index.
    /// Blocks for about half a microsecond for each that is noted.
    ///
    /// # Errors
    /// Where the kernel refuses to read the map.
    pub fn to(
        &self,
        services: &HashMap<ServiceKey, HashSet<u32>>,
    ) -> Result<Noted, DataPlaneError> {
        let mut noted = Noted::default();
        batch::for_each(&self.noted, Flow::default(), |key: &FlowKey, flow| {
            match services.get(&service(key)) {
                Some(backends) if backends.contains(&flow.backend) => {
                    noted.of.push((flow.backend, *key, *flow));
                }
                Some(_) => noted.others.push((*key, *flow)),
                None => {}
            }
            true
        })
        .map_err(|e| DataPlaneError::io("reading", map::FLOWS, e))?;
        Ok(noted)
    }

    /// Hands every connection that is noted to `each`, until that wants no more. None is kept.
    ///
    /// # Errors
    /// Where the kernel refuses to read the map.
    pub fn for_each_noted(
        &self,
        each: impl FnMut(&FlowKey, &Flow) -> bool,
    ) -> Result<(), DataPlaneError> {
        batch::for_each(&self.noted, Flow::default(), each)
            .map_err(|e| DataPlaneError::io("reading", map::FLOWS, e))
    }

    /// The same for the client's entry of each translated flow.
    ///
    /// # Errors
    /// Where the kernel refuses to read the map.
    pub fn for_each_translated(
        &self,
        mut each: impl FnMut(&FlowKey, &NatEntry) -> bool,
    ) -> Result<(), DataPlaneError> {
        batch::for_each(&self.translated, NatEntry::EMPTY, |key: &FlowKey, entry| {
            entry.direction != FROM_CLIENT || each(key, entry)
        })
        .map_err(|e| DataPlaneError::io("reading", map::NAT_FLOWS, e))
    }

    /// Forgets the translations to these backends, so that what comes of their connections is owned by nobody.
    ///
    /// # Errors
    /// Where the kernel refuses to read the map or to remove from it.
    pub fn forget_translations(&self, backends: &HashSet<u32>) -> Result<(), DataPlaneError> {
        let mut pairs = Vec::new();
        batch::for_each(&self.translated, NatEntry::EMPTY, |key: &FlowKey, entry| {
            if backends.contains(&entry.backend) {
                pairs.push((*key, partner(key, entry)));
            }
            true
        })
        .map_err(|e| DataPlaneError::io("reading", map::NAT_FLOWS, e))?;
        for key in pairs.iter().flat_map(|(one, other)| [one, other]) {
            // Each of the two was found, or neither.
            batch::remove(&self.translated, key)
                .map_err(|e| DataPlaneError::io("removing from", map::NAT_FLOWS, e))?;
        }
        Ok(())
    }

    /// How many translated flows lead to these backends, by index, whatever has become of them. Blocks for about
    /// half a microsecond for each that there is.
    ///
    /// # Errors
    /// Where the kernel refuses to read the map.
    pub fn translated_to(&self, backends: &HashSet<u32>) -> Result<u64, DataPlaneError> {
        let mut flows = 0;
        batch::for_each(&self.translated, NatEntry::EMPTY, |_: &FlowKey, entry| {
            flows +=
                u64::from(entry.direction == FROM_BACKEND && backends.contains(&entry.backend));
            true
        })
        .map_err(|e| DataPlaneError::io("reading", map::NAT_FLOWS, e))?;
        Ok(flows)
    }

    /// The cookies of this node's own sockets that the hooks sent to a backend.
    ///
    /// # Errors
    /// Where the kernel refuses to read the map.
    pub fn own_sockets(
        &self,
        backends: &HashSet<SocketAddr>,
    ) -> Result<HashSet<u64>, DataPlaneError> {
        const NOBODY: Endpoint =
            Endpoint { address: lb_common::Address::UNSPECIFIED, port_be: 0, padding: [0; 2] };
        let mut cookies = HashSet::new();
        batch::for_each(&self.origins, NOBODY, |key: &OriginKey, _| {
            let backend = SocketAddr::new(key.address.into(), u16::from_be(key.port_be));
            if backends.contains(&backend) {
                cookies.insert(key.cookie);
            }
            true
        })
        .map_err(|e| DataPlaneError::io("reading", map::HOST_ORIGINS, e))?;
        Ok(cookies)
    }
}

/// The service that a client's tuple names.
fn service(key: &FlowKey) -> ServiceKey {
    ServiceKey {
        address: key.destination,
        port_be: key.destination_port_be,
        protocol: key.protocol,
        padding: 0,
    }
}
