//! `icmp`: the VIP answers echo requests, and packets that go no further are answered by the node, as a router
//! does. Errors about connections are the scenario `mtu`'s.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::socket::{setsockopt, sockopt};

use super::cluster::Cluster;
use super::shape::{Family, Shape, sources, target, vip};
use super::stage::Stage;
use crate::backend::Mode;
use crate::lab::Host;

const CLIENT: &str = "client1";

const ECHOES: u32 = 3;

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(2);

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    let cluster = Cluster::start(stage, Shape::masters(&[Mode::Udp]))?;
    let client = cluster.host(CLIENT)?;
    for family in Family::BOTH {
        stage.step(&format!("echo over {}", family.name()));
        let answers = client.ping(vip(family), ECHOES)?;
        let text = format!("the VIP answers {ECHOES} echo requests over {}", family.name());
        stage.claim(&text, answers == ECHOES, answers);
        stage.step(&format!("datagrams without a hop left, over {}", family.name()));
        without_a_hop(stage, &cluster, client, family)?;
    }
    Ok(())
}

/// A datagram with a TTL of 1 reaches a server of the node that it comes to. For any other server its
/// sender is told that it went no further.
fn without_a_hop(
    stage: &mut Stage,
    cluster: &Cluster,
    client: &Host,
    family: Family,
) -> Result<()> {
    let holder = cluster.nodes[0].agent()?;
    let before = holder.counter("icmp_expired")?;
    let (mut answered, mut told, mut neither) = (0u64, 0u64, 0u64);
    for source in sources(CLIENT, family) {
        let from = SocketAddr::new(source, 0);
        match client.namespace().within(|| ask(from, target(Mode::Udp, family)))? {
            Ok(()) => answered += 1,
            Err(ErrorKind::HostUnreachable) => told += 1,
            Err(_) => neither += 1,
        }
    }
    let sent = holder.counter("icmp_expired")? - before;
    let name = family.name();
    let seen = format!("{answered} answered, {told} told, {neither} neither");
    let text = format!("every {name} datagram without a hop left is answered, or its sender told");
    stage.claim(&text, answered > 0 && told > 0 && neither == 0, seen);
    stage.claim(&format!("the holder counts what it told over {name}"), sent == told, sent);
    stage.figure(&format!("{}_told", name.to_lowercase()), told);
    Ok(())
}

/// Sends one datagram with a TTL of 1: whether an answer comes, or else which error.
fn ask(from: SocketAddr, to: SocketAddr) -> Result<Result<(), ErrorKind>> {
    let socket = UdpSocket::bind(from).with_context(|| format!("bind to {from}"))?;
    socket.set_read_timeout(Some(ANSWER))?;
    if from.is_ipv4() {
        socket.set_ttl(1)?;
        // Else a time-exceeded is for traceroute alone (ip(7)).
        setsockopt(&socket, sockopt::Ipv4RecvErr, &true).context("IP_RECVERR")?;
    } else {
        setsockopt(&socket, sockopt::Ipv6Ttl, &1).context("IPV6_UNICAST_HOPS")?;
        setsockopt(&socket, sockopt::Ipv6RecvErr, &true).context("IPV6_RECVERR")?;
    }
    socket.connect(to)?;
    socket.send(b"0123456789abcdef")?;
    Ok(socket.recv(&mut [0; 2048]).map(drop).map_err(|error| error.kind()))
}
