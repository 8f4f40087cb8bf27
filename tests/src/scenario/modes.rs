//! `generic` and `tc-only`: where native XDP is not to be had. The machines' offloads are left on,
//! since these modes stand for cards with drivers of every kind: frames come up to 64 KiB large and
//! with open checksums.

use anyhow::Result;

use super::cluster::Cluster;
use super::shape::{Family, Shape, sources, target};
use super::stage::Stage;
use super::tally::{Tally, untranslated};
use crate::backend::Mode;
use crate::client::{Arguments, Connections};
use crate::lab::Offloads;

/// Bytes of an echo that need many segments.
const BULK: u32 = 2_000_000;

pub(super) fn generic(stage: &mut Stage) -> Result<()> {
    // What the agent chooses for a veth.
    run(stage, &[], "generic")
}

pub(super) fn tc_only(stage: &mut Stage) -> Result<()> {
    run(stage, &["tc"], "tc")
}

fn run(stage: &mut Stage, modes: &'static [&'static str], expected: &str) -> Result<()> {
    let services = [Mode::Https, Mode::Tcp, Mode::Udp];
    let shape = Shape { modes, offloads: Offloads::Default, ..Shape::masters(&services) };
    let cluster = Cluster::start(stage, shape)?;
    for node in &cluster.nodes {
        let interfaces = node.agent()?.status()?.interfaces;
        let attached: Vec<String> = interfaces
            .iter()
            .map(|interface| Ok(serde_json::to_string(&interface.mode)?.replace('"', "")))
            .collect::<Result<_>>()?;
        let text = format!("{} is attached by {expected}, with modes {modes:?}", node.host.name());
        stage.claim(&text, attached == [expected], format!("{attached:?}"));
    }
    let mut tally = Tally::default();
    for family in Family::BOTH {
        for mode in services {
            let who = format!("{} {} client", mode.name(), family.name());
            stage.step(&who);
            let arguments = Arguments {
                connections: Connections::PerRequest,
                concurrency: 16,
                count: 320,
                source: sources("client1", family),
                ..cluster.arguments(mode, family)
            };
            let report = cluster.complete("client1", &arguments)?;
            tally.answered(stage, &who, &report);
            if mode != Mode::Udp {
                untranslated(stage, &who, &report, target(mode, family));
            }
        }
        let who = format!("{} client, {BULK} bytes there and back", family.name());
        stage.step(&who);
        let bulk = cluster.bulk("client2", family, BULK, 16);
        let report = cluster.complete("client2", &bulk)?;
        tally.answered(stage, &who, &report);
        stage.figure(
            &format!("bulk_{}_ms", family.name().to_lowercase()),
            report.elapsed_ms.round(),
        );
    }
    tally.spread(stage, 3);
    tally.figures(stage);
    Ok(())
}
