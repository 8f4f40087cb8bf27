//! `migrate`: today's cluster, keepalived and nginx's stream on three masters, becomes one of ours
//! node by node, under load. A prober counts how long nobody answered in each step.
//!
//! While keepalived is Active the VIP is an address of its node, and nginx there is who answers. The
//! priorities of ours are above keepalived's, and ours preempts: the first agent takes the VIP from a
//! keepalived that still runs, and from then on only agents hand it to one another. keepalived's own
//! moves, measured first, cost what its successor's skew is: it leaves before the next one comes.

use std::time::Duration;

use anyhow::{Context as _, Result};
use lb_agent::control::api::Role;

use super::cluster::{Cluster, SETTLE};
use super::owner::{await_owner, one_answers};
use super::shape::{Family, NIC, Shape, backend, sources, vip};
use super::stage::Stage;
use super::tally::rounded;
use super::wire::Protocol;
use crate::backend::Mode;
use crate::client::{Arguments, Connections, Load};
use crate::lab::Host;
use crate::lab::agent::Agent;
use crate::lab::peer::keepalived::Keepalived;
use crate::lab::peer::nginx::Nginx;
use crate::lab::peer::today;

const MASTERS: u8 = 3;
/// Ours, by master: above all of keepalived's, and in the same order.
const PRIORITIES: [(u8, u8); 3] = [(1, 130), (2, 120), (3, 110)];
const STREAMS: u32 = 12;
const LIMIT: Duration = Duration::from_secs(30);
/// Nothing waits for a timer in a move that costs no more than this.
const NO_TIMER_MS: f64 = 100.0;

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    let mut cluster = Cluster::machines(stage, Shape::masters(&[Mode::Https]))?;
    stage.step("keepalived and nginx start on all masters");
    let mut masters = Vec::new();
    for master in 1..=MASTERS {
        masters.push(Today::start(&cluster.nodes[usize::from(master) - 1].host, master)?);
    }
    let protocol = Protocol {
        router_id: today::ROUTER_ID,
        version: 2,
        interval: Duration::from_secs(today::INTERVAL_S),
        unicast: false,
        password: Some(today::PASSWORD),
        families: &[Family::V4],
    };
    await_node(&cluster, 1)?;
    owned(stage, &cluster, "today keepalived of master1 has the VIP", 1)?;
    let bound_ms = measure_keepalived(stage, &cluster, &mut masters, &protocol)?;

    let mut migration = Migration { bound_ms, gaps_ms: Vec::new(), failed: Vec::new() };
    let mut streams = None;
    for master in (1..=MASTERS).rev() {
        let text = format!("step {}: master{master} is replaced", MASTERS + 1 - master);
        stage.step(&text);
        let prober = probe(&cluster)?;
        replace(&mut cluster, &mut masters, &protocol, master)?;
        migration.note(stage, &text, prober)?;
        owned(stage, &cluster, &format!("{text}, and has the VIP"), master)?;
        if streams.is_none() {
            streams = Some(open_streams(&cluster)?);
        }
    }
    let text = "step 4: master1 resigns";
    stage.step(text);
    let prober = probe(&cluster)?;
    cluster.nodes[0].agent()?.lbctl(["vrrp", "hold"])?;
    await_node(&cluster, 2)?;
    migration.note(stage, text, prober)?;
    owned(stage, &cluster, &format!("{text}, and master2 has the VIP"), 2)?;

    migration.figures(stage);
    let report = streams.context("no streams")?.stop()?.streams;
    let seen = format!("{} of {} broken {:?}", report.broken, report.opened, report.reasons);
    let holds = report.broken == 0 && report.opened == u64::from(STREAMS);
    stage.claim("streams opened after the first step outlive all others", holds, seen);
    judge_service(stage, &cluster)
}

/// What a master runs before.
struct Today {
    keepalived: Option<Keepalived>,
    nginx: Option<Nginx>,
    file: String,
}

impl Today {
    fn start(host: &Host, master: u8) -> Result<Self> {
        let nginx = Nginx::start(host)?;
        let file = today::keepalived(master, false, &nginx.check()?)?;
        let keepalived = Some(Keepalived::start(host, &file)?);
        Ok(Self { keepalived, nginx: Some(nginx), file })
    }

    fn end_keepalived(&mut self) -> Result<()> {
        self.keepalived.take().context("no keepalived runs")?.end()
    }
}

/// What its planned moves cost, away from master1 and back. Returns the bound for every step: the
/// skew of its successor, and what a busy machine adds.
fn measure_keepalived(
    stage: &mut Stage,
    cluster: &Cluster,
    masters: &mut [Today],
    protocol: &Protocol,
) -> Result<f64> {
    stage.step("keepalived of master1 ends, for comparison");
    let prober = probe(cluster)?;
    masters[0].end_keepalived()?;
    await_node(cluster, 2)?;
    let away = finish(prober)?;
    let skew = protocol.skew(today::priority(2)).as_secs_f64() * 1000.0;
    let bound_ms = skew * 1.05 + NO_TIMER_MS;
    let seen = format!("{:.0} ms, its successor's skew is {skew:.0} ms", away.gap_ms);
    stage.claim("keepalived's own move costs the skew", away.gap_ms >= skew * 0.9, seen);
    stage.figure("keepalived_gap_ms", rounded(away.gap_ms));

    stage.step("and comes back");
    let prober = probe(cluster)?;
    let host = &cluster.nodes[0].host;
    masters[0].keepalived = Some(Keepalived::start(host, &masters[0].file)?);
    await_node(cluster, 1)?;
    stage.figure("keepalived_back_gap_ms", rounded(finish(prober)?.gap_ms));
    Ok(bound_ms)
}

