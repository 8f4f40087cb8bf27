//! The demo: a balancer and three masters, each load balancer and API server at once, and two clients,
//! one of them on a master. Requests through the VIP, then the Active node dies under load and VRRP
//! elects the next one.
//!
//! The node that dies has no API server: connections to a server that dies fail whoever balances
//! them, and what is shown is that all others go on.

use std::fmt::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::cluster::Cluster;
use super::failover::milliseconds;
use super::shape::{Family, Shape, Vrrp, address, down_interval, priority, target, vip};
use super::stage::{Setting, Stage};
use super::tally::rounded;
use crate::backend::{Answer, Mode};
use crate::client::{Arguments, Connections, Load, Probe, Prober, Report};

const OUTSIDE: &str = "client1";
/// The one with a client of its own, and the first in line when master1 dies.
const SUCCESSOR: &str = "master2";
/// Those with an API server: all but the one that dies.
const MASTERS: [&str; 3] = ["master2", "master3", "master4"];
const NODES: [usize; 4] = [0, 1, 2, 3];
const DYING: usize = 0;
const INTERVAL: Duration = Duration::from_millis(100);
const FAMILY: Family = Family::V4;

/// Watches of each client.
const STREAMS: u32 = 6;
/// Between two lines of a watch: what `stream_gap_ms` is to be compared with.
const STREAM_INTERVAL_MS: u64 = 5;
/// Answers of the prober before the crash, and after it is over.
const ANSWERS: u64 = 200;
/// One run on a busy machine; `cargo xtask bench failover` is strict.
const TAKEOVER_MAX: f64 = 1.25;
const PHASE: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_secs(30);

/// Runs it. True where it shows what it is to show.
///
/// # Errors
/// Where the output is closed; what fails in the demo is its verdict, not an error.
pub fn run(setting: &Setting) -> Result<bool> {
    let about = "three masters behind one VIP, whose node dies under load";
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
            "lbctl --socket {}/{SUCCESSOR}/lb.sock status",
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
    let shape = Shape {
        nodes: 4,
        hash: "source-port",
        vrrp: Some(Vrrp { interval: INTERVAL }),
        ..Shape::masters(&[Mode::Https, Mode::Udp])
    };
    shape.with_members(&MASTERS)
}

fn play(stage: &mut Stage) -> Result<()> {
    let mut cluster = Cluster::start(stage, shape())?;
    cluster.elect(DYING, &NODES)?;
    stage.say(
        "master1 to master4 run lb-agent, VRRP has made master1 Active; master2 to master4 run",
    );
    stage
        .say("an API server on :6443, master1 none: what a server's own death breaks is not shown");
    curl(stage, &cluster)?;
    let mut loads = [(OUTSIDE, load(&cluster, OUTSIDE)?), (SUCCESSOR, load(&cluster, SUCCESSOR)?)];
    for (who, load) in &mut loads {
        let streams = u64::from(STREAMS);
        load.wait_until(&format!("the streams of {who}"), LIMIT, |r| r.streams.opened == streams)?;
    }
    stage.say(&format!(
        "load from {OUTSIDE} and from a process on {SUCCESSOR}, 2 x {STREAMS} watches; client2 \
         probes each millisecond"
    ));
    watch(stage, &mut loads, DYING, PHASE)?;
    let prober = Prober::start(cluster.host("client2")?, target(Mode::Udp, FAMILY))?;
    prober.wait_for_answers(ANSWERS, LIMIT)?;
    cluster.crash(DYING)?;
    stage.say("master1 dies: its cable is out, its processes are killed");
    let next = cluster.await_active(&NODES[1..])?;
    prober.wait_for_answers(ANSWERS, LIMIT)?;
    let probe = prober.stop()?;
    stage.say(&format!("VRRP has made {} Active", cluster.name_of(next)));
    watch(stage, &mut loads, next, PHASE)?;
    let [(_, outside), (_, inside)] = loads;
    conclude(stage, &outside.stop()?, &inside.stop()?);
    gap(stage, &probe, next)
}

/// How long the VIP was away, beside what the protocol takes.
fn gap(stage: &mut Stage, probe: &Probe, next: usize) -> Result<()> {
    let theory_ms = milliseconds(down_interval(INTERVAL, priority(u8::try_from(next + 1)?)));
    let (gap_ms, bound_ms) = (milliseconds(probe.gap), TAKEOVER_MAX * theory_ms);
    let seen = format!("{gap_ms:.0} ms, three intervals and the skew are {theory_ms:.0} ms");
    let text = "the VIP is back when VRRP's timer lets it be";
    stage.claim(text, gap_ms <= bound_ms, seen);
    stage.figure("gap_ms", rounded(gap_ms));
    stage.figure("theory_ms", rounded(theory_ms));
    stage.figure("prober_pause_ms", rounded(milliseconds(probe.pause)));
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
    for number in NODES {
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
    let seen = format!("outside: {}; on {SUCCESSOR}: {}", outside.summary(), inside.summary());
    stage.claim("every request is answered", failed == 0, &seen);
    let backends = outside.backends.len();
    stage.claim("three backends share the work", backends == 3, format!("{:?}", outside.backends));
    let addresses: Vec<String> = outside.client_addresses.keys().map(ToString::to_string).collect();
    let text = format!("the backends see the client's own address {}", own());
    let own_only = outside.mismatched == 0 && addresses == [own().to_string()];
    stage.claim(&text, own_only, format!("{addresses:?}"));
    let peers: Vec<_> = inside.peers.keys().map(|peer| peer.ip()).collect();
    let text = "the process on a master believes to talk to the VIP";
    stage.claim(text, peers == [vip(FAMILY)], format!("{peers:?}"));
    let streams = sum(|report| report.streams.opened);
    let broken = sum(|report| report.streams.broken);
    let gap = rounded(outside.streams.longest_gap_ms.max(inside.streams.longest_gap_ms));
    let seen = format!("{streams} opened, {broken} broken, longest silence {gap} ms");
    let text = "every watch survives the death of the Active node";
    stage.claim(text, broken == 0 && streams == 2 * u64::from(STREAMS), seen);
    stage.figure("requests", sum(|report| report.requests));
    stage.figure("failed", failed);
    stage.figure("backends_hit", backends);
    stage.figure("client_address", own().to_string());
    stage.figure("client_address_seen", addresses.join(" "));
    stage.figure("streams", streams);
    stage.figure("streams_broken", broken);
    stage.figure("stream_gap_ms", gap);
    stage.figure("stream_interval_ms", STREAM_INTERVAL_MS);
}
