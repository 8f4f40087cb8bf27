//! `migrate`: today's cluster, keepalived and nginx's stream on three masters, becomes one of ours
//! node by node, under load. A prober counts how long nobody answered in each step.
//!
//! While keepalived is Active the VIP is an address of its node, and nginx there is who answers. A node
//! without an agent takes no frames for the VIP, so until the last one has its agent its backend has no
//! weight. In this order:
//!
//! 1. master3's agent starts, with a priority below every keepalived's: nothing moves.
//! 2. master2's agent starts, with a priority above, and preempts: the VIP comes from a keepalived that
//!    still runs, so that nobody waits for a timer.
//! 3. master1's agent starts, with the highest priority and all three backends, and takes over.
//! 4. The other agents take over a file with all three backends.
//! 5. master1 resigns.
//!
//! keepalived's own planned move, measured first, costs its successor's skew, for it leaves before the
//! next one comes. No step may cost more.

use std::time::Duration;

use anyhow::{Context as _, Result};

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
/// Ours, by master. keepalived's are 100, 90 and 80.
const PRIORITIES: [(u8, u8); 3] = [(1, 120), (2, 110), (3, 70)];
const STREAMS: u32 = 12;
const LIMIT: Duration = Duration::from_secs(30);
/// Nothing waits for a timer in a move that costs no more than this: the shortest one is a skew of
/// 0.53 s. The rest is for a busy machine.
const NO_TIMER_MS: f64 = 200.0;
/// What a prober may see beyond keepalived's skew: its requests' timeout, and a busy machine.
const PROBER_MS: f64 = 100.0;

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

    let mut migration = Migration { bound_ms, steps: Vec::new() };
    let replaced = Replaced { protocol: &protocol };
    let text = "step 1, master3's agent comes as Backup";
    let prober = migration.begin(stage, &cluster, text)?;
    replaced.replace(&mut cluster, &mut masters, 3)?;
    migration.end(stage, &cluster, text, prober, 1)?;

    let text = "step 2, master2's agent takes the VIP from keepalived";
    let prober = migration.begin(stage, &cluster, text)?;
    replaced.replace(&mut cluster, &mut masters, 2)?;
    replaced.await_active(&mut cluster, 2)?;
    migration.end(stage, &cluster, text, prober, 2)?;
    let streams = open_streams(&cluster)?;

    let text = "step 3, master1's agent takes it from master2's";
    let prober = migration.begin(stage, &cluster, text)?;
    replaced.replace(&mut cluster, &mut masters, 1)?;
    replaced.await_active(&mut cluster, 1)?;
    migration.end(stage, &cluster, text, prober, 1)?;

    let text = "step 4, the others' agents take over all backends";
    let prober = migration.begin(stage, &cluster, text)?;
    for master in [2u8, 3] {
        let node = &cluster.nodes[usize::from(master) - 1];
        node.agent()?.reload_with(&replaced.configuration(1))?;
        node.wait_for_verdict(true, |backend| backend.weight > 0)?;
    }
    migration.end(stage, &cluster, text, prober, 1)?;

    let text = "step 5, master1 resigns";
    let prober = migration.begin(stage, &cluster, text)?;
    cluster.nodes[0].agent()?.lbctl(["vrrp", "hold"])?;
    replaced.await_active(&mut cluster, 2)?;
    migration.end(stage, &cluster, text, prober, 2)?;
    migration.figures(stage);
    judge_service(stage, &cluster, streams)
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
    let bound_ms = skew * 1.05 + PROBER_MS;
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

/// How nodes become ours.
struct Replaced<'a> {
    protocol: &'a Protocol,
}

