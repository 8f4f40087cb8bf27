//! What decides this node's role: the file and a person, or VRRP.

mod change;
mod way;

use std::cell::Cell;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lb_common::virtual_mac::lease_key;
use tracing::{info, warn};

pub(super) use self::change::Moved;
use self::way::{Surroundings, Way};
use super::core::Agent;
use super::seats::Seats;
use super::tracking::Occasion;
use super::virtual_links::VirtualLink;
use crate::config;
use crate::control::server::Refusal;
use crate::dataplane::{Leases, monotonic_ns};
use crate::role::{Claim, HolderHandle, Role, RoleSender, StaticRole};
use crate::vrrp::machine::Reason;
use crate::vrrp::moment::Moment;
use crate::vrrp::{Attract, Command, Course, Router, Settings, Target, Vrrp};

/// After a VIP was found with another machine, the link is asked again this much later.
const ASK_AGAIN: Duration = Duration::from_secs(10);

pub(super) enum Election {
    Static(StaticRole),
    /// Not begun: an interface or an address is missing.
    Waiting(Vec<Attractor>),
    Vrrp(Elected),
}

/// VRRP, and what it was told about each of its routers.
pub(super) struct Elected {
    pub(super) vrrp: Vrrp,
    routers: Vec<Standing>,
    /// By how much this node's priority is lowered, as VRRP was told.
    weight: i32,
}

/// A router of [`Elected`], at the same place as there.
struct Standing {
    /// As VRRP was told.
    settings: Settings,
    asks: Arc<AtomicBool>,
    /// Why this node must not be Active in it, as VRRP was told.
    unfit: Option<String>,
    /// Why it could not hold the addresses when it was to, and until when it is not tried again.
    refused: Option<(String, Instant)>,
}

/// Each virtual router in each family that it has addresses of, with a name for people: a virtual
/// router of VRRP has one family.
pub(super) fn by_family(
    settings: &config::Vrrp,
) -> impl Iterator<Item = (String, &config::VirtualRouter, Vec<IpAddr>)> {
    settings.routers.iter().flat_map(|router| {
        [("ipv4", IpAddr::is_ipv4 as fn(&IpAddr) -> bool), ("ipv6", IpAddr::is_ipv6)]
            .into_iter()
            .filter_map(move |(family, has)| {
                let vips: Vec<IpAddr> =
                    router.virtual_addresses.iter().copied().filter(has).collect();
                let name = format!("router {} ({family})", router.router_id);
                (!vips.is_empty()).then_some((name, router, vips))
            })
    })
}

/// Carries out for one virtual router what VRRP decides.
///
/// The lease is written here, on VRRP's own thread: it is what keeps the VIP, so no task of the
/// agent's runtime stands between a sign of life and it. Address and announcement are the holder's.
pub(super) struct Attractor {
    pub(super) router: config::VirtualRouter,
    /// The interface with its virtual MAC.
    pub(super) link: Option<VirtualLink>,
    pub(super) roles: RoleSender,
    pub(super) holder: HolderHandle,
    pub(super) leases: Leases,
    pub(super) vips: Vec<IpAddr>,
    pub(super) until_ns: Arc<AtomicU64>,
    pub(super) active: Cell<bool>,
    /// Whether the link is asked before a claim.
    pub(super) asks: Arc<AtomicBool>,
    /// Where the agent before was with it.
    pub(super) course: Option<Course>,
}

impl Attractor {
    /// Goes on where the agent before was. Before the holder begins: what is held stays.
    pub(super) fn go_on(&mut self, course: &Course) {
        let until_ns = u64::try_from(course.until.since_origin().as_nanos()).unwrap_or(u64::MAX);
        self.until_ns.store(until_ns, Ordering::Release);
        if course.progress.holds {
            self.active.set(true);
            self.roles.set(Role::Active, Reason::Resumed.to_string(), Claim::Resume);
        }
        self.course = Some(course.clone());
    }

    pub(super) fn lease_mac(&self, until_ns: u64) -> Result<(), String> {
        let Some(link) = &self.link else { return Ok(()) };
        let set = self.leases.set(lease_key(link.mac).into(), Some(until_ns));
        set.map_err(|error| format!("the lease of {} was not set: {error}", link.name))
    }
}

impl Attract for Attractor {
    fn renew(&self, until: Moment) -> Result<(), String> {
        let until_ns = u64::try_from(until.since_origin().as_nanos()).unwrap_or(u64::MAX);
        self.until_ns.store(until_ns, Ordering::Release);
        // Also before it is Active: the advertisement that says so leaves with this MAC.
        self.lease_mac(until_ns)?;
        if !self.active.get() || !self.leases.tables_written() {
            return Ok(());
        }
        let asks = self.asks.load(Ordering::Relaxed);
        let mut outcome = Ok(());
        for &vip in self.vips.iter().filter(|vip| !asks || self.holder.holds(**vip)) {
            let renewed = self.leases.set(vip, Some(until_ns));
            outcome = outcome.and(
                renewed.map_err(|error| format!("the lease of {vip} was not renewed: {error}")),
            );
        }
        outcome
    }

    fn acquire(&self, reason: Reason) {
        self.active.set(true);
        // Whoever hands over goes on answering until it hears this node.
        let planned = reason == Reason::ActiveResigned;
        let asks = self.asks.load(Ordering::Relaxed);
        let claim = if asks && !planned { Claim::Insist } else { Claim::Forced };
        self.roles.set(Role::Active, reason.to_string(), claim);
    }

