//! `failover-*`: VRRP moves the VIP by itself, again and again, between two nodes that balance for
//! servers on two others. A prober asks the VIP every millisecond or two; kept connections and
//! streams are open all the time.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use lb_agent::control::api::Role;
use nix::sys::signal::Signal;

use super::cluster::{Cluster, SETTLE};
use super::shape::{Family, NIC, Shape, Vrrp, sources, vip};
use super::stage::Stage;
use super::tally::{Tally, rounded};
use crate::backend::Mode;
use crate::client::{Arguments, Load};

const INTERVAL: Duration = Duration::from_millis(100);
/// Odd, so that the median is a measured value.
const RUNS: usize = 5;
const STREAMS: u32 = 16;
const LIMIT: Duration = Duration::from_secs(30);
/// The nodes that take turns; the servers are on the others.
const PAIR: [usize; 2] = [0, 1];

/// What is done to the Active node, and how it comes back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The whole node: no link, no processes.
    Crash,
    /// SIGKILL to the agent.
    AgentKill,
    /// SIGSTOP, and SIGCONT once another is Active.
    AgentStop,
    /// `lbctl vrrp resign`.
    Resign,
}

pub(super) fn crash(stage: &mut Stage) -> Result<()> {
    run(stage, Fault::Crash)
}

pub(super) fn agent_kill(stage: &mut Stage) -> Result<()> {
    run(stage, Fault::AgentKill)
}

pub(super) fn agent_stop(stage: &mut Stage) -> Result<()> {
    run(stage, Fault::AgentStop)
}

pub(super) fn resign(stage: &mut Stage) -> Result<()> {
    run(stage, Fault::Resign)
}

fn run(stage: &mut Stage, fault: Fault) -> Result<()> {
    let shape = Shape {
        nodes: 4,
        vrrp: Some(Vrrp { interval: INTERVAL }),
        ..Shape::masters(&[Mode::Https, Mode::Udp])
    };
    let mut cluster = Cluster::start(stage, shape.with_members(&["master3", "master4"]))?;
    stage.step("waiting until one node is Active");
    let mut active = begin(&cluster)?;
    let mut loads = Vec::new();
    for (client, family) in [("client1", Family::V4), ("client2", Family::V6)] {
        let arguments = Arguments {
            concurrency: 4,
            streams: STREAMS,
            pause_ms: 20,
            source: sources(client, family),
            ..cluster.arguments(Mode::Https, family)
        };
        let mut load = cluster.load(client, &arguments)?;
        load.wait_until("all streams", LIMIT, |r| r.streams.opened == u64::from(STREAMS))?;
        loads.push((format!("{client} on kept {} connections", family.name()), load));
    }
    let mut gaps_ms = Vec::new();
    for turn in 0..RUNS {
        stage.step(&format!("run {} of {RUNS}: {}", turn + 1, cluster.name_of(active)));
        let mut prober = probe(&cluster)?;
        let next = strike(&mut cluster, fault, active)?;
        prober.run_for_requests(100, LIMIT)?;
        let report = prober.stop()?;
        gaps_ms.push(report.longest_gap_ms);
        one_owner(stage, &cluster, next, turn)?;
        recover(&mut cluster, fault, active)?;
        active = next;
    }
    let mut tally = Tally::default();
    for (who, load) in loads {
        tally.answered(stage, &who, &load.stop()?);
    }
    tally.unbroken(stage, 2 * STREAMS);
    tally.figures(stage);
    judge(stage, fault, gaps_ms);
    Ok(())
}

/// Lets only the pair take part, and the first of it be Active in both families.
fn begin(cluster: &Cluster) -> Result<usize> {
    let others: Vec<usize> = (0..cluster.nodes.len()).filter(|index| *index != PAIR[0]).collect();
    for &index in &others {
        cluster.nodes[index].agent()?.lbctl(["vrrp", "hold"])?;
    }
    let active = await_active(cluster, None)?;
    cluster.nodes[PAIR[1]].agent()?.lbctl(["vrrp", "release"])?;
    Ok(active)
}

/// The gap that the protocol itself makes: three intervals and the skew of the lower priority.
fn theory() -> Duration {
    let skew = INTERVAL * (256 - u32::from(super::shape::priority(2))) / 256;
    INTERVAL * 3 + skew
}

