//! The cluster of a failover: under load, with one Active node that a fault strikes, turn after turn.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use lb_agent::control::api::{Role, VirtualRouter};
use nix::sys::signal::Signal;

use crate::backend::Mode;
use crate::client::{Arguments, Asker, Load, Ownership, Probe, Prober};
use crate::lab::Mac;
use crate::scenario::cluster::{Cluster, SETTLE};
use crate::scenario::shape::{
    Family, NIC, Shape, Vrrp, address, down_interval, priority, target, vip,
};
use crate::scenario::stage::Stage;
use crate::scenario::tally::Tally;

/// Streams of each client.
const STREAMS: u32 = 16;
const LIMIT: Duration = Duration::from_secs(30);
/// The nodes that take turns; the servers are on the others.
const PAIR: [usize; 2] = [0, 1];
/// Answers that a prober has before the fault, and after it is over.
const ANSWERS: u64 = 150;
/// How often one fault is made again because the VIP had moved before it. At 10 ms a node that stands
/// still for 20 ms is enough for that.
const REPEATS_MAX: usize = 3;
/// A request that waits for a takeover is sent again by TCP at growing intervals.
const TIMEOUT_INTERVALS: u32 = 10;
const TIMEOUT: Duration = Duration::from_secs(3);

/// What is done to the Active node, and how it comes back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// The whole node: no link, no processes.
    Crash,
    /// SIGKILL to the agent.
    AgentKill,
    /// SIGSTOP, and SIGCONT once another is Active.
    AgentStop,
    /// `lbctl vrrp resign`.
    Resign,
}

/// What one fault cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    pub(crate) probe: Probe,
    /// What the protocol itself takes until the successor's timer fires.
    pub(crate) theory: Duration,
    /// For how long two nodes answered ARP.
    pub(crate) dual: Duration,
    /// Answers from the successor's first announcement on: its own, and others'.
    pub(crate) answers: (usize, usize),
}

/// Four nodes, of which a pair takes turns, and clients.
pub(crate) struct Trial {
    // Before the cluster: they run in it.
    loads: Vec<(String, Load)>,
    cluster: Cluster,
    interval: Duration,
    active: usize,
    /// How often the VIPs, or one of them, had moved by themselves before a fault.
    moved_before: usize,
}

impl Trial {
    /// # Errors
    /// Where something does not come up.
    pub(crate) fn begin(stage: &Stage, interval: Duration) -> Result<Self> {
        let shape = Shape {
            nodes: 4,
            // The last one asks by ARP, and must have no other use for what it learns.
            clients: 3,
            vrrp: Some(Vrrp { interval }),
            ..Shape::masters(&[Mode::Https, Mode::Udp])
        };
        let cluster = Cluster::start(stage, shape.with_members(&["master3", "master4"]))?;
        stage.step("waiting until one node is Active");
        let [active, _] = PAIR;
        cluster.elect(active, &PAIR)?;
        let loads = load(&cluster, interval)?;
        Ok(Self { loads, cluster, interval, active, moved_before: 0 })
    }

    pub(crate) const fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Strikes the Active node, measures, and waits until all is well again; anew where the VIP had
    /// moved before, which says nothing about the fault.
    ///
    /// # Errors
    /// Where no other node becomes Active, or the struck one does not come back, or the VIP moves before
    /// the fault again and again.
    pub(crate) fn turn(&mut self, stage: &mut Stage, fault: Fault) -> Result<Turn> {
        for _ in 0..=REPEATS_MAX {
            self.find_active(stage)?;
            if let Some(turn) = self.attempt(stage, fault)? {
                return Ok(turn);
            }
            self.note_move(stage, "right before the fault")?;
        }
        bail!("the VIP moved before the fault {} times in a row", REPEATS_MAX + 1)
    }

    /// None where the VIP had moved before.
    fn attempt(&mut self, stage: &mut Stage, fault: Fault) -> Result<Option<Turn>> {
        let (struck, next) = (self.active, self.other());
        let asker = ask(&self.cluster)?;
        let prober = Prober::start(self.cluster.host("client2")?, target(Mode::Udp, Family::V4))?;
        prober.wait_for_answers(ANSWERS, LIMIT)?;
        let struck_at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        self.strike(fault)?;
        self.cluster.await_active(&[next])?;
        prober.wait_for_answers(ANSWERS, LIMIT)?;
        if fault == Fault::AgentStop {
            self.cluster.nodes[struck].agent()?.process().signal(Signal::SIGCONT)?;
            prober.wait_for_answers(ANSWERS, LIMIT)?;
        }
        let seen = asker.stop()?;
        let probe = prober.stop()?;
        stage.say(&format!("{fault:?} of {}: {probe:?}", self.cluster.name_of(struck)));
        self.known_to_clients(stage, next)?;
        self.recover(stage, fault)?;
        let mac = |node: usize| self.cluster.nodes[node].host.mac(NIC);
        let (former, owner) = (mac(struck)?, mac(next)?);
        if seen.owner(struck_at) != Some(former) {
            return Ok(None);
        }
        let answers = answers(&seen, owner)?;
        let theory = down_interval(self.interval, successor_priority(next)?);
        Ok(Some(Turn { probe, theory, dual: seen.dual(), answers }))
    }

    /// Who is Active now: since the last fault the VIPs may have moved.
    fn find_active(&mut self, stage: &Stage) -> Result<()> {
        match self.cluster.active(&PAIR)?[..] {
            [one] if one == self.active => {}
            [one] => {
                self.active = one;
                self.note_move(stage, "since the fault before")?;
            }
            // One of the virtual routers alone.
            _ => {
                self.note_move(stage, "in one family, since the fault before")?;
                self.cluster.elect(self.active, &PAIR)?;
            }
        }
        Ok(())
    }

