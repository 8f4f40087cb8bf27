//! Our agent and a router of another implementation in one virtual router: they elect, fail over and
//! hand back in both directions, once with the other one's priority above ours and once below. Judged
//! by what both say on the wire, by who answers a client, and by ping.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lb_agent::control::api::{Role, VrrpState};

use super::owner::{await_owner, one_answers};
use super::shape::{Family, NIC, address, vip};
use super::stage::Stage;
use super::wire::{Change, Protocol, SERVICE, Side, Successor, Watch};
use crate::lab::agent::Agent;
use crate::lab::{Host, Lab, Mac};

const LIMIT: Duration = Duration::from_secs(30);

/// The other implementation, on its machine.
pub(super) trait Peer {
    fn name(&self) -> &'static str;
    fn start(&mut self, host: &Host) -> Result<()>;
    /// It resigns and ends.
    fn end(&mut self, host: &Host) -> Result<()>;
    /// Its processes die without a word, and what the kernel has of them.
    fn crash(&mut self, host: &Host) -> Result<()>;
    /// For how long it is Active before its first advertisement says so: a defect of its.
    fn mute(&self, family: Family) -> Duration;
    /// Who answers for its addresses.
    fn mac(&self, host: &Host, family: Family) -> Result<Mac>;
    /// Advertisements that it has taken since its start.
    fn received(&self) -> Result<u64>;
    /// What it refused since its start, in its own words.
    fn refused(&self) -> Result<Vec<String>>;
}

/// Two machines, each with its number among the masters and its priority.
pub(super) struct Seats {
    pub(super) ours: (u8, u8),
    pub(super) peer: (u8, u8),
}

/// Our agent beside a peer.
pub(super) struct Duet<'a> {
    ours: Host,
    peer: Host,
    client: Host,
    protocol: &'a Protocol,
    seats: Seats,
    other: &'a mut dyn Peer,
    /// What the peer refused, of all its runs.
    refused: Vec<String>,
    /// And how much it took.
    taken: u64,
}

impl<'a> Duet<'a> {
    pub(super) fn new(
        stage: &Stage,
        protocol: &'a Protocol,
        seats: Seats,
        other: &'a mut dyn Peer,
    ) -> Result<Self> {
        let lab = Lab::new(stage.tool())?;
        let host = |name: String| {
            let own = [(Family::V4, 24), (Family::V6, 64)]
                .map(|(family, length)| format!("{}/{length}", address(&name, family)));
            lab.host(&name).interface(NIC, "lan", &own).start()
        };
        let [ours, peer] = [seats.ours.0, seats.peer.0].map(|n| host(format!("master{n}")));
        let client = host("client1".to_owned())?;
        let (refused, taken) = (Vec::new(), 0);
        Ok(Self { ours: ours?, peer: peer?, client, protocol, seats, other, refused, taken })
    }

    /// The peer has the higher priority.
    pub(super) fn below(&mut self, stage: &mut Stage) -> Result<()> {
        let name = self.other.name();
        stage.step(&format!("a {name} of higher priority is alone"));
        self.other.start(&self.peer)?;
        self.await_peer()?;
        self.owned(stage, &format!("alone, {name} is Active"), Side::Peer)?;

        stage.step("ours joins");
        // What is said from here on, so that the last word before the crash is among it.
        let watch = self.watch()?;
        let mut agent = Agent::start(&self.ours, &self.configuration())?;
        stays_backup(stage, &agent, name)?;

        stage.step(&format!("the node of {name} dies"));
        self.crash_peer()?;
        await_ours(&mut agent, true)?;
        self.owned(stage, &format!("ours takes over from a dead {name}"), Side::Ours)?;
        self.judge(stage, watch, Side::Ours, Change::Crash)?;

        stage.step(&format!("{name} comes back"));
        let watch = self.watch()?;
        self.peer.set_cable(NIC, true)?;
        self.other.start(&self.peer)?;
        self.await_peer()?;
        await_ours(&mut agent, false)?;
        self.owned(stage, &format!("ours hands back to {name}"), Side::Peer)?;
        self.judge(stage, watch, Side::Peer, Change::Preemption)?;
        self.says_to_whom(stage, &agent)?;

        stage.step(&format!("{name} ends"));
        let watch = self.watch()?;
        self.end_peer()?;
        await_ours(&mut agent, true)?;
        self.owned(stage, &format!("ours takes over from {name}, which resigned"), Side::Ours)?;
        self.judge(stage, watch, Side::Ours, Change::Resignation)?;
        self.judge_refusals(stage, &agent)?;
        agent.stop()
    }

    /// Our agent has the higher priority, and preempts.
    pub(super) fn above(&mut self, stage: &mut Stage) -> Result<()> {
        let name = self.other.name();
        stage.step("ours is alone");
        let mut agent = Agent::start(&self.ours, &self.configuration())?;
        await_ours(&mut agent, true)?;
        self.owned(stage, "alone, ours is Active", Side::Ours)?;

        stage.step(&format!("a {name} of lower priority joins"));
        let watch = self.watch()?;
        self.other.start(&self.peer)?;
        self.await_taken()?;
        self.owned(stage, &format!("a {name} of lower priority stays Backup"), Side::Ours)?;

        stage.step("our node dies");
        self.ours.set_cable(NIC, false)?;
        agent.kill()?;
        self.await_peer()?;
        self.owned(stage, &format!("{name} takes over from a dead node of ours"), Side::Peer)?;
        self.judge(stage, watch, Side::Peer, Change::Crash)?;

        stage.step("our node comes back");
        let watch = self.watch()?;
        self.ours.set_cable(NIC, true)?;
        let mut agent = Agent::start(&self.ours, &self.configuration())?;
        await_ours(&mut agent, true)?;
        self.owned(stage, &format!("{name} hands back to ours"), Side::Ours)?;
        self.judge(stage, watch, Side::Ours, Change::Preemption)?;

        stage.step("ours resigns");
        let watch = self.watch()?;
        agent.lbctl(["vrrp", "hold"])?;
        self.await_peer()?;
        await_ours(&mut agent, false)?;
        self.owned(stage, &format!("{name} takes over from ours, which resigned"), Side::Peer)?;
        self.judge(stage, watch, Side::Peer, Change::Resignation)?;

        stage.step(&format!("{name} ends"));
        let watch = self.watch()?;
        agent.lbctl(["vrrp", "release"])?;
        self.end_peer()?;
        await_ours(&mut agent, true)?;
        self.owned(stage, &format!("ours takes over from an ended {name}"), Side::Ours)?;
        self.judge(stage, watch, Side::Ours, Change::Resignation)?;
        self.judge_refusals(stage, &agent)?;
        agent.stop()
    }