fn judge(stage: &mut Stage, fault: Fault, mut gaps_ms: Vec<f64>) {
    gaps_ms.sort_by(f64::total_cmp);
    let median = gaps_ms[gaps_ms.len() / 2];
    let theory_ms = theory().as_secs_f64() * 1000.0;
    // A crash waits for the others' timers. Whatever leaves the data path alone waits for none: the
    // bound is below the shortest of them, the successor's skew. How little it costs is the figure.
    let skew_ms = theory_ms - 3.0 * INTERVAL.as_secs_f64() * 1000.0;
    let (text, bound_ms) = match fault {
        Fault::Crash => ("a crash is over in 1.05 of three intervals and skew", 1.05 * theory_ms),
        _ => ("the move waits for no timer", skew_ms),
    };
    let seen = format!("median {median:.1} ms of {gaps_ms:.1?}, bound {bound_ms:.1} ms");
    stage.claim(text, median <= bound_ms, seen);
    stage.figure("vip_gap_ms", rounded(median));
    stage.figure("theory_ms", rounded(theory_ms));
    stage.figure("runs", gaps_ms.len());
}

/// A client that asks by datagram, and does not wait for an answer that is late.
fn probe(cluster: &Cluster) -> Result<Load> {
    let arguments =
        Arguments { timeout_ms: 3, pause_ms: 1, ..cluster.arguments(Mode::Udp, Family::V4) };
    let mut prober = cluster.load("client2", &arguments)?;
    prober.run_for_requests(100, LIMIT)?;
    Ok(prober)
}

/// Does it to the Active node, and returns who is Active then.
fn strike(cluster: &mut Cluster, fault: Fault, active: usize) -> Result<usize> {
    let node = &mut cluster.nodes[active];
    match fault {
        Fault::Crash => {
            node.host.set_cable(NIC, false)?;
            node.agent.take().context("no agent")?.kill()?;
        }
        Fault::AgentKill => node.agent.take().context("no agent")?.kill()?,
        Fault::AgentStop => node.agent()?.process().signal(Signal::SIGSTOP)?,
        Fault::Resign => drop(node.agent()?.lbctl(["vrrp", "resign"])?),
    }
    await_active(cluster, Some(active))
}

fn recover(cluster: &mut Cluster, fault: Fault, struck: usize) -> Result<()> {
    match fault {
        Fault::Crash => {
            cluster.nodes[struck].host.set_cable(NIC, true)?;
            cluster.start_agents()?;
        }
        Fault::AgentKill => cluster.start_agents()?,
        Fault::AgentStop => {
            cluster.nodes[struck].agent()?.process().signal(Signal::SIGCONT)?;
        }
        Fault::Resign => {}
    }
    let node = &mut cluster.nodes[struck];
    node.agent_mut()?.wait_until("it is Backup again", SETTLE, |status| {
        status.role == Role::Backup && status.virtual_addresses.iter().all(|vip| !vip.held)
    })?;
    cluster.settle()
}

/// Waits until exactly one of the pair, other than `but`, is Active with both VIPs.
fn await_active(cluster: &Cluster, but: Option<usize>) -> Result<usize> {
    let deadline = Instant::now() + SETTLE;
    while Instant::now() < deadline {
        let mut found = Vec::new();
        for index in PAIR.into_iter().filter(|index| Some(*index) != but) {
            let status = cluster.nodes[index].agent()?.status()?;
            if status.role == Role::Active && status.virtual_addresses.iter().all(|v| v.held) {
                found.push(index);
            }
        }
        if let [one] = found[..] {
            return Ok(one);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    bail!("nobody is Active within {SETTLE:?}")
}

/// Every client's neighbour table names the new one, and it alone answers.
fn one_owner(stage: &mut Stage, cluster: &Cluster, owner: usize, turn: usize) -> Result<()> {
    let mac = cluster.nodes[owner].host.mac(NIC)?;
    let deadline = Instant::now() + SETTLE;
    for (client, family) in [("client1", Family::V4), ("client2", Family::V6)] {
        let host = cluster.host(client)?;
        while host.neighbour(vip(family))? != Some(mac) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let known = host.neighbour(vip(family))?;
        let text = format!("run {}: {client} has learned who is Active", turn + 1);
        stage.claim(&text, known == Some(mac), format!("{known:02x?}, expected {mac:02x?}"));
    }
    Ok(())
}
