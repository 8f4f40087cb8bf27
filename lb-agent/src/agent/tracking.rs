//! What the node's being Active depends on: looks at it, and tells VRRP what follows.

use std::net::IpAddr;
use std::time::{Instant, SystemTime};

use tracing::{info, warn};

use super::core::Agent;
use super::election::Election;
use crate::config::Watched;
use crate::health;
use crate::track::{Board, Event, Failure, Kind, Outcome, frame};

/// Why it is looked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Occasion {
    /// A second has passed: each thing is looked at, which counts towards rise and fall.
    Tick,
    /// Something has changed: counts where the thing itself has.
    Change,
}

/// Services that a sentence about all of them names.
const SERVICES_NAMED: usize = 5;

impl Agent {
    /// Looks at everything but scripts and tells VRRP what follows. Scripts run by themselves.
    pub(super) fn look(&mut self, occasion: Occasion) {
        let Election::Vrrp(_) = &self.election else { return };
        for at in 0..self.board.tracked().len() {
            let Some(outcome) = self.observe(at, occasion) else { continue };
            let good = matches!(outcome, Outcome::Good(_));
            let last = self.board.tracked()[at].judge.last_look();
            if occasion == Occasion::Tick || last != Some(good) {
                self.hear(at, outcome);
            }
        }
        self.tell();
    }

    /// Takes what a script's run found.
    pub(super) fn note_track(&mut self, event: Event) {
        self.hear(event.at, event.outcome);
        self.tell();
    }

    fn hear(&mut self, at: usize, outcome: Outcome) {
        let Some(change) = self.board.hear(at, outcome, SystemTime::now()) else { return };
        let tracked = &self.board.tracked()[at];
        let (name, reason) = (&tracked.name, tracked.judge.reason());
        if change.state == health::State::Down {
            let effect = match tracked.weight {
                Some(weight) => format!("priority {weight}"),
                None => "this node resigns and stays Backup".to_owned(),
            };
            warn!(
                event = "track-fails",
                track = name,
                reason,
                effect,
                "what this node tracks fails"
            );
        } else {
            info!(event = "track-good", track = name, reason, "what this node tracks is good");
        }
    }

    /// What one thing is like now; none for scripts, and where there is nothing to look at.
    fn observe(&self, at: usize, occasion: Occasion) -> Option<Outcome> {
        let outcome = |result: Result<String, String>| match result {
            Ok(reason) => Outcome::Good(reason),
            Err(reason) => Outcome::Bad(Failure { kind: Kind::Failed, reason }),
        };
        match at {
            Board::DATA_PATH => Some(outcome(match self.why_unfit() {
                None => Ok("attached, and the maps are up to date".to_owned()),
                Some(why) => Err(why),
            })),
            // The maps may be half changed in between.
            Board::PACKET if occasion == Occasion::Change => None,
            Board::PACKET => Some(outcome(self.try_packet())),
            _ => match self.board.tracked()[at].watched.as_ref()? {
                Watched::Interface(name) => Some(outcome(self.interface_is_up(name))),
                Watched::HealthyBackends { at_least, service } => {
                    Some(outcome(self.backends_are_healthy(*at_least, service.as_deref())))
                }
                Watched::Script(_) => None,
            },
        }
    }

    fn interface_is_up(&self, name: &str) -> Result<String, String> {
        match self.network.link_by_name(name) {
            None => Err(format!("there is no {name}")),
            Some(link) if !link.up => Err(format!("{name} is down")),
            Some(link) if !link.running => Err(format!("{name} has no carrier")),
            Some(_) => Ok(format!("{name} is up")),
        }
    }

    /// Those count that are not down, as they may take clients.
    fn backends_are_healthy(&self, at_least: u32, of: Option<&str>) -> Result<String, String> {
        let services = self.config.services.iter().enumerate();
        let mut good = Vec::new();
        for (configured, service) in services.filter(|(_, s)| of.is_none_or(|of| of == s.name)) {
            let down = |address| self.state_of(configured, address) == health::State::Down;
            let healthy = service.backends.iter().filter(|b| !down(b.address)).count();
            let all = service.backends.len();
            let seen = format!("{healthy} of {all} backends of {} are healthy", service.name);
            if (healthy as u64) < u64::from(at_least) {
                return Err(format!("{seen}, not {at_least}"));
            }
            good.push(seen);
        }
        let more = good.len().saturating_sub(SERVICES_NAMED);
        good.truncate(SERVICES_NAMED);
        if more > 0 {
            good.push(format!("and enough of {more} more services"));
        }
        Ok(good.join(", "))
    }

    /// Sends a synthetic packet to each service through the program on each attached interface.
    pub(super) fn try_packet(&self) -> Result<String, String> {
        let targets = frame::targets(&self.services);
        let mut tried = 0;
        for attached in self.dataplane.attached() {
            let link = self.network.link(attached.index);
            // Without a MAC the program knows no interface, and gets no frames there either.
            let Some(mac) = link.and_then(|link| link.mac) else { continue };
            for &to in &targets {
                self.dataplane
                    .try_frame(attached, &frame::build(mac, to))
                    .map_err(|error| format!("a packet to {to}: {error}"))?;
                tried += 1;
            }
        }
        Ok(match tried {
            0 => "not tried: no TCP service, or no interface".to_owned(),
            1 => "it finds its way".to_owned(),
            _ => format!("{tried} find their way"),
        })
    }

    /// Tells VRRP how much the priority is lowered, and in which routers this node may be Active.
    pub(super) fn tell(&mut self) {
        let (weight, unfit) = (self.board.weight(), self.board.unfit());
        let refusals = match &mut self.election {
            Election::Vrrp(elected) => elected.refusals(&self.seats, Instant::now()),
            Election::Static(_) | Election::Waiting(_) => return,
        };
        let all: Vec<IpAddr> = self.config.virtual_addresses.clone();
        let waits = self.waits_for_flows(self.link_trouble(&all).is_some());
        let Election::Vrrp(elected) = &self.election else { return };
        let of_router = |(vips, refusal): (&[IpAddr], Option<String>)| {
            let unfit = unfit.clone().or_else(|| self.link_trouble(vips)).or(refusal);
            unfit.or_else(|| waits.clone())
        };
        let wanted: Vec<Option<String>> = elected.vips().zip(refusals).map(of_router).collect();
        if let Election::Vrrp(elected) = &mut self.election {
            elected.tell(weight, wanted);
        }
    }

    fn why_unfit(&self) -> Option<String> {
        if self.dataplane.attached().is_empty() {
            return Some("no interface is attached".to_owned());
        }
        self.failures.get("maps").cloned()
    }

    /// What is wrong with a link that these addresses are on: it concerns their router alone.
    fn link_trouble(&self, vips: &[IpAddr]) -> Option<String> {
        let placements = self.placements.iter().filter(|placement| vips.contains(&placement.vip));
        placements.into_iter().find_map(|placement| {
            let name = &placement.interface.name;
            match self.network.link(placement.interface.index) {
                None => Some(format!("{name} is gone")),
                Some(link) if !link.up || !link.running => Some(format!("{name} is down")),
                Some(_) => None,
            }
        })
    }
}
