//! What decides this node's role: the file and a person, or VRRP.

use std::cell::Cell;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::core::Agent;
use super::seats::Family;
use crate::config::{self, Config};
use crate::dataplane::Leases;
use crate::netlink::Network;
use crate::role::{Claim, HolderHandle, Placement, Role, RoleSender, StaticRole};
use crate::vrrp::identity::{Priority, RouterId, Version};
use crate::vrrp::link::Reach;
use crate::vrrp::machine::{Parameters, Rivals};
use crate::vrrp::moment::Moment;
use crate::vrrp::packet::{Authentication, Checksum};
use crate::vrrp::{Attract, Command, Router, Vrrp};

pub(super) enum Election {
    Static(StaticRole),
    /// Not begun: an interface or an address is missing.
    Waiting(Vec<Attractor>),
    Vrrp(Vrrp),
}

/// Carries out for one address family what VRRP decides.
///
/// The lease is written here, on VRRP's own thread: it is what keeps the VIP, so no task of the
/// agent's runtime stands between a sign of life and it. Address and announcement are the holder's.
pub(super) struct Attractor {
    pub(super) family: Family,
    pub(super) roles: RoleSender,
    pub(super) holder: HolderHandle,
    pub(super) leases: Leases,
    pub(super) vips: Vec<IpAddr>,
    pub(super) until_ns: Arc<AtomicU64>,
    pub(super) active: Cell<bool>,
}

impl Attract for Attractor {
    fn renew(&self, until: Moment) -> Result<(), String> {
        let until_ns = u64::try_from(until.since_origin().as_nanos()).unwrap_or(u64::MAX);
        self.until_ns.store(until_ns, Ordering::Release);
        if !self.active.get() || !self.leases.tables_written() {
            return Ok(());
        }
        let mut outcome = Ok(());
        for &vip in &self.vips {
            let renewed = self.leases.set(vip, Some(until_ns));
            outcome = outcome.and(
                renewed.map_err(|error| format!("the lease of {vip} was not renewed: {error}")),
            );
        }
        outcome
    }

    fn acquire(&self, reason: String) {
        self.active.set(true);
        self.roles.set(Role::Active, reason, Claim::Forced);
    }

    fn release(&self, reason: String) {
        self.active.set(false);
        self.roles.set(Role::Backup, reason, Claim::Forced);
    }

    fn announce(&self) {
        self.holder.announce();
    }
}

impl Agent {
    /// Starts VRRP once every virtual router has its interface and address.
    pub(super) fn begin_election(&mut self) {
        let Election::Waiting(attractors) = &mut self.election else { return };
        if attractors.is_empty() {
            // It could not be started, which its failure says.
            return;
        }
        let about = "vrrp".to_owned();
        let Some(settings) = &self.config.vrrp else { return };
        let ways: Result<Vec<Way>, String> = attractors
            .iter()
            .map(|attractor| {
                let placements = &self.placements;
                Way::find(
                    attractor.family,
                    &self.config,
                    settings,
                    &self.node,
                    &self.network,
                    placements,
                )
            })
            .collect();
        let ways = match ways {
            Ok(ways) => ways,
            Err(missing) => {
                self.failures.insert(about, missing);
                return;
            }
        };
        let attractors = std::mem::take(attractors);
        let routers = attractors
            .into_iter()
            .zip(ways)
            .map(|(attractor, way)| way.router(settings, &self.config, &self.node, attractor))
            .collect();
        match Vrrp::start(routers, &self.vrrp_events) {
            Ok(vrrp) => {
                self.failures.remove(&about);
                self.election = Election::Vrrp(vrrp);
                self.unfit = None;
                self.tell_fitness();
            }
            // The holders of these senders have ended: nothing attracts traffic, and the failure
            // stands in the status until a restart.
            Err(error) => {
                self.failures.insert(about, format!("vrrp does not start: {error}"));
            }
        }
    }

