//! `nat`: a pair of load balancers before three servers that run nothing of ours. The servers see
//! the VIP as their client; the clients see nothing unusual.

use anyhow::Result;

use super::cluster::Cluster;
use super::shape::{Family, Shape, sources, vip};
use super::stage::Stage;
use super::tally::Tally;
use crate::backend::Mode;
use crate::client::{Arguments, Connections};

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    let cluster = Cluster::start(stage, Shape::pair(&[Mode::Https, Mode::Udp]))?;
    let mut tally = Tally::default();
    for family in Family::BOTH {
        for mode in [Mode::Https, Mode::Udp] {
            for connections in [Connections::KeepAlive, Connections::PerRequest] {
                let arguments = Arguments {
                    connections,
                    concurrency: 16,
                    count: 320,
                    source: sources("client1", family),
                    ..cluster.arguments(mode, family)
                };
                let who = format!("{} {} client, {connections:?}", mode.name(), family.name());
                stage.step(&who);
                let report = cluster.complete("client1", &arguments)?;
                tally.answered(stage, &who, &report);
                let seen: Vec<_> = report.client_addresses.keys().copied().collect();
                let text = format!("servers see the VIP as the {who}");
                stage.claim(&text, seen == [vip(family)], format!("{seen:?}"));
            }
        }
    }
    tally.spread(stage, 3);
    let agent = cluster.nodes[0].agent()?;
    for counter in ["nat_new", "nat_forward", "nat_return"] {
        let value = agent.counter(counter)?;
        stage.claim(&format!("the holder counts {counter}"), value > 0, value);
        stage.figure(counter, value);
    }
    tally.figures(stage);
    Ok(())
}
