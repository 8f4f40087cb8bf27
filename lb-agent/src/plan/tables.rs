//! The tables of a configuration: built once, and once for all services with the same backends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use lb_common::bucket::{Bucket, NONE};
use lb_common::hash::service_seed;
use lb_common::service::ServiceKey;

use super::key;
use crate::config::{self, Config};
use crate::table::{self, BuildError, Likeness, Member, Outline, Slots, SlotsError};

/// A table that the maps are to hold, for one service or for several.
///
/// Its buckets are let go once the maps hold them, and built anew where they are needed again: a
/// table of a thousand backends takes 4 MiB.
#[derive(Debug)]
pub struct SharedTable {
    /// None where the buckets were given, and cannot be built.
    outline: Option<(Outline, Likeness)>,
    slots: u32,
    /// In canonical order.
    shares: Vec<f64>,
    buckets: Mutex<Option<Arc<[Bucket]>>>,
}

impl SharedTable {
    fn new(outline: Outline) -> Self {
        let buckets: Arc<[Bucket]> = outline.buckets().into();
        let shares = table::shares(outline.members().len(), &buckets);
        let slots = outline.slots().number();
        let likeness = outline.likeness();
        let outline = Some((outline, likeness));
        Self { outline, slots, shares, buckets: Mutex::new(Some(buckets)) }
    }

    /// A table of these buckets, for tests and measurements.
    pub fn of_buckets(buckets: Arc<[Bucket]>) -> Self {
        let slots = u32::try_from(buckets.len()).unwrap_or(u32::MAX);
        let members = buckets.iter().flat_map(|b| b.ranks).filter(|rank| *rank != NONE).max();
        let shares = table::shares(members.map_or(0, |most| usize::from(most) + 1), &buckets);
        Self { outline: None, slots, shares, buckets: Mutex::new(Some(buckets)) }
    }

    pub const fn slots(&self) -> u32 {
        self.slots
    }

    /// The fraction of the buckets in which each backend comes first, in canonical order.
    pub fn shares(&self) -> &[f64] {
        &self.shares
    }

    /// One for each slot.
    pub fn buckets(&self) -> Arc<[Bucket]> {
        // What is in it is whole at any time: a panic elsewhere does not spoil it.
        let mut held = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let outline = self.outline.as_ref().map(|(outline, _)| outline);
        let build = || outline.map_or_else(Vec::new, Outline::buckets).into();
        Arc::clone(held.get_or_insert_with(build))
    }

    /// Lets the buckets go, where they can be built anew.
    pub fn release(&self) {
        if self.outline.is_some() {
            *self.buckets.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    /// Whether both have the same buckets.
    pub fn is_like(&self, other: &Self) -> bool {
        if std::ptr::eq(self, other) {
            return true;
        }
        match (&self.outline, &other.outline) {
            (Some((_, one)), Some((_, other))) => one == other,
            (None, None) => self.buckets() == other.buckets(),
            _ => false,
        }
    }
}

/// The tables of a configuration, by service and address.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    services: HashMap<ServiceKey, Built>,
    different: usize,
}

/// What of a service's table is its own.
#[derive(Clone, Debug)]
pub(super) struct Built {
    pub(super) seed: u64,
    pub(super) table: Arc<SharedTable>,
    /// Where in the configuration each backend of the canonical order stands.
    pub(super) order: Arc<[u16]>,
}

/// A service whose table cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum TablesError {
    #[error("service {service}: {source}")]
    Build { service: String, source: BuildError },
    #[error("service {service}: {source}")]
    Slots { service: String, source: SlotsError },
}

impl Tables {
    /// Builds the table of each service, and says where it belongs at each of its addresses.
    ///
    /// # Errors
    /// Where a service's backends do not fit a table.
    pub fn build(config: &Config) -> Result<Self, TablesError> {
        Self::build_after(config, &Self::default())
    }

    /// As [`build`](Self::build); what there was before is not built again.
    ///
    /// # Errors
    /// As there.
    pub fn build_after(config: &Config, former: &Self) -> Result<Self, TablesError> {
        let mut services = HashMap::new();
        let former: HashMap<&Likeness, &Arc<SharedTable>> = former
            .services
            .values()
            .filter_map(|built| Some((&built.table.outline.as_ref()?.1, &built.table)))
            .collect();
        let mut shared: HashMap<Likeness, Arc<SharedTable>> = HashMap::new();
        for service in &config.services {
            let outline = outline(service)?;
            let order = order(service, &outline);
            let likeness = outline.likeness();
            let known = former.get(&likeness).copied().cloned();
            let table = shared
                .entry(likeness)
                .or_insert_with(|| known.unwrap_or_else(|| Arc::new(SharedTable::new(outline))));
            for &address in &service.addresses {
                let key = key(address, service);
                let seed = service_seed(&key.address, key.port_be, key.protocol);
                let (table, order) = (Arc::clone(table), Arc::clone(&order));
                services.insert(key, Built { seed, table, order });
            }
        }
        Ok(Self { services, different: shared.len() })
    }

    pub(super) fn of(&self, key: &ServiceKey) -> Option<&Built> {
        self.services.get(key)
    }

    /// How many different tables there are.
    pub const fn different(&self) -> usize {
        self.different
    }
}

fn outline(service: &config::Service) -> Result<Outline, TablesError> {
    let name = || service.name.clone();
    let members: Vec<Member> = service.backends.iter().map(member).collect();
    let slots = match service.table_size {
        Some(size) => {
            Slots::new(size).map_err(|source| TablesError::Slots { service: name(), source })?
        }
        None => {
            let weights: Vec<u16> = members.iter().map(|member| member.weight).collect();
            Slots::for_weights(&weights)
        }
    };
    Outline::new(&members, slots).map_err(|source| TablesError::Build { service: name(), source })
}

/// A backup ranks as one without a weight, behind all that have some.
fn member(backend: &config::Backend) -> Member {
    Member::new(backend.address, if backend.backup { 0 } else { backend.weight })
}

/// For each member of the outline its place among the service's backends.
fn order(service: &config::Service, outline: &Outline) -> Arc<[u16]> {
    let places: HashMap<Member, u16> = service.backends.iter().map(member).zip(0..).collect();
    // The outline is of these very members, and of fewer than a u16 can count.
    outline.members().iter().filter_map(|member| places.get(member).copied()).collect()
}
