//! `path-check`: a node whose programs are detached, though its server goes on to answer on its own address, gets no new
//! connections any more, and is told of with the reason; attached again it is back. A node whose agent has ended and left
//! its data path is left alone.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use lb_agent::control::api::{Backend, BackendState, PathState};

use super::cluster::Cluster;
use super::shape::{Family, NIC, Shape, sources};
use super::stage::Stage;
use super::tally::Tally;
use crate::backend::Mode;
use crate::client::{Arguments, Connections};
use crate::lab::Namespace;

/// Its programs are detached. It is not the one that holds the VIPs.
const BARE: &str = "master2";
const STREAMS: u32 = 8;
const REQUESTS: u64 = 200;

/// As in the configuration below.
const CHECKS: &str =
    "interval = \"300ms\"\ntimeout = \"300ms\"\nrise = 2\nfall = 2\nslow_start = \"60s\"\n";
/// It is detached just after a probe; two more come as late as they may, and the last may be waited for.
const NOTICED: Duration = Duration::from_millis(2 * 330 + 300);
/// What a busy machine may add to it.
const BUSY: Duration = Duration::from_millis(500);

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    let mut cluster = Cluster::machines(stage, Shape::masters(&[Mode::Https]))?;
    // The clients' networks alone: the nodes' probes are none of theirs.
    let list = cluster.lab.directory().join("allow.txt");
    std::fs::write(&list, "192.168.139.0/25\nfd00:139::/120\n").context("the list of clients")?;
    cluster.shape.service_keys = format!("allow_file = {list:?}\n");
    cluster.shape.checks = CHECKS.to_owned();
    cluster.start_agents()?;
    cluster.settle()?;

    let kept = |arguments| Arguments { streams: STREAMS, pause_ms: 20, ..arguments };
    let loads = cluster.loads("kept", kept)?;
    claim_served(stage, &cluster, "all are attached", true)?;
    claim_no_traces(stage, &cluster)?;

    stage.step(&format!("the programs of {BARE} are detached"));
    let begin = Instant::now();
    cluster.nodes[1].agent()?.lbctl(["detach", NIC])?;
    for node in cluster.nodes.iter().filter(|node| node.host.name() != BARE) {
        node.wait_for_verdict(false, |backend| is_on(BARE, backend))?;
    }
    let noticed = begin.elapsed();
    stage.figure("noticed_ms", noticed.as_millis() as u64);
    let text = "the others take it out after `fall` probes at most";
    stage.claim(text, noticed < NOTICED + BUSY, format!("{noticed:.0?}"));
    claim_told(stage, &cluster)?;
    claim_served(stage, &cluster, "it is detached", false)?;

    stage.step(&format!("{BARE} is attached again"));
    cluster.nodes[1].agent()?.lbctl(["attach", NIC])?;
    cluster.wait_for_verdicts(BARE, true)?;
    claim_served(stage, &cluster, "it is attached again", true)?;
    let backends = cluster.nodes[0].agent()?.backends()?;
    let states: Vec<_> = backends.iter().map(|backend| (backend.address, backend.state)).collect();
    let text = "one that was at work all the time does not start slowly";
    let warm = states.iter().all(|(_, state)| *state == BackendState::Healthy);
    stage.claim(text, warm, format!("{states:?}"));

    stage.step(&format!("the agent of {BARE} ends, and leaves its data path"));
    let before = transitions(&cluster)?;
    cluster.nodes[1].agent.take().context("its agent")?.stop()?;
    let since = Instant::now();
    while since.elapsed() < 3 * NOTICED {
        claim_served(stage, &cluster, "it has no agent", true)?;
    }
    let after = transitions(&cluster)?;
    stage.claim("without an agent it is left alone", before == after, format!("{after:?}"));

    let mut tally = Tally::default();
    tally.all_answered(stage, loads)?;
    tally.unbroken(stage, 2 * STREAMS);
    tally.figures(stage);
    Ok(())
}

fn is_on(node: &str, backend: &Backend) -> bool {
    backend.node.as_deref() == Some(node)
}

/// How often what the node that holds the VIPs thinks of the backends changed.
fn transitions(cluster: &Cluster) -> Result<Vec<u64>> {
    let backends = cluster.nodes[0].agent()?.backends()?;
    Ok(backends.iter().map(|backend| backend.transitions).collect())
}

/// What a person is told.
fn claim_told(stage: &mut Stage, cluster: &Cluster) -> Result<()> {
    let agent = cluster.nodes[0].agent()?;
    let backends = agent.backends()?;
    let its: Vec<&Backend> = backends.iter().filter(|backend| is_on(BARE, backend)).collect();
    let says = |backend: &&Backend| {
        backend.state == BackendState::Down
            && backend.path == Some(PathState::Fails)
            && backend.reason.contains("does not serve what is carried to it")
            && backend.reason.contains("By itself it is well: connected in")
    };
    let told = !its.is_empty() && its.iter().all(says);
    stage.claim("lbctl tells why", told, format!("{its:?}"));
    let others = backends.iter().filter(|backend| !is_on(BARE, backend));
    let well = others.clone().all(|backend| backend.state == BackendState::Healthy);
    let seen: Vec<_> = others.map(|backend| (backend.address, backend.state)).collect();
    stage.claim("nobody else is taken out", well, format!("{seen:?}"));
    Ok(())
}

/// Probes leave nothing half open, and nobody is blamed for them.
fn claim_no_traces(stage: &mut Stage, cluster: &Cluster) -> Result<()> {
    let (mut open, mut blamed) = (Vec::new(), 0);
    for node in &cluster.nodes {
        let counts = node.agent()?.backends()?;
        blamed += counts.iter().map(|b| b.refused + b.unanswered).sum::<u64>();
        open.push(half_open(node.host.namespace())?);
    }
    stage.claim("probes count as nobody's failure", blamed == 0, blamed);
    // One may be between its answer and its end just now.
    let few = open.iter().all(|&open| open <= 1);
    stage.claim("probes leave no connection half open", few, format!("{open:?}"));
    Ok(())
}

/// Connections in SYN-RECV in a machine.
fn half_open(namespace: &Namespace) -> Result<usize> {
    Ok(namespace.run("ss", &["-Htan", "state", "syn-recv"])?.lines().count())
}

/// New connections are served, by the one in question among others or not.
fn claim_served(stage: &mut Stage, cluster: &Cluster, when: &str, by_it: bool) -> Result<()> {
    for (client, family) in [("client1", Family::V4), ("client2", Family::V6)] {
        let arguments = Arguments {
            connections: Connections::PerRequest,
            concurrency: 8,
            count: REQUESTS,
            source: sources(client, family),
            ..cluster.arguments(Mode::Https, family)
        };
        let report = cluster.complete(client, &arguments)?;
        let its = report.backends.get(BARE).copied().unwrap_or(0);
        let holds = report.failed == 0 && (its > 0) == by_it;
        let text = format!("{when}: {BARE} gets new {} connections: {by_it}", family.name());
        stage.claim(&text, holds, report.summary());
    }
    Ok(())
}