    /// A node that cannot serve must not be Active.
    pub(super) fn tell_fitness(&mut self) {
        let Election::Vrrp(vrrp) = &self.election else { return };
        let unfit = self.why_unfit();
        if unfit != self.unfit && vrrp.command(Command::Unfit(unfit.clone())) {
            self.unfit = unfit;
        }
    }

    fn why_unfit(&self) -> Option<String> {
        if self.dataplane.attached().is_empty() {
            return Some("no interface is attached".to_owned());
        }
        if let Some(failure) = self.failures.get("maps") {
            return Some(failure.clone());
        }
        self.placements.iter().find_map(|placement| {
            let name = &placement.interface.name;
            match self.network.link(placement.interface.index) {
                None => Some(format!("{name} is gone")),
                Some(link) if !link.up || !link.running => Some(format!("{name} is down")),
                Some(_) => None,
            }
        })
    }
}

/// Where a virtual router sends.
struct Way {
    interface: String,
    address: IpAddr,
    reach: Reach,
}

impl Way {
    fn find(
        family: Family,
        config: &Config,
        settings: &config::Vrrp,
        node: &str,
        network: &Network,
        placements: &[Placement],
    ) -> Result<Self, String> {
        let placement = placements
            .iter()
            .find(|placement| family.has(placement.vip))
            .ok_or("vrrp waits for an attached interface for the virtual addresses")?;
        let (ifindex, interface) = (placement.interface.index, placement.interface.name.clone());
        let of_node = |node: &config::Node| node.addresses.iter().copied().find(|&a| family.has(a));
        let own = config.nodes.iter().find(|n| n.name == node).and_then(of_node);
        let here = || network.addresses_of(ifindex).filter(|a| a.usable).map(|a| a.address);
        let link_local = |address: &IpAddr| match address {
            IpAddr::V4(_) => false,
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        let address = if settings.unicast || family == Family::V4 {
            own.filter(|own| here().any(|address| address == *own)).or_else(|| {
                here().find(|&a| family.has(a) && !config.virtual_addresses.contains(&a))
            })
        } else {
            // RFC 9568, 5.1.2.1: the source is the interface's link-local address.
            here().find(link_local)
        };
        let address = address.ok_or_else(|| {
            format!("vrrp waits for an address of its own on {interface} to send from")
        })?;
        let reach = if settings.unicast {
            let others = config.nodes.iter().filter(|n| n.name != node);
            Reach::Unicast(others.filter_map(of_node).collect())
        } else {
            Reach::Multicast
        };
        Ok(Self { interface, address, reach })
    }

    fn router(
        self,
        settings: &config::Vrrp,
        config: &Config,
        node: &str,
        attractor: Attractor,
    ) -> Router {
        let priority = config.nodes.iter().find(|n| n.name == node).map_or(100, |n| n.priority);
        let version = match settings.version {
            config::VrrpVersion::V2 => Version::V2,
            config::VrrpVersion::V3 => Version::V3,
        };
        let authentication = match &settings.auth_pass {
            Some(password) => Authentication::Password(password.bytes()),
            None => Authentication::None,
        };
        let parameters = Parameters {
            version,
            router_id: RouterId::new(settings.router_id).expect("the file's is 1 to 255"),
            priority: Priority(priority),
            interval: settings.advertisement_interval,
            preempt: settings.preempt,
            preempt_delay: settings.preempt_delay,
            address: self.address,
            addresses: attractor.vips.clone(),
            authentication,
            rivals: if settings.answer_rivals { Rivals::Answer } else { Rivals::Ignore },
            same_addresses: settings.check_addresses,
        };
        let checksum = match settings.checksum {
            config::VrrpChecksum::Plain => Checksum::Plain,
            config::VrrpChecksum::PseudoHeader => Checksum::PseudoHeader,
        };
        Router {
            parameters,
            interface: self.interface,
            reach: self.reach,
            checksum,
            members: config.nodes.iter().flat_map(|node| node.addresses.iter().copied()).collect(),
            attract: Box::new(attractor),
        }
    }
}
