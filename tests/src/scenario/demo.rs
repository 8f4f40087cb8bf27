//! The demo: three masters, each load balancer and API server at once, and two clients, one of them
//! on the holder itself. Requests through the VIP, then the role moves under load.

use std::fmt::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::cluster::Cluster;
use super::shape::{Family, Shape, address, target, vip};
use super::stage::{Setting, Stage};
use super::tally::rounded;
use crate::backend::{Answer, Mode};
use crate::client::{Arguments, Connections, Load, Report};

const OUTSIDE: &str = "client1";
const HOLDER: &str = "master1";
const FAMILY: Family = Family::V4;

/// Watches of each client.
const STREAMS: u32 = 6;
/// Between two lines of a watch: what `gap_ms` is to be compared with.
const STREAM_INTERVAL_MS: u64 = 5;
const PHASE: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_secs(30);

/// Runs it. True where it shows what it is to show.
///
/// # Errors
/// Where the output is closed; what fails in the demo is its verdict, not an error.
pub fn run(setting: &Setting) -> Result<bool> {
    let about = "three masters behind one VIP, a role that moves under load";
    let mut stage = Stage::open("demo", about, setting)?;
    let outcome = play(&mut stage);
    stage.close(&outcome)
}

/// Makes the demo's machines and keeps them until the process is told to end.
///
/// # Errors
/// Where the output is closed; otherwise as [`run`].
pub fn keep(setting: &Setting) -> Result<bool> {
    let about = "three masters behind one VIP, to look around in";
    let stage = Stage::open("up", about, setting)?;
    let built = Cluster::start(&stage, shape());
    if let Ok(cluster) = &built {
        let run = cluster.lab.name();
        let url = format!("https://{}/", target(Mode::Https, FAMILY));
        let authority = cluster.certificate.authority.display();
        stage.say(&format!("ip netns exec {run}-{OUTSIDE} curl --cacert {authority} {url}"));
        stage.say(&format!(
            "lbctl --socket {}/{HOLDER}/lb.sock status",
            cluster.lab.directory().display()
        ));
        stage.say("Ctrl-C removes it all");
        stage.step("up");
        loop {
            std::thread::park();
        }
    }
    stage.close(&built.map(drop))
}

fn shape() -> Shape {
    Shape { hash: "source-port", clients: 1, ..Shape::masters(&[Mode::Https]) }
}

fn play(stage: &mut Stage) -> Result<()> {
    let mut cluster = Cluster::start(stage, shape())?;
    stage.say("master1 to master3 run lb-agent and an API server on :6443; master1 is active");
    curl(stage, &cluster)?;
    let mut loads = [(OUTSIDE, load(&cluster, OUTSIDE)?), (HOLDER, load(&cluster, HOLDER)?)];
    for (who, load) in &mut loads {
        let streams = u64::from(STREAMS);
        load.wait_until(&format!("the streams of {who}"), LIMIT, |r| r.streams.opened == streams)?;
    }
    stage
        .say(&format!("load from {OUTSIDE} and from a process on {HOLDER}, 2 x {STREAMS} watches"));
    watch(stage, &mut loads, 0, PHASE)?;
    let begun = Instant::now();
    cluster.move_role(0, 1)?;
    let took = begun.elapsed().as_secs_f64() * 1e3;
    stage.say(&format!("the role moved from master1 to master2 in {took:.0} ms"));
    watch(stage, &mut loads, 1, PHASE)?;
    let [(_, outside), (_, inside)] = loads;
    conclude(stage, &outside.stop()?, &inside.stop()?);
    Ok(())
}

/// A real HTTPS client that knows nothing of us.
fn curl(stage: &mut Stage, cluster: &Cluster) -> Result<()> {
    let url = format!("https://{}/", target(Mode::Https, FAMILY));
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "10", "--cacert"]);
    command.arg(&cluster.certificate.authority).arg("--interface").arg(own().to_string()).arg(&url);
    let process = cluster.host(OUTSIDE)?.spawn("curl", command);
    let line = process.context("install the package curl")?.line(LIMIT)?;
    let answer: Answer =
        serde_json::from_str(&line).with_context(|| format!("curl got {line:?}"))?;
    stage.say(&format!("{OUTSIDE}$ curl {url}"));
    stage.say(&line);
    stage.claim("curl's backend sees the client's address", answer.client.ip() == own(), line);
    Ok(())
}

/// The outside client's one address.
fn own() -> std::net::IpAddr {
    address(OUTSIDE, FAMILY)
}

