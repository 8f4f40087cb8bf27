//! `mtu`: behind a router the path takes smaller packets than the servers send. They learn of it by
//! the router's ICMP errors (RFC 1191, RFC 8201), which go to the VIP: the balancer has to bring them to
//! whoever sent the packet, on another node or behind NAT. Where it does not a transfer hangs.

use anyhow::Result;

use super::cluster::Cluster;
use super::narrow_link;
use super::shape::{FAR_CLIENT, Family, NIC, ROUTER, Shape, far_router};
use super::stage::Stage;
use super::tally::Tally;
use crate::backend::Mode;

/// Above IPv6's least (1280, RFC 8200), below what everybody else has.
const NARROW: u32 = 1400;

/// What a client would say on a segment of 1500 bytes: it knows nothing of the path.
const SEGMENT: [(Family, u32); 2] = [(Family::V4, 1460), (Family::V6, 1440)];

/// Bytes of an echo that need many segments.
const BULK: u32 = 500_000;

/// One for each bucket that a client's addresses meet.
const TRANSFERS: u64 = 16;

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    // Errors about connections of this node and of others are counted apart.
    through(stage, "direct", Shape::masters(&[Mode::Tcp]), &["icmp_direct", "icmp_local"])?;
    through(stage, "nat", Shape::pair(&[Mode::Tcp]), &["icmp_nat"])?;
    narrow_link::run(stage)
}

fn through(stage: &mut Stage, delivery: &str, shape: Shape, counters: &[&str]) -> Result<()> {
    let cluster = Cluster::start(stage, Shape { far_client: true, ..shape })?;
    narrow(&cluster)?;
    let mut tally = Tally::default();
    for family in Family::BOTH {
        let who = format!("{delivery}, {}: {BULK} bytes there and back", family.name());
        stage.step(&who);
        let arguments = cluster.bulk(FAR_CLIENT, family, BULK, TRANSFERS);
        let report = cluster.complete(FAR_CLIENT, &arguments)?;
        tally.answered(stage, &who, &report);
        let name = format!("{delivery}_{}_ms", family.name().to_lowercase());
        stage.figure(&name, report.elapsed_ms.round());
    }
    tally.spread(stage, 3);
    let agent = cluster.nodes[0].agent()?;
    for counter in counters {
        let value = agent.counter(counter)?;
        stage.claim(&format!("the holder counts {counter}"), value > 0, value);
        stage.figure(counter, value);
    }
    Ok(())
}

/// Makes the router's far side narrow. The client sends no more than fits, so that only what comes
/// back meets it, and says that it takes more.
fn narrow(cluster: &Cluster) -> Result<()> {
    let (router, far) = (cluster.host(ROUTER)?.namespace(), cluster.host(FAR_CLIENT)?.namespace());
    router.ip(&format!("link set wan0 mtu {NARROW}"))?;
    far.ip(&format!("link set {NIC} mtu {NARROW}"))?;
    for (family, segment) in SEGMENT {
        let default = if family == Family::V4 { "default" } else { "::/0" };
        let via = far_router(family);
        far.ip(&format!("route replace {default} via {via} advmss {segment}"))?;
    }
    Ok(())
}
