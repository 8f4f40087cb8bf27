//! `direct` and `ipv6`: three nodes, each with a backend. The capture on the holder's wire is the
//! proof that frames are carried, not translated, and that replies do not come back through it.

use anyhow::Result;

use super::cluster::Cluster;
use super::passage::Passage;
use super::shape::{FAR_CLIENT, Family, NIC, Shape, address, sources, target};
use super::stage::Stage;
use super::tally::{Tally, untranslated};
use crate::backend::Mode;
use crate::client::{Arguments, Connections};

pub(super) fn ipv4(stage: &mut Stage) -> Result<()> {
    carry(stage, Family::V4)
}

pub(super) fn ipv6(stage: &mut Stage) -> Result<()> {
    carry(stage, Family::V6)
}

fn carry(stage: &mut Stage, family: Family) -> Result<()> {
    let shape = Shape { far_client: true, ..Shape::masters(&[Mode::Https, Mode::Tcp]) };
    let cluster = Cluster::start(stage, shape)?;
    let holder = cluster.host("master1")?;
    let (vip, mac) = (target(Mode::Https, family), holder.mac(NIC)?);
    let plain = cluster.arguments(Mode::Https, family);
    let mut tally = Tally::default();

    stage.step("clients on the segment and behind a router ask the VIP");
    let capture = holder.capture(NIC)?;
    let single = Arguments {
        connections: Connections::PerRequest,
        concurrency: 4,
        count: 320,
        ..plain.clone()
    };
    for client in ["client1", FAR_CLIENT] {
        let arguments = Arguments { source: sources(client, family), ..single.clone() };
        let report = cluster.complete(client, &arguments)?;
        tally.answered(stage, client, &report);
        untranslated(stage, client, &report, vip);
    }
    let kept =
        Arguments { source: sources("client2", family), concurrency: 16, count: 480, ..plain };
    let report = cluster.complete("client2", &kept)?;
    tally.answered(stage, "client2 on kept connections", &report);
    untranslated(stage, "client2", &report, vip);
    let nodes: Vec<_> = cluster.shape.node_names().iter().map(|n| address(n, family)).collect();
    let passage = Passage::of(&capture.stop()?, mac, vip, &nodes);

    use_ports_again(stage, &cluster, &mut tally, family)?;
    tally.spread(stage, 3);
    let seen = format!("{passage:?}");
    stage.claim("the holder carries frames to the others", passage.carried > 0, &seen);
    stage.claim("no byte of an IP payload changes", passage.changed == 0, &seen);
    stage.claim("the TTL goes down by one", passage.wrong_ttl == 0, &seen);
    stage.claim(
        "no reply of another backend passes the holder",
        passage.foreign_replies == 0,
        &seen,
    );
    stage.claim("the holder serves its own share", passage.own_replies > 0, &seen);
    tally.figures(stage);
    stage.figure("frames_arrived", passage.arrived);
    stage.figure("frames_carried", passage.carried);
    stage.figure("payloads_changed", passage.changed);
    stage.figure("replies_through_holder", passage.foreign_replies);
    Ok(())
}

/// A client whose connections follow one another on one port, each while the server's end of the
/// last one is in TIME-WAIT.
fn use_ports_again(
    stage: &mut Stage,
    cluster: &Cluster,
    tally: &mut Tally,
    family: Family,
) -> Result<()> {
    stage.step("a client uses one port again and again");
    let sources = sources("client1", family);
    let count = 5 * sources.len() as u64;
    let arguments = Arguments {
        connections: Connections::PerRequest,
        count,
        same_port: true,
        source: sources,
        ..cluster.arguments(Mode::Tcp, family)
    };
    let report = cluster.complete("client1", &arguments)?;
    tally.answered(stage, "a client that uses one port again", &report);
    let seen = format!("longest silence {:.1} ms", report.longest_gap_ms);
    // A SYN sent again would cost a second.
    stage.claim("without waiting for a timeout", report.longest_gap_ms < 900.0, seen);
    Ok(())
}