fn load(cluster: &Cluster, from: &str) -> Result<Load> {
    let arguments = Arguments {
        connections: Connections::PerRequest,
        concurrency: 4,
        streams: STREAMS,
        stream_interval_ms: STREAM_INTERVAL_MS,
        pause_ms: 5,
        source: if from == OUTSIDE { vec![own()] } else { Vec::new() },
        ..cluster.arguments(Mode::Https, FAMILY)
    };
    cluster.load(from, &arguments)
}

/// Shows the load for a while; ends early where it stands still.
fn watch(
    stage: &Stage,
    loads: &mut [(&'static str, Load); 2],
    holder: usize,
    time: Duration,
) -> Result<()> {
    let begun = Instant::now();
    let before: u64 = total(loads)?;
    while begun.elapsed() < time {
        for (_, load) in loads.iter_mut() {
            let seen = load.latest()?.elapsed_ms;
            load.wait_until("the next report", LIMIT, |report| report.elapsed_ms > seen)?;
        }
        let mut reports = Vec::new();
        for (who, load) in loads.iter_mut() {
            reports.push((*who, load.latest()?.clone()));
        }
        stage.picture(&picture(&reports, holder));
    }
    let requests = total(loads)? - before;
    if requests == 0 {
        bail!("no request in {time:?}");
    }
    stage.say(&format!("{requests} requests in {:.1} s", begun.elapsed().as_secs_f64()));
    Ok(())
}

fn total(loads: &mut [(&'static str, Load); 2]) -> Result<u64> {
    loads.iter_mut().map(|(_, load)| Ok(load.latest()?.requests)).sum()
}

/// The live view.
fn picture(reports: &[(&str, Report)], holder: usize) -> String {
    let mut text = format!("\n  VIP {}\n", target(Mode::Https, FAMILY));
    for number in 0..3 {
        let node = format!("master{}", number + 1);
        let role = if number == holder { "active" } else { "backup" };
        let counts = reports.iter().filter_map(|(_, report)| report.backends.get(&node));
        let answers: u64 = counts.sum();
        let all: u64 = reports.iter().map(|(_, r)| r.backends.values().sum::<u64>()).sum();
        let bar = usize::try_from(60 * answers / all.max(1)).unwrap_or(0);
        let _ = writeln!(text, "  {node}  {role}  {answers:>7} answers  {}", "#".repeat(bar));
    }
    for (who, report) in reports {
        let _ = writeln!(
            text,
            "  {who:<8} {:>7} requests, {} failed, {} watches, {} broken, longest silence {:.1} ms",
            report.requests,
            report.failed,
            report.streams.opened,
            report.streams.broken,
            report.streams.longest_gap_ms,
        );
    }
    text
}

fn conclude(stage: &mut Stage, outside: &Report, inside: &Report) {
    let sum = |of: fn(&Report) -> u64| of(outside) + of(inside);
    let failed = sum(|report| report.failed);
    let seen = format!("outside: {}; on the holder: {}", outside.summary(), inside.summary());
    stage.claim("every request is answered", failed == 0, &seen);
    let backends = outside.backends.len();
    stage.claim("three backends share the work", backends == 3, format!("{:?}", outside.backends));
    let addresses: Vec<String> = outside.client_addresses.keys().map(ToString::to_string).collect();
    let text = format!("the backends see the client's own address {}", own());
    let own_only = outside.mismatched == 0 && addresses == [own().to_string()];
    stage.claim(&text, own_only, format!("{addresses:?}"));
    let peers: Vec<_> = inside.peers.keys().map(|peer| peer.ip()).collect();
    let text = "the process on the holder believes to talk to the VIP";
    stage.claim(text, peers == [vip(FAMILY)], format!("{peers:?}"));
    let streams = sum(|report| report.streams.opened);
    let broken = sum(|report| report.streams.broken);
    let gap = rounded(outside.streams.longest_gap_ms.max(inside.streams.longest_gap_ms));
    let seen = format!("{streams} opened, {broken} broken, longest silence {gap} ms");
    let text = "every watch survives the move of the role";
    stage.claim(text, broken == 0 && streams == 2 * u64::from(STREAMS), seen);
    stage.figure("requests", sum(|report| report.requests));
    stage.figure("failed", failed);
    stage.figure("backends_hit", backends);
    stage.figure("client_address", own().to_string());
    stage.figure("client_address_seen", addresses.join(" "));
    stage.figure("streams", streams);
    stage.figure("streams_broken", broken);
    stage.figure("gap_ms", gap);
    stage.figure("stream_interval_ms", STREAM_INTERVAL_MS);
}
