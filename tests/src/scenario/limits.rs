//! `limits`: what a service refuses by who asks: lists with a million prefixes, rates of new connections,
//! and how many a source has at one time. Who is meant is refused, and nobody else.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::cluster::Cluster;
use super::shape::{Family, Shape, sources};
use super::stage::Stage;
use crate::backend::Mode;
use crate::client::{Arguments, Connections, Load, Report};

/// Prefixes in the list of those that nobody here has.
const PREFIXES: u32 = 1_000_000;

/// The eight addresses of client1 that are denied, in either family.
const DENIED: [&str; 2] = ["192.168.139.24/29", "fd00:139::28/125"];
const DENIED_FIRST: [usize; 2] = [4, 8];
const DENIED_COUNT: usize = 8;

/// All addresses of client2.
const ALLOWED: [&str; 3] = ["192.168.139.40/29", "192.168.139.48/29", "fd00:139::40/124"];

/// Below a second, after which a SYN is sent again: each try is one SYN.
const PATIENCE_MS: u64 = 300;

const PER_SECOND: u64 = 20;
const BURST: u64 = 40;
const RATED_MS: u64 = 5000;

/// Connections of a source at one time.
const AT_ONCE: u32 = 10;

const LIMIT: Duration = Duration::from_secs(30);

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    let mut cluster = Cluster::machines(stage, Shape::masters(&[Mode::Tcp]))?;
    denied_by_a_million(stage, &mut cluster)?;
    cut_off(stage, &mut cluster)?;
    allowed_only(stage, &mut cluster)?;
    rated(stage, &mut cluster)?;
    concurrent(stage, &mut cluster)?;
    Ok(())
}

/// A file of prefixes in the lab's directory.
fn list(cluster: &Cluster, name: &str, prefixes: &[&str], further: u32) -> Result<PathBuf> {
    let mut text = format!("# {name}\n");
    for prefix in prefixes {
        let _ = writeln!(text, "{prefix}  # named");
    }
    for number in 0..further {
        let address = std::net::Ipv4Addr::from_bits(0x0a00_0000 | number << 4);
        let _ = writeln!(text, "{address}");
    }
    let path = cluster.lab.directory().join(name);
    std::fs::write(&path, text).context("cannot write a list")?;
    Ok(path)
}

fn key(name: &str, path: &Path) -> String {
    format!("{name} = {path:?}\n")
}

/// Kills the agents and starts them with these keys and tables in every service.
fn reconfigure(cluster: &mut Cluster, keys: String, tables: String) -> Result<Duration> {
    for node in &mut cluster.nodes {
        if let Some(agent) = node.agent.take() {
            agent.kill()?;
        }
    }
    cluster.shape.service_keys = keys;
    cluster.shape.service_tables = tables;
    let began = Instant::now();
    cluster.start_agents()?;
    let took = began.elapsed();
    cluster.settle()?;
    Ok(took)
}

/// Connections from these addresses, each for one request.
fn tries(source: Vec<IpAddr>, cluster: &Cluster, family: Family) -> Arguments {
    Arguments {
        connections: Connections::PerRequest,
        timeout_ms: PATIENCE_MS,
        concurrency: 8,
        count: 64,
        source,
        ..cluster.arguments(Mode::Tcp, family)
    }
}

fn counter(cluster: &Cluster, name: &str) -> Result<u64> {
    cluster.nodes[0].agent()?.counter(name)
}

fn claim_refused(stage: &mut Stage, who: &str, report: &Report) {
    let answered = report.requests - report.failed;
    stage.claim(
        &format!("{who} get nothing"),
        answered == 0 && report.failed > 0,
        report.summary(),
    );
}

fn claim_served(stage: &mut Stage, who: &str, report: &Report) {
    let served = report.failed == 0 && report.requests > 0;
    stage.claim(&format!("{who} are served"), served, report.summary());
}

