//! `syn-flood`: clients connect while a flood of spoofed SYNs takes all that this machine can send, to the
//! load balancer, and in the same run to nginx and to haproxy as people run them.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::cluster::Cluster;
use super::shape::{self, Family, NIC, Shape, sources};
use super::stage::Stage;
use crate::backend::Mode;
use crate::client::{Arguments, Connections, Report};
use crate::lab::flood::{Flood, Sent, Target};
use crate::lab::peer::proxy::Kind;

/// SYNs that a node takes as they are.
const SYNS_PER_SECOND: u32 = 1000;

/// How long clients try, in the flood.
const TRIES_MS: u64 = 8000;
/// How long a client waits for a connection, and then for its answer. A SYN that was lost is sent again after
/// one second, and after two.
const PATIENCE_MS: u64 = 3000;
const CONCURRENCY: u32 = 8;

/// The share of tries that must succeed.
const SHARE: f64 = 0.99;

/// The flood ends by itself after this.
const FLOOD_LONGEST: Duration = Duration::from_secs(30);

const FAMILY: Family = Family::V4;

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    stage.figure("patience_ms", PATIENCE_MS);
    let ours = load_balancer(stage)?;
    let mut others = Vec::new();
    for kind in [Kind::Nginx, Kind::Haproxy] {
        others.push((kind.name(), proxy(stage, kind)?));
    }
    for (name, share) in others {
        let text = format!("as many connect as through {name}, or more");
        stage.claim(&text, ours >= share - 0.01, format!("{ours:.4} and {share:.4}"));
    }
    Ok(())
}

/// Three masters with the agent, one of them Active, each with a server.
fn shape() -> Shape {
    Shape {
        families: &[FAMILY],
        far_client: true,
        hash: "source-port",
        further: format!("\n[syn_flood]\nsyns_per_second = {SYNS_PER_SECOND}\n"),
        ..Shape::masters(&[Mode::Tcp])
    }
}

fn load_balancer(stage: &mut Stage) -> Result<f64> {
    let mut cluster = Cluster::machines(stage, shape())?;
    for node in &cluster.nodes {
        node.host.namespace().sysctl("net.ipv4.tcp_syncookies", "2")?;
        // As on every node of Kubernetes: carried SYNs are answered along the node's routes.
        node.host.namespace().sysctl("net.ipv4.ip_forward", "1")?;
    }
    stage.step("starting the agents");
    cluster.start_agents()?;
    cluster.settle()?;
    let share = measure(stage, &cluster, "lb")?;
    stage.claim(
        "99 % of the clients' connections succeed in the flood",
        share >= SHARE,
        format!("{share:.4}"),
    );
    let sum = |name: &str| -> Result<u64> {
        cluster.nodes.iter().map(|node| node.agent()?.counter(name)).sum()
    };
    for name in ["syn_cookie", "local_cookie", "syn_dropped"] {
        let count = sum(name)?;
        stage.figure(name, count);
        if name != "syn_dropped" {
            stage.claim(&format!("the nodes count {name}"), count > 0, count);
        }
    }
    Ok(share)
}

/// The same machines without the agent: the first has the address and runs the proxy.
fn proxy(stage: &mut Stage, kind: Kind) -> Result<f64> {
    let cluster = Cluster::machines(stage, shape())?;
    let _proxy = cluster.start_proxy(kind, Mode::Tcp, FAMILY)?;
    measure(stage, &cluster, kind.name())
}

/// The share of the clients' tries that succeed, first without and then with the flood.
fn measure(stage: &mut Stage, cluster: &Cluster, name: &str) -> Result<f64> {
    stage.step(&format!("{name}: clients alone"));
    let report = clients(cluster, TRIES_MS / 4)?;
    let alone = share(&report);
    stage.claim(&format!("{name}: clients alone are all served"), alone == 1.0, report.summary());
    stage.figure(&format!("{name}_alone_per_second"), per_second(&report));
    stage.step(&format!("{name}: clients beside the flood"));
    let flood = flood(cluster)?;
    let report = clients(cluster, TRIES_MS)?;
    let sent: Sent = flood.stop()?;
    let share = share(&report);
    stage.say(&format!("{name}: {share:.4} of {}", report.summary()));
    stage.figure(&format!("{name}_share"), (share * 10_000.0).round() / 10_000.0);
    stage.figure(&format!("{name}_tries"), report.requests);
    stage.figure(&format!("{name}_per_second"), per_second(&report));
    stage.figure(&format!("{name}_flood_per_second"), sent.per_second().round());
    Ok(share)
}

fn flood(cluster: &Cluster) -> Result<Flood> {
    let IpAddr::V4(address) = shape::vip(FAMILY) else { bail!("an IPv4 address") };
    let mac = cluster.nodes.first().context("no machine")?.host.mac(NIC)?;
    let port = shape::target(Mode::Tcp, FAMILY).port();
    let target = Target { mac, address, port, network: 11 };
    Flood::start(cluster.host("client2")?, NIC, target, FLOOD_LONGEST)
}

fn clients(cluster: &Cluster, duration_ms: u64) -> Result<Report> {
    let arguments = Arguments {
        connections: Connections::PerRequest,
        concurrency: CONCURRENCY,
        timeout_ms: PATIENCE_MS,
        pause_ms: 5,
        duration_ms,
        source: sources("client1", FAMILY),
        ..cluster.arguments(Mode::Tcp, FAMILY)
    };
    cluster.complete("client1", &arguments)
}

fn share(report: &Report) -> f64 {
    (report.requests - report.failed) as f64 / report.requests.max(1) as f64
}

fn per_second(report: &Report) -> f64 {
    ((report.requests - report.failed) as f64 / report.elapsed_ms * 1000.0).round()
}