    fn configuration(&self) -> String {
        let Seats { ours, peer } = self.seats;
        format!("{}{SERVICE}", self.protocol.configuration(&[ours, peer], ours.1 > peer.1))
    }

    fn crash_peer(&mut self) -> Result<()> {
        self.note_peer()?;
        self.other.crash(&self.peer)?;
        self.peer.set_cable(NIC, false)
    }

    fn end_peer(&mut self) -> Result<()> {
        self.note_peer()?;
        self.other.end(&self.peer)
    }

    /// What the peer has to say, before it is asked no more.
    fn note_peer(&mut self) -> Result<()> {
        self.refused.extend(self.other.refused()?);
        self.taken += self.other.received()?;
        Ok(())
    }

    fn watch(&self) -> Result<Watch> {
        Watch::start(&self.ours, &self.peer)
    }

    fn judge(&self, stage: &mut Stage, watch: Watch, to: Side, change: Change) -> Result<()> {
        let seen = watch.stop()?;
        for &family in self.protocol.families {
            let (name, priority, mute) = match to {
                Side::Ours => ("ours", self.seats.ours.1, Duration::ZERO),
                Side::Peer => (self.other.name(), self.seats.peer.1, self.other.mute(family)),
            };
            let successor = Successor { side: to, name, priority, mute };
            seen.judge(stage, self.protocol, family, successor, change);
        }
        Ok(())
    }

    fn mac(&self, side: Side, family: Family) -> Result<Mac> {
        match side {
            Side::Ours => self.ours.mac(NIC),
            Side::Peer => self.other.mac(&self.peer, family),
        }
    }

    fn await_peer(&self) -> Result<()> {
        self.protocol.families.iter().try_for_each(|&family| {
            await_owner(&self.client, vip(family), self.mac(Side::Peer, family)?, LIMIT)
        })
    }

    fn await_taken(&self) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        while self.other.received()? == 0 {
            ensure!(Instant::now() < deadline, "{} takes no advertisement", self.other.name());
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn owned(&self, stage: &mut Stage, text: &str, side: Side) -> Result<()> {
        for &family in self.protocol.families {
            let text = match self.protocol.families {
                [_] => text.to_owned(),
                _ => format!("{text} ({})", family.name()),
            };
            one_answers(stage, &text, &self.client, vip(family), self.mac(side, family)?)?;
        }
        Ok(())
    }

    /// The reason names the peer. Over IPv6 it speaks from a link-local address.
    fn says_to_whom(&self, stage: &mut Stage, agent: &Agent) -> Result<()> {
        let routers = agent.vrrp()?;
        let v4 = routers.iter().find(|router| router.address.is_ipv4());
        let reason = v4.context("no virtual router of IPv4")?.reason.clone();
        let peer: IpAddr = address(self.peer.name(), Family::V4);
        let holds = reason.contains(&peer.to_string());
        stage.claim("ours says to whom it yielded", holds, reason);
        Ok(())
    }

    /// Nothing was refused by either, and something was heard.
    fn judge_refusals(&mut self, stage: &mut Stage, agent: &Agent) -> Result<()> {
        let name = self.other.name();
        for router in agent.vrrp()? {
            let refused: Vec<_> = router.refused.iter().filter(|(_, count)| **count > 0).collect();
            let seen = format!("{} taken, refused {refused:?}", router.received);
            let text = format!("ours took all that {name} sent");
            stage.claim(&text, refused.is_empty() && router.received > 0, seen);
        }
        let seen = format!("{} taken, refused {:?}", self.taken, self.refused);
        let holds = self.refused.is_empty() && self.taken > 0;
        stage.claim(&format!("{name} took all that ours sent"), holds, seen);
        Ok(())
    }
}

fn await_ours(agent: &mut Agent, active: bool) -> Result<()> {
    agent.wait_until(&format!("ours is Active: {active}"), LIMIT, |status| {
        let held = status.virtual_addresses.iter().all(|vip| vip.held == active);
        (status.role == Role::Active) == active && held
    })?;
    Ok(())
}

/// Once it has heard the peer. That it stays so, the advertisements of the next step show.
fn stays_backup(stage: &mut Stage, agent: &Agent, name: &str) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    let routers = loop {
        let routers = agent.vrrp()?;
        if !routers.is_empty() && routers.iter().all(|router| router.received > 0) {
            break routers;
        }
        ensure!(Instant::now() < deadline, "ours hears nothing of {name}");
        std::thread::sleep(Duration::from_millis(20));
    };
    let backup = routers.iter().all(|router| router.state == VrrpState::Backup);
    let seen = routers.iter().map(|router| router.reason.clone()).collect::<Vec<_>>().join("; ");
    stage.claim("ours of lower priority stays Backup", backup, seen);
    Ok(())
}