    fn release(&self, reason: Reason) {
        self.active.set(false);
        // At once, so that two nodes do not answer while the holder tidies up. Where it fails the
        // holder says so, which revokes it too, and no lease outlives three intervals. The MAC's too,
        // before the address goes, which the kernel may tell the switches with this MAC (MLD).
        for &vip in &self.vips {
            let _ = self.leases.set(vip, None);
        }
        if let Err(error) = self.lease_mac(monotonic_ns()) {
            warn!(error, "ending the lease of a virtual MAC");
        }
        self.roles.set(Role::Backup, reason.to_string(), Claim::Forced);
    }

    fn announce(&self) {
        self.holder.announce();
    }

    fn readdress(&mut self, addresses: &[IpAddr]) {
        // As for a release: the holder takes the addresses away behind this.
        for vip in self.vips.iter().filter(|vip| !addresses.contains(vip)) {
            let _ = self.leases.set(*vip, None);
        }
        self.vips = addresses.to_vec();
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
        let (node, network) = (self.node.as_str(), &self.network);
        let surroundings = Surroundings {
            config: &self.config,
            settings,
            node,
            network,
            placements: &self.placements,
        };
        let ways: Result<Vec<Way>, String> =
            attractors.iter().map(|a| surroundings.way(&a.vips, a.link.as_ref())).collect();
        let ways = match ways {
            Ok(ways) => ways,
            Err(missing) => {
                self.failures.insert(about, missing);
                return;
            }
        };
        let attractors = std::mem::take(attractors);
        let (mut standings, mut routers) = (Vec::new(), Vec::new());
        for (attractor, way) in attractors.into_iter().zip(ways) {
            let settings = surroundings.settings(way, &attractor.router, &attractor.vips);
            standings.push(Standing::new(settings.clone(), Arc::clone(&attractor.asks)));
            let course = attractor.course.clone();
            routers.push(Router { settings, course, attract: Box::new(attractor) });
        }
        match Vrrp::start(routers, &self.vrrp_events) {
            Ok(vrrp) => {
                self.failures.remove(&about);
                self.election = Election::Vrrp(Elected { vrrp, routers: standings, weight: 0 });
                // Before its first timer: a node that is not known to be well stays Backup.
                self.look(Occasion::Tick);
            }
            // The holders of these senders have ended: nothing attracts traffic, and the failure
            // stands in the status until a restart.
            Err(error) => {
                self.failures.insert(about, format!("vrrp does not start: {error}"));
            }
        }
    }

    /// Passes a person's command on to VRRP, for one router or for all.
    pub(super) fn vrrp_asked(
        &self,
        router_id: Option<u8>,
        command: &Command,
    ) -> Result<(), Refusal> {
        let refused = |sentence: String| Refusal { callers: true, sentence };
        match &self.election {
            Election::Vrrp(elected) => {
                let targets = elected.targets(router_id).map_err(refused)?;
                info!(?command, router_id, "vrrp, by hand");
                let taken = |target| elected.vrrp.command(target, command.clone());
                let all = targets.into_iter().all(taken);
                all.then_some(()).ok_or_else(|| refused("vrrp is stopping".to_owned()))
            }
            Election::Waiting(_) => {
                Err(refused("vrrp has not begun: see the warnings of lbctl status".to_owned()))
            }
            Election::Static(_) => {
                let sentence = "there is no [vrrp] in the configuration; see lbctl role";
                Err(refused(sentence.to_owned()))
            }
        }
    }
}

impl Standing {
    const fn new(settings: Settings, asks: Arc<AtomicBool>) -> Self {
        Self { settings, asks, unfit: None, refused: None }
    }

    fn router_id(&self) -> u8 {
        self.settings.parameters.router_id.number()
    }

    fn vips(&self) -> &[IpAddr] {
        &self.settings.parameters.addresses
    }
}

impl Elected {
    /// The addresses of each router.
    pub(super) fn vips(&self) -> impl Iterator<Item = &[IpAddr]> {
        self.routers.iter().map(Standing::vips)
    }

    /// Why each router could not hold its addresses a while ago. Another node may, and this one asks
    /// again later.
    pub(super) fn refusals(&mut self, seats: &Seats, now: Instant) -> Vec<Option<String>> {
        let refusals = self.routers.iter_mut().zip(&seats.0).map(|(standing, seat)| {
            if let Some(refusal) = seat.holder.holding().refusal {
                standing.refused = Some((refusal, now + ASK_AGAIN));
            }
            standing.refused.take_if(|(_, until)| *until <= now);
            standing.refused.as_ref().map(|(refusal, _)| refusal.clone())
        });
        refusals.collect()
    }

    /// Tells VRRP by how much the priority is lowered, and for each router why this node must not be
    /// Active in it, where that has changed.
    pub(super) fn tell(&mut self, weight: i32, unfit: Vec<Option<String>>) {
        if weight != self.weight && self.vrrp.command(Target::All, Command::Weigh(weight)) {
            self.weight = weight;
        }
        for (place, (standing, unfit)) in self.routers.iter_mut().zip(unfit).enumerate() {
            let command = Command::Unfit(unfit.clone());
            if unfit != standing.unfit && self.vrrp.command(Target::Router(place), command) {
                standing.unfit = unfit;
            }
        }
    }

    fn targets(&self, router_id: Option<u8>) -> Result<Vec<Target>, String> {
        let Some(wanted) = router_id else { return Ok(vec![Target::All]) };
        let places = self.routers.iter().enumerate().filter(|(_, s)| s.router_id() == wanted);
        let targets: Vec<Target> = places.map(|(place, _)| Target::Router(place)).collect();
        if targets.is_empty() {
            let mut known: Vec<u8> = self.routers.iter().map(Standing::router_id).collect();
            known.dedup();
            let known = known.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
            return Err(format!("there is no virtual router {wanted}: the file has {known}"));
        }
        Ok(targets)
    }
}
