//! `fragments`: packets in pieces, and behind IPv6 extension headers. Datagrams of many pieces go to ordinary
//! servers on the nodes and behind NAT, and come back in pieces; every byte is compared. TCP comes with
//! destination options, so that no packet of it is a plain one.

use anyhow::Result;

use super::cluster::Cluster;
use super::shape::{Family, NIC, Shape, address, sources, target, vip};
use super::stage::Stage;
use super::tally::Tally;
use crate::backend::Mode;
use crate::client::{Arguments, Connections};
use crate::lab::Host;
use crate::packet::frame::{Frame, Kind};

/// Of datagrams: three pieces, and fourteen.
const BYTES: [u32; 2] = [4_000, 20_000];

const CLIENT: &str = "client1";

/// So many clients' packets overtake their first fragment.
const OVERTAKING: u16 = 50;

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    for mode in ["native", "generic", "tc"] {
        on_nodes(stage, mode)?;
    }
    stage.step("behind NAT");
    let cluster = Cluster::start(stage, Shape::pair(&[Mode::Udp]))?;
    let mut tally = Tally::default();
    datagrams(stage, &cluster, "nat", &mut tally)?;
    tally.spread(stage, 3);
    let forwarded = cluster.nodes[0].agent()?.counter("fragment_forward")?;
    stage.claim("following fragments are translated, both ways", forwarded > 0, forwarded);
    stage.figure("nat_fragments", forwarded);
    Ok(())
}

fn on_nodes(stage: &mut Stage, mode: &'static str) -> Result<()> {
    let modes: &[&str] = match mode {
        "native" => &["native"],
        "generic" => &["generic"],
        _ => &["tc"],
    };
    let shape = Shape { modes, ..Shape::masters(&[Mode::Tcp, Mode::Udp]) };
    let cluster = Cluster::start(stage, shape)?;
    let mut tally = Tally::default();
    datagrams(stage, &cluster, mode, &mut tally)?;
    tally.spread(stage, 3);
    for (counter, what) in [("fragment_forward", "are carried"), ("fragment_local", "stay here")] {
        let value = cluster.nodes[0].agent()?.counter(counter)?;
        stage.claim(&format!("{mode}: following fragments {what}"), value > 0, value);
        stage.figure(&format!("{mode}_{counter}"), value);
    }
    with_options(stage, &cluster, mode)?;
    overtaken(stage, &cluster, mode)
}

/// Echoes of large datagrams, both ways in pieces.
fn datagrams(stage: &mut Stage, cluster: &Cluster, what: &str, tally: &mut Tally) -> Result<()> {
    for family in Family::BOTH {
        for payload_bytes in BYTES {
            let who = format!("{what}, {}: datagrams of {payload_bytes} bytes", family.name());
            stage.step(&who);
            let arguments = Arguments {
                connections: Connections::PerRequest,
                concurrency: 4,
                count: 96,
                payload_bytes,
                source: sources(CLIENT, family),
                ..cluster.arguments(Mode::Udp, family)
            };
            let before = overtaking(cluster)?;
            let report = cluster.complete(CLIENT, &arguments)?;
            let overtaking = overtaking(cluster)? - before;
            tally.add(&report);
            let answers = report.backends.values().sum::<u64>();
            // A sender that the kernel moves to another CPU in the middle of a datagram overtakes itself.
            let holds = answers > 0 && report.failed <= overtaking;
            let text = format!("every request of {who} is answered, unless a fragment overtook");
            let seen = format!("{overtaking} overtook; {}", report.summary());
            stage.claim(&text, holds, seen);
        }
    }
    Ok(())
}

/// Following fragments that came before their first one, on any node.
fn overtaking(cluster: &Cluster) -> Result<u64> {
    cluster.nodes.iter().map(|node| node.agent()?.counter("fragment")).sum()
}

/// TCP whose every packet has destination options before its header.
fn with_options(stage: &mut Stage, cluster: &Cluster, mode: &str) -> Result<()> {
    let who = format!("{mode}: TCP behind destination options");
    stage.step(&who);
    let arguments = Arguments {
        connections: Connections::PerRequest,
        concurrency: 4,
        count: 96,
        payload_bytes: 20_000,
        destination_options: true,
        source: sources(CLIENT, Family::V6),
        ..cluster.arguments(Mode::Tcp, Family::V6)
    };
    let mut tally = Tally::default();
    tally.answered(stage, &who, &cluster.complete(CLIENT, &arguments)?);
    tally.spread(stage, 3);
    Ok(())
}

/// Fragments that overtake their first one are counted, and change nothing for others.
fn overtaken(stage: &mut Stage, cluster: &Cluster, mode: &str) -> Result<()> {
    stage.step("fragments that overtake their first one");
    let client = cluster.host(CLIENT)?;
    let holder = &cluster.nodes[0];
    let before = holder.agent()?.counter("fragment")?;
    send(client, &pieces(client, &holder.host)?)?;
    let seen = holder.agent()?.counter("fragment")? - before;
    let text = format!("{mode}: {OVERTAKING} fragments that overtake their first one are counted");
    stage.claim(&text, seen == u64::from(OVERTAKING), seen);
    stage.figure(&format!("{mode}_fragments_overtaking"), seen);
    let mut tally = Tally::default();
    datagrams(stage, cluster, &format!("{mode}, after these"), &mut tally)
}

/// Of each packet the second piece before the first.
fn pieces(client: &Host, holder: &Host) -> Result<Vec<Frame>> {
    let mac = |host: &Host| -> Result<String> {
        let bytes = host.mac(NIC)?;
        Ok(bytes.map(|byte| format!("{byte:02x}")).join(":"))
    };
    let first = Frame {
        kind: Kind::Udp,
        mac_to: mac(holder)?,
        mac_from: mac(client)?,
        from: address(CLIENT, Family::V4).to_string(),
        to: vip(Family::V4).to_string(),
        port_to: target(Mode::Udp, Family::V4).port(),
        more_fragments: true,
        ..Frame::default()
    };
    let second = Frame {
        kind: Kind::Other,
        protocol: 17,
        fragment: Some(3),
        more_fragments: false,
        ..first.clone()
    };
    let numbered = |frame: &Frame, identification| Frame { identification, ..frame.clone() };
    Ok((0..OVERTAKING).flat_map(|id| [numbered(&second, id), numbered(&first, id)]).collect())
}

fn send(host: &Host, frames: &[Frame]) -> Result<()> {
    let mut socket = host.link_socket(NIC)?;
    frames.iter().try_for_each(|frame| Ok(socket.send(&frame.bytes()?)?))
}