fn denied_by_a_million(stage: &mut Stage, cluster: &mut Cluster) -> Result<()> {
    let path = list(cluster, "deny.txt", &DENIED, PREFIXES)?;
    stage.step(&format!("starting the agents with {PREFIXES} denied prefixes"));
    let took = reconfigure(cluster, key("deny_file", &path), String::new())?;
    stage.figure("prefixes", PREFIXES);
    stage.figure("start_with_prefixes_ms", took.as_millis() as u64);
    for (family, first) in Family::BOTH.into_iter().zip(DENIED_FIRST) {
        let name = family.name();
        let mut others = sources("client1", family);
        let denied: Vec<IpAddr> = others.drain(first..first + DENIED_COUNT).collect();
        stage.step(&format!("denied and other addresses of one machine ({name})"));
        let before = counter(cluster, "denied")?;
        let report = cluster.complete("client1", &tries(denied, cluster, family))?;
        claim_refused(stage, &format!("denied {name} addresses"), &report);
        let dropped = counter(cluster, "denied")? - before;
        let text = format!("every SYN of theirs is counted as denied ({name})");
        stage.claim(&text, dropped >= report.failed, dropped);
        stage.figure(&format!("denied_{}", name.to_lowercase()), dropped);
        let report = cluster.complete("client1", &tries(others, cluster, family))?;
        claim_served(stage, &format!("other {name} addresses of the same machine"), &report);
    }
    Ok(())
}

/// A list is about all packets: who gets on it loses the connection, and nobody else does, nor while
/// the agents start anew.
fn cut_off(stage: &mut Stage, cluster: &mut Cluster) -> Result<()> {
    let family = Family::V4;
    let kept = |from: &str, timeout_ms: u64| -> Result<Load> {
        let source = sources(from, family);
        let arguments = Arguments {
            timeout_ms,
            pause_ms: 10,
            source: source[..1].to_vec(),
            ..cluster.arguments(Mode::Tcp, family)
        };
        let mut load = cluster.load(from, &arguments)?;
        load.run_for_requests(20, LIMIT)?;
        Ok(load)
    };
    let (mut meant, mut other) = (kept("client1", PATIENCE_MS)?, kept("client2", 3000)?);
    stage.step("an address with an open connection gets on the list");
    let address = sources("client1", family)[0].to_string();
    let path = list(cluster, "deny.txt", &[&address], 0)?;
    reconfigure(cluster, key("deny_file", &path), String::new())?;
    let failed = meant.latest()?.failed;
    meant.wait_until("the connection's end", LIMIT, |r| r.failed > failed + 3)?;
    let broken = meant.stop()?;
    let text = "an address that gets on the list loses its open connection";
    stage.claim(text, broken.connections_broken() == 1, broken.summary());
    other.run_for_requests(100, LIMIT)?;
    let report = other.stop()?;
    let text = "another's connection lives through the change";
    stage.claim(text, report.failed == 0, report.summary());
    Ok(())
}

fn allowed_only(stage: &mut Stage, cluster: &mut Cluster) -> Result<()> {
    stage.step("only client2 is allowed");
    let path = list(cluster, "allow.txt", &ALLOWED, 0)?;
    reconfigure(cluster, key("allow_file", &path), String::new())?;
    for family in Family::BOTH {
        let name = family.name();
        let before = counter(cluster, "not_allowed")?;
        let arguments = tries(sources("client1", family), cluster, family);
        let report = cluster.complete("client1", &arguments)?;
        claim_refused(stage, &format!("{name} addresses that are on no list"), &report);
        let dropped = counter(cluster, "not_allowed")? - before;
        let text = format!("every SYN of theirs is counted as not allowed ({name})");
        stage.claim(&text, dropped >= report.failed, dropped);
        let arguments = tries(sources("client2", family), cluster, family);
        let report = cluster.complete("client2", &arguments)?;
        claim_served(stage, &format!("allowed {name} addresses"), &report);
    }
    Ok(())
}

