//! `vrrp-three`: keepalived, FRR and ours in one virtual router of version 3. Each becomes Active in
//! turn, by priority, by resignation and by a crash; at the end of each step one answers and one
//! advertises.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::Result;

use super::owner::{await_owner, one_answers};
use super::shape::{Family, NIC, address, vip};
use super::stage::Stage;
use super::vrrp_frr::group;
use super::vrrp_keepalived::of_version_3;
use super::wire::{Protocol, SERVICE};
use crate::lab::agent::Agent;
use crate::lab::peer::frr::{Frr, virtual_mac};
use crate::lab::peer::keepalived::Keepalived;
use crate::lab::{Host, Lab, Mac};

const INTERVAL: Duration = Duration::from_millis(100);
const ROUTER_ID: u8 = 51;
const LIMIT: Duration = Duration::from_secs(20);
/// A twentieth of a second each: over several intervals.
const PINGS: u32 = 12;
/// The lowest to the highest.
const FRR: u8 = 100;
const KEEPALIVED: u8 = 110;
const OURS: u8 = 120;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Keepalived,
    Frr,
    Ours,
}

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    let trio = Trio::new(stage)?;
    stage.step("all three start");
    let frr = trio.frr()?;
    let mut keepalived = trio.keepalived()?;
    let mut agent = trio.agent()?;
    trio.settle(stage, "ours, of the highest priority, is elected", Who::Ours)?;

    stage.step("ours resigns");
    agent.lbctl(["vrrp", "hold"])?;
    trio.settle(stage, "keepalived, the next one, takes over from ours", Who::Keepalived)?;

    stage.step("keepalived dies");
    let mut refused = trio.crash_keepalived(keepalived)?;
    trio.settle(stage, "FRR takes over from a dead keepalived", Who::Frr)?;

    stage.step("keepalived comes back");
    trio.hosts[0].set_cable(NIC, true)?;
    keepalived = trio.keepalived()?;
    trio.settle(stage, "FRR hands back to keepalived", Who::Keepalived)?;

    stage.step("keepalived ends");
    refused.extend(refusals(&keepalived)?);
    keepalived.end()?;
    trio.settle(stage, "FRR takes over from keepalived, which resigned", Who::Frr)?;

    stage.step("ours may be Active again");
    agent.lbctl(["vrrp", "release"])?;
    trio.settle(stage, "FRR hands back to ours", Who::Ours)?;

    stage.step("our node dies");
    keepalived = trio.keepalived()?;
    trio.settle(stage, "ours stays Active as keepalived comes", Who::Ours)?;
    let refused_by_ours = refused_by(&agent)?;
    trio.hosts[2].set_cable(NIC, false)?;
    agent.kill()?;
    trio.settle(stage, "keepalived takes over from a dead node of ours", Who::Keepalived)?;

    stage.step("our node comes back");
    trio.hosts[2].set_cable(NIC, true)?;
    agent = trio.agent()?;
    trio.settle(stage, "keepalived hands back to ours", Who::Ours)?;

    refused.extend(refusals(&keepalived)?);
    stage.claim("keepalived refused nothing", refused.is_empty(), format!("{refused:?}"));
    let refused = frr.refusals();
    stage.claim("FRR refused nothing", refused.is_empty(), format!("{refused:?}"));
    let refused = refused_by_ours + refused_by(&agent)?;
    stage.claim("ours refused nothing", refused == 0, refused);
    stage.figure("moves", 7);
    agent.stop()
}

fn refusals(keepalived: &Keepalived) -> Result<Vec<String>> {
    let refused = keepalived.statistics()?.refused.into_iter();
    Ok(refused.filter(|(_, count)| *count > 0).map(|(why, n)| format!("{n} {why}")).collect())
}

fn refused_by(agent: &Agent) -> Result<u64> {
    Ok(agent.vrrp()?.iter().flat_map(|router| router.refused.values()).sum())
}

/// The three machines, in the order of [`Who`], and a client.
struct Trio {
    hosts: [Host; 3],
    client: Host,
}

impl Trio {
    fn new(stage: &Stage) -> Result<Self> {
        let lab = Lab::new(stage.tool())?;
        let host = |name: &str| {
            let own = [format!("{}/24", address(name, Family::V4))];
            lab.host(name).interface(NIC, "lan", &own).start()
        };
        let hosts = [host("master1")?, host("master2")?, host("master3")?];
        Ok(Self { hosts, client: host("client1")? })
    }

    fn keepalived(&self) -> Result<Keepalived> {
        let host = &self.hosts[0];
        let file = of_version_3(host.name(), KEEPALIVED, INTERVAL.as_secs_f64());
        Keepalived::start(host, &file)
    }

    fn frr(&self) -> Result<Frr> {
        Frr::start(&self.hosts[1], &group(FRR, INTERVAL, &[Family::V4]))
    }

    fn agent(&self) -> Result<Agent> {
        let protocol = Protocol {
            router_id: ROUTER_ID,
            version: 3,
            interval: INTERVAL,
            unicast: false,
            password: None,
            families: &[Family::V4],
        };
        let head = protocol.configuration(&[(1, KEEPALIVED), (2, FRR), (3, OURS)], true);
        Agent::start(&self.hosts[2], &format!("{head}{SERVICE}"))
    }

    /// Returns what it had refused.
    fn crash_keepalived(&self, keepalived: Keepalived) -> Result<Vec<String>> {
        let refused = refusals(&keepalived)?;
        let host = &self.hosts[0];
        keepalived.kill()?;
        host.set_cable(NIC, false)?;
        // A machine without power does not keep it.
        host.namespace().ip(&format!("addr del {}/32 dev {NIC}", vip(Family::V4)))?;
        Ok(refused)
    }

    fn host(&self, who: Who) -> &Host {
        match who {
            Who::Keepalived => &self.hosts[0],
            Who::Frr => &self.hosts[1],
            Who::Ours => &self.hosts[2],
        }
    }

    fn mac(&self, who: Who) -> Result<Mac> {
        match who {
            Who::Frr => Ok(virtual_mac(ROUTER_ID, vip(Family::V4))),
            Who::Keepalived | Who::Ours => self.host(who).mac(NIC),
        }
    }

    /// Waits for who is to be Active, and claims that nobody else is.
    fn settle(&self, stage: &mut Stage, text: &str, who: Who) -> Result<()> {
        let (address, mac) = (vip(Family::V4), self.mac(who)?);
        await_owner(&self.client, address, mac, LIMIT)?;
        one_answers(stage, text, &self.client, address, mac)?;
        let capture = self.client.capture(NIC)?;
        self.client.ping(address, PINGS)?;
        let recording = capture.stop()?;
        let said = recording.frames.iter().filter_map(|frame| frame.advertisement());
        let sources: BTreeSet<IpAddr> = said.map(|advertisement| advertisement.source).collect();
        let own = super::shape::address(self.host(who).name(), Family::V4);
        let alone = sources.iter().eq([&own]);
        stage.claim(&format!("{text}, and alone advertises"), alone, format!("{sources:?}"));
        Ok(())
    }
}
