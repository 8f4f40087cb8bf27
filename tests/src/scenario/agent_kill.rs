//! `agent-kill`: SIGKILL to the holder's agent, then to all of them, each time five seconds away
//! and back, under load of every kind.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::cluster::Cluster;
use super::shape::{Family, Shape, sources};
use super::stage::Stage;
use super::tally::Tally;
use crate::backend::Mode;
use crate::client::{Arguments, Connections, Load};

/// How long the killed stay away: more than two leases.
const AWAY: Duration = Duration::from_secs(5);

const STREAMS: u32 = 12;
const LIMIT: Duration = Duration::from_secs(30);

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    let mut cluster = Cluster::start(stage, Shape::masters(&[Mode::Https]))?;
    let mut loads = start_loads(&cluster)?;
    for load in loads.iter_mut().map(|(_, load)| load) {
        load.run_for_requests(100, LIMIT)?;
    }
    for killed in [1, cluster.nodes.len()] {
        stage.step(&format!("{killed} agents are killed and stay away for {AWAY:?}"));
        for node in cluster.nodes.iter_mut().take(killed) {
            node.agent.take().context("no agent to kill")?.kill()?;
        }
        let begun = Instant::now();
        // Time away is what is tested; nothing is awaited here.
        while begun.elapsed() < AWAY {
            for (_, load) in &mut loads {
                load.run_for_requests(20, LIMIT)?;
            }
        }
        stage.step("they come back");
        cluster.start_agents()?;
        cluster.settle()?;
        for (_, load) in &mut loads {
            load.run_for_requests(100, LIMIT)?;
        }
    }
    let mut tally = Tally::default();
    tally.all_answered(stage, loads)?;
    tally.spread(stage, 3);
    tally.unbroken(stage, STREAMS);
    tally.figures(stage);
    stage.figure("away_s", AWAY.as_secs());
    Ok(())
}

fn start_loads(cluster: &Cluster) -> Result<Vec<(&'static str, Load)>> {
    let plain = |client: &str, family| Arguments {
        concurrency: 8,
        pause_ms: 10,
        source: sources(client, family),
        ..cluster.arguments(Mode::Https, family)
    };
    let kept = Arguments { streams: STREAMS, ..plain("client1", Family::V4) };
    let single = Arguments { connections: Connections::PerRequest, ..plain("client2", Family::V4) };
    let six = Arguments { connections: Connections::PerRequest, ..plain("client2", Family::V6) };
    let host = Arguments { source: Vec::new(), concurrency: 2, ..single.clone() };
    Ok(vec![
        ("client1 on kept connections", cluster.load("client1", &kept)?),
        ("client2 on new connections", cluster.load("client2", &single)?),
        ("client2 on new IPv6 connections", cluster.load("client2", &six)?),
        ("a process on master1", cluster.load("master1", &host)?),
    ])
}