fn rated(stage: &mut Stage, cluster: &mut Cluster) -> Result<()> {
    // By the prefixes of which each client's IPv6 addresses are one.
    let table = format!(
        "[service.rate_limit]\nper_second = {PER_SECOND}\nburst = {BURST}\nprefix_ipv6 = 124\n"
    );
    reconfigure(cluster, String::new(), table)?;
    for (family, addresses) in [(Family::V4, 1), (Family::V6, 2)] {
        let name = family.name();
        stage.step(&format!("a source that is too fast, beside one that is not ({name})"));
        let before = counter(cluster, "rate_limited")?;
        let slow = Arguments {
            pause_ms: 100,
            concurrency: 1,
            count: 0,
            ..tries(sources("client2", family)[..1].to_vec(), cluster, family)
        };
        let mut slow = cluster.load("client2", &slow)?;
        let fast = Arguments {
            duration_ms: RATED_MS,
            count: 0,
            ..tries(sources("client1", family)[..addresses].to_vec(), cluster, family)
        };
        let report = cluster.complete("client1", &fast)?;
        slow.latest()?;
        let slow = slow.stop()?;
        let due = BURST as f64 + PER_SECOND as f64 * report.elapsed_ms / 1000.0;
        let share = report.connections as f64 / due;
        let text = format!("fast {name} addresses of one prefix open as many as the rate allows");
        let seen = format!("{:.3} of {due:.0}; {}", share, report.summary());
        stage.claim(&text, (0.9..=1.01).contains(&share), seen);
        stage.figure(
            &format!("rate_share_{}", name.to_lowercase()),
            (share * 1000.0).round() / 1000.0,
        );
        let dropped = counter(cluster, "rate_limited")? - before;
        let text = format!("what is too much is counted as rate_limited ({name})");
        stage.claim(&text, dropped >= report.connect_errors && dropped > 0, dropped);
        stage.figure(&format!("rate_limited_{}", name.to_lowercase()), dropped);
        claim_served(stage, &format!("slow {name} sources beside it"), &slow);
    }
    Ok(())
}

fn concurrent(stage: &mut Stage, cluster: &mut Cluster) -> Result<()> {
    let table = format!("[service.connection_limit]\nper_source = {AT_ONCE}\nprefix_ipv6 = 124\n");
    reconfigure(cluster, String::new(), table)?;
    for family in Family::BOTH {
        let name = family.name();
        stage.step(&format!("a source that has as many connections as it may ({name})"));
        let one = || sources("client1", family)[..1].to_vec();
        let kept = Arguments {
            concurrency: AT_ONCE,
            pause_ms: 50,
            source: one(),
            ..cluster.arguments(Mode::Tcp, family)
        };
        let mut kept = cluster.load("client1", &kept)?;
        let all = u64::from(AT_ONCE);
        kept.wait_until("as many connections as it may", LIMIT, |r| r.connections == all)?;
        let before = counter(cluster, "connection_limited")?;
        let report = cluster.complete("client1", &tries(one(), cluster, family))?;
        claim_refused(stage, &format!("further {name} connections of that source"), &report);
        let dropped = counter(cluster, "connection_limited")? - before;
        let text = format!("every SYN of theirs is counted as connection_limited ({name})");
        stage.claim(&text, dropped >= report.failed, dropped);
        stage.figure(&format!("connection_limited_{}", name.to_lowercase()), dropped);
        let other = tries(sources("client2", family), cluster, family);
        let report = cluster.complete("client2", &other)?;
        claim_served(stage, &format!("other {name} sources beside it"), &report);
        kept.run_for_requests(all, LIMIT)?;
        let kept = kept.stop()?;
        let stayed = kept.failed == 0 && kept.connections == all;
        let text = format!("the connections that it has go on ({name})");
        stage.claim(&text, stayed, kept.summary());
        stage.step(&format!("the source again, once it has closed them ({name})"));
        let report = cluster.complete("client1", &tries(one(), cluster, family))?;
        claim_served(stage, &format!("new {name} connections of the source"), &report);
    }
    Ok(())
}
