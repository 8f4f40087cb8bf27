//! `role-move`: the role is moved by hand around the nodes, under load and open streams.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::cluster::Cluster;
use super::shape::{Family, NIC, Shape, sources, vip};
use super::stage::Stage;
use super::tally::Tally;
use crate::backend::Mode;
use crate::client::{Arguments, Connections};

const STREAMS: u32 = 12;
const LIMIT: Duration = Duration::from_secs(30);

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    let mut cluster = Cluster::start(stage, Shape::masters(&[Mode::Https]))?;
    let mut loads = Vec::new();
    for (client, family) in [("client1", Family::V4), ("client2", Family::V6)] {
        let kept = Arguments {
            concurrency: 8,
            streams: STREAMS,
            stream_interval_ms: 5,
            pause_ms: 5,
            source: sources(client, family),
            ..cluster.arguments(Mode::Https, family)
        };
        let single = Arguments { streams: 0, connections: Connections::PerRequest, ..kept.clone() };
        for (kind, arguments) in [("kept", kept), ("new", single)] {
            let who = format!("{client} on {kind} {} connections", family.name());
            loads.push((who, cluster.load(client, &arguments)?));
        }
    }
    for (_, load) in &mut loads {
        load.run_for_requests(100, LIMIT)?;
    }
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        stage.step(&format!("the role moves from master{} to master{}", from + 1, to + 1));
        cluster.move_role(from, to)?;
        for (_, load) in &mut loads {
            load.run_for_requests(200, LIMIT)?;
        }
        check_holder(stage, &cluster, to)?;
    }
    let mut tally = Tally::default();
    tally.all_answered(stage, loads)?;
    tally.spread(stage, 3);
    tally.unbroken(stage, 2 * STREAMS);
    tally.figures(stage);
    Ok(())
}

/// One node has the address, and the clients' neighbour tables name it.
fn check_holder(stage: &mut Stage, cluster: &Cluster, holder: usize) -> Result<()> {
    let expected = cluster.nodes.get(holder).context("no such node")?;
    let name = expected.host.name();
    for (client, family) in [("client1", Family::V4), ("client2", Family::V6)] {
        let mut holders = Vec::new();
        for node in &cluster.nodes {
            if node.host.holds(NIC, vip(family))? {
                holders.push(node.host.name());
            }
        }
        let text = format!("{name} alone has the {} VIP", family.name());
        stage.claim(&text, holders == [name], format!("{holders:?}"));
        let mac = cluster.host(client)?.neighbour(vip(family))?;
        let text = format!("{client} has learned that {name} has it");
        stage.claim(&text, mac == Some(expected.host.mac(NIC)?), format!("{mac:02x?}"));
    }
    Ok(())
}
