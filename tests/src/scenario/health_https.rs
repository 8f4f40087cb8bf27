//! `health-https`: what a server says about itself counts, and not only that it listens. One that says at
//! `/readyz` that it is not well gets no new clients and keeps those that it has, until it is well again.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use lb_agent::control::api::Uses;

use super::cluster::{Cluster, SETTLE};
use super::shape::{Family, Shape, sources};
use super::stage::Stage;
use super::tally::Tally;
use crate::backend::Mode;
use crate::client::{Arguments, Connections};
use crate::lab::certificate::Certificate;

const SICK: &str = "master2";
const STREAMS: u32 = 8;
const REQUESTS: u64 = 200;

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    let mut cluster = Cluster::machines(stage, Shape::masters(&[Mode::Https]))?;
    // The agents' own, which is to be replaced: the clients go on with the right one.
    let right = cluster.certificate.authority.clone();
    let authority = cluster.lab.directory().join("checked-by.crt");
    std::fs::copy(&right, &authority).context("the authority's certificate")?;
    let mut checks = "interval = \"200ms\"\nfall = 2\nhttps = \"/readyz\"\n".to_owned();
    let _ = writeln!(checks, "ca_file = {authority:?}");
    cluster.shape.checks = checks;
    cluster.start_agents()?;
    cluster.settle()?;
    claim_reasons(stage, &cluster, "the servers say that they are well", "200 OK in ")?;
    let kept = |arguments| Arguments { streams: STREAMS, pause_ms: 20, ..arguments };
    let loads = cluster.loads("kept", kept)?;
    claim_served(stage, &cluster, "all is well", true)?;

    stage.step(&format!("{SICK} says that it is not well"));
    cluster.backend_mut(SICK, Mode::Https)?.say_well(false)?;
    cluster.wait_for_verdicts(SICK, false)?;
    let said = "/readyz answered 500 Internal Server Error: [-]etcd failed: reason withheld";
    claim_reasons_of(stage, &cluster, SICK, "what it says is told", said)?;
    claim_served(stage, &cluster, "it is not well", false)?;

    stage.step(&format!("{SICK} is well again"));
    cluster.backend_mut(SICK, Mode::Https)?.say_well(true)?;
    cluster.wait_for_verdicts(SICK, true)?;
    claim_served(stage, &cluster, "it is well again", true)?;

    stage.step("another authority's certificate takes the place of the right one");
    let folder = cluster.lab.directory().join("another");
    std::fs::create_dir(&folder).context("a folder for another authority")?;
    let another = Certificate::create(&folder, &[])?;
    std::fs::rename(&another.authority, &authority).context("the other authority's certificate")?;
    let said = "0 of 3 backends are healthy, fewer than minimum_healthy = 1: all are used; no TLS: its certificate \
                is from an authority that is not trusted here";
    claim_reasons(stage, &cluster, "whom nobody vouches for is not believed, but used", said)?;
    claim_served(stage, &cluster, "nobody is believed", true)?;
    claim_told(stage, &cluster)?;
    // Beside it, and then in its place: no check is to see half a file.
    std::fs::copy(&right, folder.join("right")).context("the right certificate")?;
    std::fs::rename(folder.join("right"), &authority).context("the right certificate")?;
    for node in cluster.shape.node_names() {
        claim_reasons_of(stage, &cluster, &node, "the right one is back", "200 OK in ")?;
    }
    claim_served(stage, &cluster, "the right one is back", true)?;

    let mut tally = Tally::default();
    tally.all_answered(stage, loads)?;
    tally.unbroken(stage, 2 * STREAMS);
    tally.figures(stage);
    Ok(())
}

/// New connections are served, by the sick one among others or not.
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
        let its = report.backends.get(SICK).copied().unwrap_or(0);
        let holds = report.failed == 0 && (its > 0) == by_it;
        let text = format!("{when}: {SICK} gets new {} connections: {by_it}", family.name());
        stage.claim(&text, holds, report.summary());
    }
    Ok(())
}

/// That checks are not believed is said.
fn claim_told(stage: &mut Stage, cluster: &Cluster) -> Result<()> {
    let agent = cluster.nodes[0].agent()?;
    let services = agent.services()?;
    let all = services.iter().all(|s| s.uses == Uses::Everybody && s.healthy == 0);
    stage.claim("services say that all their backends are used", all, format!("{services:?}"));
    let warnings = agent.status()?.warnings;
    let warned = warnings.iter().any(|warning| warning.contains("minimum_healthy = 1"));
    stage.claim("`lbctl status` warns of it", warned, format!("{warnings:?}"));
    Ok(())
}

fn claim_reasons(stage: &mut Stage, cluster: &Cluster, text: &str, said: &str) -> Result<()> {
    for node in cluster.shape.node_names() {
        claim_reasons_of(stage, cluster, &node, &format!("{text}: {node}"), said)?;
    }
    Ok(())
}

/// The first node says this of the backends on a node.
fn claim_reasons_of(
    stage: &mut Stage,
    cluster: &Cluster,
    on: &str,
    text: &str,
    said: &str,
) -> Result<()> {
    let agent = cluster.nodes[0].agent()?;
    let of = |backends: &[lb_agent::control::api::Backend]| -> Vec<String> {
        let here = backends.iter().filter(|backend| backend.node.as_deref() == Some(on));
        here.map(|backend| backend.reason.clone()).collect()
    };
    let says = |reasons: &[String]| {
        !reasons.is_empty() && reasons.iter().all(|reason| reason.starts_with(said))
    };
    agent.wait_for_backends(text, SETTLE, |backends| says(&of(backends)))?;
    let reasons = of(&agent.backends()?);
    stage.claim(text, says(&reasons), format!("{reasons:?}"));
    Ok(())
}
