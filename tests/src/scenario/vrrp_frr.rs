//! `vrrp-frr-v3`: our agent and a real FRR in one virtual router, for IPv4 and IPv6 each.
//!
//! FRR answers as the virtual MAC. As its manual sets it up its backup answers ARP too, from the
//! interface below the macvlan, so that two would answer here; [`frr`](crate::lab::peer::frr) sets
//! `arp_ignore` on its machine against that. And its first IPv6 advertisement as Active fails, since the
//! macvlan has just been switched on ("Failed to find address to bind"): it announces the address in
//! time, and the next advertisement follows an interval later. Whom it preempts stays Active until then.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::duet::{Duet, Peer, Seats};
use super::shape::{Family, NIC, vip};
use super::stage::Stage;
use super::wire::Protocol;
use crate::lab::peer::frr::{Frr, Group, virtual_mac};
use crate::lab::{Host, Mac};

const ROUTER_ID: u8 = 51;
const INTERVAL: Duration = Duration::from_millis(500);

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    let protocol = Protocol {
        router_id: ROUTER_ID,
        version: 3,
        interval: INTERVAL,
        unicast: false,
        password: None,
        families: &Family::BOTH,
    };
    for priority in [150, 90] {
        let group = group(priority, INTERVAL, &Family::BOTH);
        let mut peer = FrrPeer { group, running: None };
        let seats = Seats { ours: (1, 100), peer: (2, priority) };
        let mut duet = Duet::new(stage, &protocol, seats, &mut peer)?;
        if priority > 100 { duet.below(stage)? } else { duet.above(stage)? }
    }
    Ok(())
}

pub(super) fn group(priority: u8, interval: Duration, families: &[Family]) -> Group {
    let addresses = families.iter().map(|&family| vip(family)).collect();
    Group { interface: NIC, router_id: ROUTER_ID, priority, interval, addresses }
}

struct FrrPeer {
    group: Group,
    running: Option<Frr>,
}

impl FrrPeer {
    fn running(&self) -> Result<&Frr> {
        self.running.as_ref().context("no FRR runs")
    }
}

impl Peer for FrrPeer {
    fn name(&self) -> &'static str {
        "FRR"
    }

    fn start(&mut self, host: &Host) -> Result<()> {
        self.running = Some(Frr::start(host, &self.group)?);
        Ok(())
    }

    fn end(&mut self, host: &Host) -> Result<()> {
        self.running.take().context("no FRR runs")?.end(host)
    }

    fn crash(&mut self, host: &Host) -> Result<()> {
        self.running.take().context("no FRR runs")?.kill(host)
    }

    fn mute(&self, family: Family) -> Duration {
        match family {
            Family::V4 => Duration::ZERO,
            Family::V6 => INTERVAL,
        }
    }

    fn mac(&self, _: &Host, family: Family) -> Result<Mac> {
        Ok(virtual_mac(ROUTER_ID, vip(family)))
    }

    fn received(&self) -> Result<u64> {
        self.running()?.received()
    }

    fn refused(&self) -> Result<Vec<String>> {
        Ok(self.running()?.refusals())
    }
}
