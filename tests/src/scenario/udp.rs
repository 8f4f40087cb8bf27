//! `udp`: ordinary servers on the nodes, which bind their node's address and know nothing of the
//! VIP. A connected client socket takes answers from the VIP and the service's port only, so every
//! answer that arrives proves its source.

use anyhow::Result;

use super::cluster::Cluster;
use super::shape::{Family, Shape, sources};
use super::stage::Stage;
use super::tally::Tally;
use crate::backend::Mode;
use crate::client::{Arguments, Connections};

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    let cluster = Cluster::start(stage, Shape::masters(&[Mode::Udp]))?;
    let mut tally = Tally::default();
    for family in Family::BOTH {
        for unconnected in [false, true] {
            let kind = if unconnected { "unconnected" } else { "connected" };
            let who = format!("{} client, {kind}", family.name());
            stage.step(&who);
            let arguments = Arguments {
                connections: Connections::PerRequest,
                concurrency: 16,
                count: 480,
                unconnected,
                source: sources("client1", family),
                ..cluster.arguments(Mode::Udp, family)
            };
            let report = cluster.complete("client1", &arguments)?;
            tally.answered(stage, &who, &report);
            let seen = format!("{} other of {}", report.mismatched, report.requests);
            let text = format!("servers see the address of the {who}");
            stage.claim(&text, report.mismatched == 0, seen);
        }
    }
    tally.spread(stage, 3);
    tally.figures(stage);
    Ok(())
}