impl Replaced<'_> {
    /// keepalived ends, the agent starts, nginx ends. Only master1's agent knows of all backends.
    fn replace(&self, cluster: &mut Cluster, masters: &mut [Today], master: u8) -> Result<()> {
        let index = usize::from(master) - 1;
        // Active or not: where it is, its successor's skew follows, which no step here needs.
        masters[index].end_keepalived()?;
        self.start_agent(cluster, master, u8::from(master == 1))?;
        masters[index].nginx.take().context("no nginx runs")?.end()
    }

    fn start_agent(&self, cluster: &mut Cluster, master: u8, weight: u8) -> Result<()> {
        let node = &mut cluster.nodes[usize::from(master) - 1];
        node.agent = Some(Agent::start(&node.host, &self.configuration(weight))?);
        node.wait_for_verdict(true, |backend| backend.weight > 0)
    }

    fn await_active(&self, cluster: &mut Cluster, master: u8) -> Result<()> {
        cluster.nodes[usize::from(master) - 1].agent_mut()?.wait_until_active(SETTLE).map(drop)
    }

    /// What keepalived's and nginx's files say, in ours, with the weight of master1's backend.
    fn configuration(&self, weight: u8) -> String {
        let backends: Vec<String> = (1..=MASTERS)
            .map(|n| {
                let address = backend(&format!("master{n}"), Mode::Https, Family::V4);
                let weight = if n == 1 { weight } else { 1 };
                format!("{{ address = \"{address}\", weight = {weight} }}")
            })
            .collect();
        format!(
            "{}[[service]]\nname = \"kube-apiserver\"\nport = 8443\nbackends = [{}]\n\
             [service.health]\ninterval = \"300ms\"\ntimeout = \"300ms\"\n",
            self.protocol.configuration(&PRIORITIES, true),
            backends.join(", "),
        )
    }
}

/// What a prober saw.
struct Silence {
    gap_ms: f64,
    failed: u64,
}

struct Migration {
    bound_ms: f64,
    steps: Vec<Silence>,
}

impl Migration {
    fn begin(&self, stage: &Stage, cluster: &Cluster, text: &str) -> Result<Load> {
        stage.step(text);
        probe(cluster)
    }

    /// With the VIP at a master in the end.
    fn end(
        &mut self,
        stage: &mut Stage,
        cluster: &Cluster,
        text: &str,
        prober: Load,
        master: u8,
    ) -> Result<()> {
        await_node(cluster, master)?;
        let step = finish(prober)?;
        let seen = format!("{:.1} ms, {} requests failed", step.gap_ms, step.failed);
        let within = step.gap_ms <= self.bound_ms.min(NO_TIMER_MS);
        stage.claim(&format!("{text}: nobody waits for a timer"), within, seen);
        self.steps.push(step);
        owned(stage, cluster, &format!("{text}: master{master} has the VIP"), master)
    }

    fn figures(&self, stage: &mut Stage) {
        for (step, number) in self.steps.iter().zip(1..) {
            stage.figure(&format!("gap_ms_step{number}"), rounded(step.gap_ms));
            stage.figure(&format!("requests_failed_step{number}"), step.failed);
        }
    }
}

/// Asks the VIP all the time, each time by a new connection.
fn probe(cluster: &Cluster) -> Result<Load> {
    let arguments = Arguments {
        concurrency: 4,
        connections: Connections::PerRequest,
        timeout_ms: 50,
        pause_ms: 1,
        source: sources("client1", Family::V4),
        ..cluster.arguments(Mode::Https, Family::V4)
    };
    let mut prober = cluster.load("client1", &arguments)?;
    prober.run_for_requests(50, LIMIT)?;
    Ok(prober)
}

fn finish(mut prober: Load) -> Result<Silence> {
    prober.run_for_requests(100, LIMIT)?;
    let report = prober.stop()?;
    Ok(Silence { gap_ms: report.longest_gap_ms, failed: report.failed })
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

/// In the end every master's server answers, and sees the client itself instead of nginx. Streams that
/// were opened through the first agent are still open.
fn judge_service(stage: &mut Stage, cluster: &Cluster, streams: Load) -> Result<()> {
    let report = streams.stop()?.streams;
    let seen = format!("{} of {} broken {:?}", report.broken, report.opened, report.reasons);
    let holds = report.broken == 0 && report.opened == u64::from(STREAMS);
    stage.claim("streams opened after step 2 outlive all later steps", holds, seen);
    stage.figure("streams_broken", report.broken);
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
