//! `jumbo`: machines whose links take 9000 bytes. Native XDP gets such frames in several buffers, the stack's
//! in one; all of their bytes arrive, and count.

use anyhow::Result;

use super::cluster::Cluster;
use super::shape::{Family, Shape};
use super::stage::Stage;
use super::tally::Tally;
use crate::backend::Mode;

const MTU: u32 = 9000;
/// Bytes of an echo that need many frames, and how often.
const BULK: u32 = 2_000_000;
const TRANSFERS: u64 = 16;

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    for (modes, name) in [(&["native"], "native"), (&["generic"], "generic"), (&["tc"], "tc")] {
        through(stage, "direct", name, Shape { mtu: MTU, modes, ..Shape::masters(&[Mode::Tcp]) })?;
        through(stage, "nat", name, Shape { mtu: MTU, modes, ..Shape::pair(&[Mode::Tcp]) })?;
    }
    Ok(())
}

fn through(stage: &mut Stage, delivery: &str, mode: &str, shape: Shape) -> Result<()> {
    let cluster = Cluster::start(stage, shape)?;
    let mut tally = Tally::default();
    for family in Family::BOTH {
        let who = format!("{delivery} by {mode}, {}: {BULK} bytes there and back", family.name());
        stage.step(&who);
        let arguments = cluster.bulk("client1", family, BULK, TRANSFERS);
        tally.answered(stage, &who, &cluster.complete("client1", &arguments)?);
    }
    tally.spread(stage, 3);
    let services = cluster.nodes[0].agent()?.services()?;
    let (bytes, packets) = services
        .iter()
        .fold((0, 0), |(bytes, packets), it| (bytes + it.bytes, packets + it.packets));
    let sent = 2 * TRANSFERS * u64::from(BULK);
    let text = format!("{delivery} by {mode}: every byte of {sent} is counted");
    stage.claim(&text, bytes > sent, format!("{bytes} bytes in {packets} frames"));
    stage.figure(&format!("{delivery}_{mode}_bytes_per_frame"), bytes / packets.max(1));
    Ok(())
}
