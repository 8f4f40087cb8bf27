//! `set-change`: a backend leaves in peace, joins again, is killed, and is taken out of the
//! configuration, all under load. Whatever happens to it, no connection to another breaks.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::cluster::Cluster;
use super::shape::{Family, Shape, sources};
use super::stage::Stage;
use super::tally::Tally;
use crate::backend::Mode;
use crate::client::{Arguments, Connections, Load, Report};

/// The one that comes and goes.
const CHANGING: &str = "master2";
const REMAINING: [&str; 2] = ["master1", "master3"];

const STREAMS: u32 = 24;
/// Requests while the tables of two nodes differ: some for each connection.
const MIXED: u64 = 500;
const LIMIT: Duration = Duration::from_secs(30);

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    let mut cluster = Cluster::start(stage, Shape::masters(&[Mode::Https]))?;
    let mut tally = Tally::default();
    for family in Family::BOTH {
        leave_and_join(stage, &mut cluster, &mut tally, family)?;
        die_and_come_back(stage, &mut cluster, &mut tally, family)?;
    }
    configure_away(stage, &mut cluster, &mut tally)?;
    tally.figures(stage);
    stage.figure("broken_to_remaining", tally.broken_to_remaining);
    Ok(())
}

/// Kept connections, streams, and nothing that dies of a refused connection.
fn kept(cluster: &Cluster, family: Family) -> Result<Load> {
    let arguments = Arguments {
        concurrency: 16,
        streams: STREAMS,
        pause_ms: 10,
        source: sources("client1", family),
        ..cluster.arguments(Mode::Https, family)
    };
    let mut load = cluster.load("client1", &arguments)?;
    load.wait_until("all streams", LIMIT, |r| r.streams.opened == u64::from(STREAMS))?;
    load.run_for_requests(100, LIMIT)?;
    Ok(load)
}

/// New connections, once the agents know of a change.
fn new_ones(cluster: &Cluster, family: Family) -> Result<Report> {
    let arguments = Arguments {
        connections: Connections::PerRequest,
        concurrency: 4,
        count: 160,
        source: sources("client2", family),
        ..cluster.arguments(Mode::Https, family)
    };
    cluster.complete("client2", &arguments)
}

fn leave_and_join(
    stage: &mut Stage,
    cluster: &mut Cluster,
    tally: &mut Tally,
    family: Family,
) -> Result<()> {
    let name = family.name();
    let mut load = kept(cluster, family)?;
    stage.step(&format!("{CHANGING} stops listening ({name})"));
    cluster.backend_mut(CHANGING, Mode::Https)?.leave()?;
    cluster.wait_for_verdicts(CHANGING, false)?;
    let report = new_ones(cluster, family)?;
    tally.answered(stage, &format!("a new {name} client without {CHANGING}"), &report);
    let reached = report.backends.contains_key(CHANGING);
    stage.claim(&format!("{name}: {CHANGING} gets no new connection"), !reached, report.summary());
    load.run_for_requests(300, LIMIT)?;
    stage.step(&format!("{CHANGING} listens again ({name})"));
    cluster.backend_mut(CHANGING, Mode::Https)?.join()?;
    cluster.wait_for_verdicts(CHANGING, true)?;
    let report = new_ones(cluster, family)?;
    tally.answered(stage, &format!("a new {name} client with {CHANGING} again"), &report);
    let reached = report.backends.contains_key(CHANGING);
    stage.claim(&format!("{name}: {CHANGING} gets its share again"), reached, report.summary());
    load.run_for_requests(300, LIMIT)?;
    let report = load.stop()?;
    let whole = report.failed == 0 && report.streams.broken == 0;
    let text = format!("{name}: no connection breaks, those of {CHANGING} included");
    stage.claim(&text, whole, report.summary());
    tally.add(&report);
    Ok(())
}

fn die_and_come_back(
    stage: &mut Stage,
    cluster: &mut Cluster,
    tally: &mut Tally,
    family: Family,
) -> Result<()> {
    let name = family.name();
    let mut load = kept(cluster, family)?;
    stage.step(&format!("{CHANGING}'s server is killed ({name})"));
    let key = (CHANGING.to_owned(), Mode::Https);
    cluster.backends.remove(&key).context("no server to kill")?.kill()?;
    cluster.wait_for_verdicts(CHANGING, false)?;
    let report = new_ones(cluster, family)?;
    tally.answered(stage, &format!("a new {name} client after the death"), &report);
    stage.step(&format!("{CHANGING}'s server is started again ({name})"));
    cluster.start_backend(CHANGING, Mode::Https)?;
    cluster.wait_for_verdicts(CHANGING, true)?;
    load.run_for_requests(300, LIMIT)?;
    let report = load.stop()?;
    claim_only_its_own_broke(stage, tally, &format!("{name}, {CHANGING} killed"), &report);
    Ok(())
}

/// The file changes, first to one that lacks the backend, then back: on one node after the other, as
/// people roll it out, so that the nodes' tables differ in between; then on all of them at once.
fn configure_away(stage: &mut Stage, cluster: &mut Cluster, tally: &mut Tally) -> Result<()> {
    let all: Vec<usize> = (0..cluster.nodes.len()).collect();
    let one_by_one: Vec<&[usize]> = all.chunks(1).collect();
    let whole = cluster.shape.clone();
    for (how, groups) in [("one by one", one_by_one), ("all at once", vec![&all[..]])] {
        let mut load = kept(cluster, Family::V4)?;
        for shape in [whole.with_members(&REMAINING), whole.clone()] {
            cluster.shape = shape;
            for group in &groups {
                reconfigure(stage, cluster, group)?;
                load.run_for_requests(MIXED, LIMIT)?;
            }
            spread_over_members(stage, cluster, tally)?;
        }
        let report = load.stop()?;
        let when = format!("{CHANGING} configured away {how}");
        claim_only_its_own_broke(stage, tally, &when, &report);
    }
    Ok(())
}

/// Kills the agents of some nodes and starts them with the cluster's present file.
fn reconfigure(stage: &mut Stage, cluster: &mut Cluster, nodes: &[usize]) -> Result<()> {
    for &index in nodes {
        let node = &mut cluster.nodes[index];
        stage.step(&format!("{} gets another file", node.host.name()));
        node.agent.take().context("no agent")?.kill()?;
    }
    cluster.start_agents()?;
    cluster.settle()
}

fn spread_over_members(stage: &mut Stage, cluster: &Cluster, tally: &mut Tally) -> Result<()> {
    let configured = &cluster.shape.members;
    let members = if configured.is_empty() { cluster.nodes.len() } else { configured.len() };
    let report = new_ones(cluster, Family::V4)?;
    tally.answered(stage, &format!("a new client of {members} backends"), &report);
    let text = format!("new connections spread over {members}");
    stage.claim(&text, report.backends.len() == members, report.summary());
    Ok(())
}

fn claim_only_its_own_broke(stage: &mut Stage, tally: &mut Tally, when: &str, report: &Report) {
    let streams = &report.streams.broken_backends;
    let of_others = |broken: &BTreeMap<String, u64>| -> u64 {
        REMAINING.iter().filter_map(|name| broken.get(*name)).sum()
    };
    let others = of_others(&report.broken) + of_others(streams);
    let seen = format!("{:?} and streams {streams:?}; {}", report.broken, report.summary());
    stage.claim(&format!("{when}: no connection to another breaks"), others == 0, &seen);
    tally.broken_to_remaining += others;
}