    fn note_move(&mut self, stage: &Stage, when: &str) -> Result<()> {
        self.moved_before += 1;
        stage.say(&format!("the VIP moved by itself, {when}"));
        for node in PAIR {
            for router in self.cluster.nodes[node].agent()?.vrrp()? {
                let VirtualRouter { address, state, reason, .. } = router;
                let name = self.cluster.name_of(node);
                stage.say(&format!("{name} ({address}): {state:?}, {reason}"));
            }
        }
        Ok(())
    }

    /// How often the VIPs, or one of them, had moved by themselves before a fault.
    pub(crate) const fn moved_before(&self) -> usize {
        self.moved_before
    }

    /// Ends the load: no request failed, no stream broke.
    ///
    /// # Errors
    /// Where a client does not end.
    pub(crate) fn end(self, stage: &mut Stage) -> Result<Tally> {
        let mut tally = Tally::default();
        tally.all_answered(stage, self.loads)?;
        tally.unbroken(stage, 2 * STREAMS);
        tally.moved(stage);
        Ok(tally)
    }

    fn other(&self) -> usize {
        let [one, other] = PAIR;
        if self.active == one { other } else { one }
    }

    fn strike(&mut self, fault: Fault) -> Result<()> {
        let struck = self.active;
        match fault {
            Fault::Crash => self.cluster.crash(struck)?,
            Fault::AgentKill => {
                self.cluster.nodes[struck].agent.take().context("no agent")?.kill()?;
            }
            Fault::AgentStop => {
                self.cluster.nodes[struck].agent()?.process().signal(Signal::SIGSTOP)?;
            }
            Fault::Resign => drop(self.cluster.nodes[struck].agent()?.lbctl(["vrrp", "resign"])?),
        }
        Ok(())
    }

    fn recover(&mut self, stage: &Stage, fault: Fault) -> Result<()> {
        let (struck, next) = (self.active, self.other());
        match fault {
            Fault::Crash => self.cluster.boot(struck)?,
            Fault::AgentKill => self.cluster.start_agents()?,
            Fault::AgentStop | Fault::Resign => {}
        }
        self.active = next;
        // TCP sends again at growing intervals: with slow advertisements streams and requests still wait
        // now, and the next fault would come on top of this one.
        for (who, load) in &mut self.loads {
            let what = format!("{who} goes on");
            // What it said before the fault says nothing.
            load.latest()?;
            load.wait_until(&what, SETTLE, |report| {
                let talking = report.streams.talking + report.streams.broken;
                report.stuck == 0 && talking == u64::from(STREAMS)
            })?;
        }
        let calm = self.calm();
        if calm.is_ok() || self.cluster.active(&PAIR)?[..] == [next] {
            return calm;
        }
        self.note_move(stage, "while the struck node came back")?;
        self.cluster.elect(next, &PAIR)?;
        self.calm()
    }

    /// All is well: one node of the pair is Active, the other one Backup.
    fn calm(&mut self) -> Result<()> {
        let backup = self.other();
        self.cluster.nodes[backup].agent_mut()?.wait_until(
            "it is Backup again",
            SETTLE,
            |status| {
                let held = status.virtual_addresses.iter().any(|vip| vip.held);
                status.role == Role::Backup && !held
            },
        )?;
        self.cluster.settle()
    }

    /// Every client's neighbour table names the new one.
    fn known_to_clients(&self, stage: &mut Stage, owner: usize) -> Result<()> {
        let mac = self.cluster.nodes[owner].host.mac(NIC)?;
        for (client, family) in [("client1", Family::V4), ("client2", Family::V6)] {
            let known = self.cluster.host(client)?.await_neighbour(vip(family), mac, SETTLE)?;
            let name = self.cluster.name_of(owner);
            let text = format!("{client} has learned that {name} is Active");
            stage.claim(&text, known == Some(mac), format!("{known:02x?}, expected {mac:02x?}"));
        }
        Ok(())
    }
}

fn load(cluster: &Cluster, interval: Duration) -> Result<Vec<(String, Load)>> {
    let timeout = TIMEOUT.max(interval * TIMEOUT_INTERVALS);
    let timeout_ms = u64::try_from(timeout.as_millis())?;
    cluster.loads("kept", |arguments| Arguments {
        concurrency: 4,
        streams: STREAMS,
        pause_ms: 20,
        timeout_ms,
        duration_ms: 600_000,
        ..arguments
    })
}

/// The last client asks who has the IPv4 VIP.
pub(crate) fn ask(cluster: &Cluster) -> Result<Asker> {
    let name = cluster.shape.client_names().pop().context("a client to ask by ARP")?;
    Asker::start(cluster.host(&name)?, NIC, v4(address(&name, Family::V4))?, v4(vip(Family::V4))?)
}

fn v4(address: IpAddr) -> Result<Ipv4Addr> {
    match address {
        IpAddr::V4(v4) => Ok(v4),
        IpAddr::V6(v6) => bail!("{v6} is no IPv4 address"),
    }
}

fn answers(seen: &Ownership, owner: Mac) -> Result<(usize, usize)> {
    let since = seen.announced(owner).with_context(|| {
        format!("the new Active node announced nothing while {} were asked", seen.questions())
    })?;
    Ok(seen.answers(since, owner))
}

fn successor_priority(node: usize) -> Result<u8> {
    Ok(priority(u8::try_from(node + 1)?))
}
