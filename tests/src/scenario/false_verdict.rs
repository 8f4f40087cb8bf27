//! `false-verdict`: everybody serves, but one node's checks of the others fail, as they do when its
//! agent gets no time or its link is bad. It thinks all others dead, and nobody's connection
//! breaks, whether that node holds the VIP or not.

use std::time::Duration;

use anyhow::Result;

use super::cluster::{Cluster, Node};
use super::shape::{Family, NIC, Shape, backend, sources};
use super::stage::Stage;
use super::tally::Tally;
use crate::backend::Mode;
use crate::client::{Arguments, Load};

const STREAMS: u32 = 16;
/// Where connections begin while this one does not listen, their owner is not first in rank later.
const ABSENT: &str = "master2";
const LIMIT: Duration = Duration::from_secs(30);
/// Requests under each verdict: some for each connection.
const REQUESTS: u64 = 400;

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    let mut cluster = Cluster::start(stage, Shape::masters(&[Mode::Https]))?;
    let mut loads = kept(&cluster)?;
    stage.step(&format!("{ABSENT} stops listening while more connections begin"));
    cluster.backend_mut(ABSENT, Mode::Https)?.leave()?;
    cluster.wait_for_verdicts(ABSENT, false)?;
    loads.extend(kept(&cluster)?);
    cluster.backend_mut(ABSENT, Mode::Https)?.join()?;
    cluster.wait_for_verdicts(ABSENT, true)?;
    for node in &cluster.nodes {
        let name = node.host.name();
        stage.step(&format!("{name} cannot check the others"));
        let port = backend(name, Mode::Https, Family::V4).port();
        let fault = node.host.lose_own_segments_to(NIC, port)?;
        await_others(node, false)?;
        for (_, load) in &mut loads {
            load.run_for_requests(REQUESTS, LIMIT)?;
        }
        stage.step(&format!("{name} sees the others again"));
        drop(fault);
        await_others(node, true)?;
    }
    let mut tally = Tally::default();
    for (family, load) in loads {
        let report = load.stop()?;
        tally.answered(stage, &format!("an {} client", family.name()), &report);
    }
    tally.spread(stage, 3);
    tally.unbroken(stage, 4 * STREAMS);
    tally.figures(stage);
    Ok(())
}

/// Connections and streams that last from before the first verdict until after the last.
fn kept(cluster: &Cluster) -> Result<Vec<(Family, Load)>> {
    let mut loads = Vec::new();
    for family in Family::BOTH {
        let arguments = Arguments {
            concurrency: 16,
            streams: STREAMS,
            pause_ms: 20,
            source: sources("client1", family),
            ..cluster.arguments(Mode::Https, family)
        };
        let mut load = cluster.load("client1", &arguments)?;
        load.wait_until("all streams", LIMIT, |r| r.streams.opened == u64::from(STREAMS))?;
        load.run_for_requests(100, LIMIT)?;
        loads.push((family, load));
    }
    Ok(loads)
}

/// Waits until the node thinks so of every backend on another one.
fn await_others(node: &Node, accepting: bool) -> Result<()> {
    let name = node.host.name();
    node.wait_for_verdict(accepting, |backend| backend.node.as_deref() != Some(name))
}