/// keepalived ends, the agent starts and takes the VIP, nginx ends.
fn replace(
    cluster: &mut Cluster,
    masters: &mut [Today],
    protocol: &Protocol,
    master: u8,
) -> Result<()> {
    let index = usize::from(master) - 1;
    masters[index].end_keepalived()?;
    let configuration = format!("{}{}", protocol.configuration(&PRIORITIES, true), service());
    let node = &mut cluster.nodes[index];
    node.agent = Some(Agent::start(&node.host, &configuration)?);
    node.wait_for_verdict(true, |_| true)?;
    node.agent_mut()?.wait_until("the agent has the VIP", SETTLE, |status| {
        status.role == Role::Active && status.virtual_addresses.iter().all(|vip| vip.held)
    })?;
    await_node(cluster, master)?;
    masters[index].nginx.take().context("no nginx runs")?.end()
}

/// What nginx's file says, in ours.
fn service() -> String {
    let backends: Vec<String> = (1..=MASTERS)
        .map(|n| backend(&format!("master{n}"), Mode::Https, Family::V4).to_string())
        .collect();
    format!(
        "[[service]]\nname = \"kube-apiserver\"\nport = 8443\nbackends = {backends:?}\n\
         [service.health]\ninterval = \"300ms\"\ntimeout = \"300ms\"\n"
    )
}

struct Step {
    gap_ms: f64,
    failed: u64,
}

struct Migration {
    bound_ms: f64,
    gaps_ms: Vec<f64>,
    failed: Vec<u64>,
}

impl Migration {
    fn note(&mut self, stage: &mut Stage, text: &str, prober: Load) -> Result<()> {
        let step = finish(prober)?;
        let seen = format!("{:.1} ms, {} requests failed", step.gap_ms, step.failed);
        let within = step.gap_ms <= self.bound_ms;
        stage.claim(&format!("{text} at no more than keepalived's own cost"), within, &seen);
        stage.claim(
            &format!("{text} without waiting for a timer"),
            step.gap_ms <= NO_TIMER_MS,
            seen,
        );
        self.gaps_ms.push(rounded(step.gap_ms));
        self.failed.push(step.failed);
        Ok(())
    }

    fn figures(self, stage: &mut Stage) {
        for (gap_ms, number) in self.gaps_ms.iter().zip(1..) {
            stage.figure(&format!("gap_ms_step{number}"), *gap_ms);
        }
        stage.figure("gap_ms", self.gaps_ms);
        stage.figure("requests_failed", self.failed);
    }
}

/// Asks the VIP all the time, each time by a new connection.
fn probe(cluster: &Cluster) -> Result<Load> {
    let arguments = Arguments {
        concurrency: 2,
        connections: Connections::PerRequest,
        timeout_ms: 60,
        pause_ms: 1,
        source: sources("client1", Family::V4),
        ..cluster.arguments(Mode::Https, Family::V4)
    };
    let mut prober = cluster.load("client1", &arguments)?;
    prober.run_for_requests(50, LIMIT)?;
    Ok(prober)
}

fn finish(mut prober: Load) -> Result<Step> {
    prober.run_for_requests(100, LIMIT)?;
    let report = prober.stop()?;
    Ok(Step { gap_ms: report.longest_gap_ms, failed: report.failed })
}

fn open_streams(cluster: &Cluster) -> Result<Load> {
    let arguments = Arguments {
        streams: STREAMS,
        pause_ms: 50,
        source: sources("client1", Family::V4),
        ..cluster.arguments(Mode::Https, Family::V4)
    };
    let mut load = cluster.load("client1", &arguments)?;
    load.wait_until("all streams", LIMIT, |r| r.streams.opened == u64::from(STREAMS))?;
    Ok(load)
}

fn await_node(cluster: &Cluster, master: u8) -> Result<()> {
    let mac = cluster.host(&format!("master{master}"))?.mac(NIC)?;
    await_owner(cluster.host("client2")?, vip(Family::V4), mac, LIMIT)
}

fn owned(stage: &mut Stage, cluster: &Cluster, text: &str, master: u8) -> Result<()> {
    let mac = cluster.host(&format!("master{master}"))?.mac(NIC)?;
    one_answers(stage, text, cluster.host("client2")?, vip(Family::V4), mac)
}

/// In the end every master's server answers, and sees the client itself instead of nginx.
fn judge_service(stage: &mut Stage, cluster: &Cluster) -> Result<()> {
    let arguments = Arguments {
        connections: Connections::PerRequest,
        count: 64,
        source: sources("client1", Family::V4),
        ..cluster.arguments(Mode::Https, Family::V4)
    };
    let report = cluster.complete("client1", &arguments)?;
    let holds = report.failed == 0 && report.backends.len() == usize::from(MASTERS);
    stage.claim("every backend answers in the end", holds, report.summary());
    let seen = format!("{} of {} see another one", report.mismatched, report.requests);
    stage.claim("the backends see the clients' own addresses", report.mismatched == 0, seen);
    Ok(())
}
