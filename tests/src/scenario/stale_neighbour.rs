//! `stale-neighbour`: a client's neighbour table names a node that does not hold the VIP. Every
//! node serves every frame; the entry even changes under running connections.

use std::time::Duration;

use anyhow::Result;

use super::cluster::Cluster;
use super::shape::{Family, NIC, Shape, sources, target, vip};
use super::stage::Stage;
use super::tally::{Tally, untranslated};
use crate::backend::Mode;
use crate::client::{Arguments, Connections};

const STREAMS: u32 = 12;
const LIMIT: Duration = Duration::from_secs(30);

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    let cluster = Cluster::start(stage, Shape::masters(&[Mode::Https]))?;
    let mut tally = Tally::default();
    for family in Family::BOTH {
        aim(stage, &cluster, &mut tally, family)?;
        change_under_load(stage, &cluster, &mut tally, family)?;
    }
    tally.spread(stage, 3);
    tally.unbroken(stage, 2 * STREAMS);
    tally.figures(stage);
    Ok(())
}

/// Every request of one run goes to one node.
fn aim(stage: &mut Stage, cluster: &Cluster, tally: &mut Tally, family: Family) -> Result<()> {
    for node in &cluster.nodes {
        let who = format!("{} client that believes in {}", family.name(), node.host.name());
        stage.step(&who);
        cluster.host("client1")?.set_neighbour(NIC, vip(family), node.host.mac(NIC)?)?;
        let arguments = Arguments {
            connections: Connections::PerRequest,
            concurrency: 4,
            count: 160,
            source: sources("client1", family),
            ..cluster.arguments(Mode::Https, family)
        };
        let report = cluster.complete("client1", &arguments)?;
        tally.answered(stage, &who, &report);
        untranslated(stage, &who, &report, target(Mode::Https, family));
    }
    Ok(())
}

/// Connections and streams go on while their frames reach one node after the other.
fn change_under_load(
    stage: &mut Stage,
    cluster: &Cluster,
    tally: &mut Tally,
    family: Family,
) -> Result<()> {
    let client = cluster.host("client2")?;
    let arguments = Arguments {
        concurrency: 8,
        streams: STREAMS,
        pause_ms: 5,
        source: sources("client2", family),
        ..cluster.arguments(Mode::Https, family)
    };
    let mut load = cluster.load("client2", &arguments)?;
    load.wait_until("all streams", LIMIT, |r| r.streams.opened == u64::from(STREAMS))?;
    for node in cluster.nodes.iter().chain(cluster.nodes.first()) {
        stage.step(&format!("{} frames now go to {}", family.name(), node.host.name()));
        client.set_neighbour(NIC, vip(family), node.host.mac(NIC)?)?;
        load.run_for_requests(300, LIMIT)?;
    }
    let report = load.stop()?;
    tally.answered(stage, &format!("{} client of changing belief", family.name()), &report);
    Ok(())
}
