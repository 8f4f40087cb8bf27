//! `host-clients`: processes on the nodes themselves connect to the VIP, on the holder and beside
//! it, while the VIP is held and while nobody holds it.

use anyhow::{Context as _, Result};
use lb_agent::control::api::Role;

use super::cluster::{Cluster, SETTLE};
use super::shape::{Family, NIC, Shape, target, vip};
use super::stage::Stage;
use super::tally::Tally;
use crate::backend::Mode;
use crate::client::{Arguments, Connections};

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    let mut cluster = Cluster::start(stage, Shape::masters(&[Mode::Https, Mode::Udp]))?;
    let mut tally = Tally::default();
    ask(stage, &cluster, &mut tally, "VIP held")?;
    stage.step("the role is given up");
    let holder = cluster.nodes.first_mut().context("no node")?;
    holder.agent()?.set_role(Role::Backup)?;
    holder.agent_mut()?.wait_until("the VIP is given up", SETTLE, |status| {
        status.virtual_addresses.iter().all(|vip| !vip.held)
    })?;
    for node in &cluster.nodes {
        let held =
            node.host.holds(NIC, vip(Family::V4))? || node.host.holds(NIC, vip(Family::V6))?;
        stage.claim(&format!("{} has no VIP", node.host.name()), !held, held);
    }
    ask(stage, &cluster, &mut tally, "VIP down")?;
    tally.spread(stage, 3);
    tally.figures(stage);
    Ok(())
}

fn ask(stage: &mut Stage, cluster: &Cluster, tally: &mut Tally, when: &str) -> Result<()> {
    for node in cluster.shape.node_names() {
        for family in Family::BOTH {
            for (mode, unconnected) in [(Mode::Https, false), (Mode::Udp, false), (Mode::Udp, true)]
            {
                let kind = if unconnected { " unconnected" } else { "" };
                let who = format!("{node}, {} {}{kind}, {when}", mode.name(), family.name());
                stage.step(&who);
                let arguments = Arguments {
                    connections: Connections::PerRequest,
                    concurrency: 2,
                    count: 40,
                    unconnected,
                    ..cluster.arguments(mode, family)
                };
                let report = cluster.complete(&node, &arguments)?;
                tally.answered(stage, &who, &report);
                if unconnected {
                    // Such a client fails a request itself whose answer is not the VIP's.
                    continue;
                }
                let peers: Vec<_> = report.peers.keys().copied().collect();
                let text = format!("{who}: the socket believes to talk to the VIP");
                stage.claim(&text, peers == [target(mode, family)], format!("{peers:?}"));
            }
        }
    }
    Ok(())
}
