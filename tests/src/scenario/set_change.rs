//! `set-change`: a backend leaves in peace, joins again, is killed, and is taken out of the
//! configuration, all under load. Whatever happens to it, no connection to another breaks.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::cluster::{Cluster, SETTLE};
use super::shape::{Family, Shape, sources};
use super::stage::Stage;
use super::tally::Tally;
use crate::backend::Mode;
use crate::client::{Arguments, Connections, Load, Report};

/// The one that comes and goes.
const CHANGING: &str = "master2";
const REMAINING: [&str; 2] = ["master1", "master3"];

const STREAMS: u32 = 24;
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

fn await_verdict(cluster: &Cluster, accepting: bool) -> Result<()> {
    for node in &cluster.nodes {
        let what = format!("{} sees {CHANGING} accepting: {accepting}", node.host.name());
        node.agent()?.wait_for_backends(&what, SETTLE, |backends| {
            let mut changing = backends.iter().filter(|b| b.node.as_deref() == Some(CHANGING));
            changing.all(|backend| backend.accepting == accepting)
        })?;
    }
    Ok(())
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
    await_verdict(cluster, false)?;
    let report = new_ones(cluster, family)?;
    tally.answered(stage, &format!("a new {name} client without {CHANGING}"), &report);
    let reached = report.backends.contains_key(CHANGING);
    stage.claim(&format!("{name}: {CHANGING} gets no new connection"), !reached, report.summary());
    load.run_for_requests(300, LIMIT)?;
    stage.step(&format!("{CHANGING} listens again ({name})"));
    cluster.backend_mut(CHANGING, Mode::Https)?.join()?;
    await_verdict(cluster, true)?;
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
    await_verdict(cluster, false)?;
    let report = new_ones(cluster, family)?;
    tally.answered(stage, &format!("a new {name} client after the death"), &report);
    stage.step(&format!("{CHANGING}'s server is started again ({name})"));
    cluster.start_backend(CHANGING, Mode::Https)?;
    await_verdict(cluster, true)?;
    load.run_for_requests(300, LIMIT)?;
    let report = load.stop()?;
    claim_only_its_own_broke(stage, tally, &format!("{name}, {CHANGING} killed"), &report);
    Ok(())
}

/// Every agent is killed and started with a file that lacks the backend, then with one that has it.
fn configure_away(stage: &mut Stage, cluster: &mut Cluster, tally: &mut Tally) -> Result<()> {
    let mut load = kept(cluster, Family::V4)?;
    let whole = cluster.shape.clone();
    for shape in [whole.with_members(&REMAINING), whole] {
        let members = if shape.members.is_empty() { 3 } else { shape.members.len() };
        stage.step(&format!("the configuration now has {members} backends"));
        cluster.shape = shape;
        for node in &mut cluster.nodes {
            node.agent.take().context("no agent")?.kill()?;
        }
        cluster.start_agents()?;
        cluster.settle()?;
        let report = new_ones(cluster, Family::V4)?;
        tally.answered(stage, &format!("a new client of {members} backends"), &report);
        let text = format!("new connections spread over {members}");
        stage.claim(&text, report.backends.len() == members, report.summary());
        load.run_for_requests(300, LIMIT)?;
    }
    let report = load.stop()?;
    claim_only_its_own_broke(stage, tally, &format!("{CHANGING} configured away"), &report);
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
