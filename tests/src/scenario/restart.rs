//! `restart-under-load`: agents are told to end and started again, and killed and started again, one after the other
//! while they elect one another. Nothing is lost: what is told to end hands over first and leaves the data path to
//! the next, what is killed leaves it as it is.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use lb_agent::control::api::Role;

use super::cluster::{Cluster, SETTLE};
use super::reload::loads;
use super::shape::{Shape, Vrrp};
use super::stage::Stage;
use super::tally::Tally;
use crate::backend::Mode;

/// Of each kind; a hundred with `--times 10`.
const ROUNDS: u64 = 10;
const STREAMS: u32 = 12;
const LIMIT: Duration = Duration::from_secs(30);
const INTERVAL: Duration = Duration::from_millis(100);

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    let shape = Shape { vrrp: Some(Vrrp { interval: INTERVAL }), ..Shape::masters(&[Mode::Https]) };
    let mut cluster = Cluster::start(stage, shape)?;
    let mut loads = loads(&cluster, STREAMS)?;
    let rounds = ROUNDS * u64::from(stage.times());
    stage.step("the agents end and come back, one after the other");
    let bar = stage.bar(2 * rounds);
    let mut starts = Vec::new();
    for round in 0..2 * rounds {
        for (_, load) in &mut loads {
            load.run_for_requests(10, LIMIT)?;
        }
        // Whoever is Active is most often struck, else it would always be the same two.
        let active = active(&cluster)?;
        let struck = if round % 3 == 2 { (active + 1) % cluster.nodes.len() } else { active };
        let agent = cluster.nodes[struck].agent.take().context("no agent")?;
        if round % 2 == 0 {
            agent.stop()?
        } else {
            agent.kill()?
        }
        let begun = Instant::now();
        cluster.start_agents()?;
        starts.push(begun.elapsed());
        cluster.settle()?;
        bar.inc(1);
    }
    for (_, load) in &mut loads {
        load.run_for_requests(50, LIMIT)?;
    }
    let mut tally = Tally::default();
    tally.all_answered(stage, loads)?;
    tally.spread(stage, 3);
    tally.unbroken(stage, 2 * STREAMS);
    tally.figures(stage);
    starts.sort_unstable();
    stage.figure("restarts", rounds);
    stage.figure("kills", rounds);
    stage.figure("start_ms_median", starts[starts.len() / 2].as_secs_f64() * 1e3);
    Ok(())
}

/// The node that holds the VIPs; after a kill that takes a moment.
fn active(cluster: &Cluster) -> Result<usize> {
    let deadline = Instant::now() + SETTLE;
    loop {
        for (index, node) in cluster.nodes.iter().enumerate() {
            let status = node.agent()?.status()?;
            if status.role == Role::Active && status.virtual_addresses.iter().all(|v| v.held) {
                return Ok(index);
            }
        }
        anyhow::ensure!(Instant::now() < deadline, "no node is Active within {SETTLE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
