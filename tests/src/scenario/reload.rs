//! `reload-under-load`: a thousand changed files are taken over by agents that elect one another and carry every kind
//! of load. Nothing is lost, nothing begins anew that did not change, and what cannot be done is refused as a whole.

use std::time::{Duration, Instant};

use anyhow::Result;
use lb_agent::control::api;

use super::cluster::{Cluster, SETTLE};
use super::shape::{Family, Shape, Vrrp, sources};
use super::stage::Stage;
use super::tally::Tally;
use crate::backend::Mode;
use crate::client::{Arguments, Connections, Load};
use crate::lab::agent::Agent;
use crate::lab::peer::proxy::Kind;

/// Over all nodes.
const RELOADS: u64 = 1000;
/// Of a proxy: each leaves a worker behind while it has connections.
const PROXY_RELOADS: usize = 20;
const STREAMS: u32 = 12;
const LIMIT: Duration = Duration::from_secs(30);
const INTERVAL: Duration = Duration::from_millis(100);

/// Not served by anybody: it only comes and goes.
const ANOTHER: &str = "\n[[service]]\nname = \"another\"\nport = 9000\nbackends = [\"192.168.139.133:9\"]\n\
                       health = { enabled = false }\n";

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    let shape = Shape { vrrp: Some(Vrrp { interval: INTERVAL }), ..Shape::masters(&[Mode::Https]) };
    let cluster = Cluster::start(stage, shape)?;
    let agents: Vec<&Agent> =
        cluster.nodes.iter().map(|node| node.agent()).collect::<Result<_>>()?;
    let mut loads = loads(&cluster, STREAMS)?;
    for (_, load) in &mut loads {
        load.run_for_requests(50, LIMIT)?;
    }
    let before = Standing::of(&agents)?;
    take_over(stage, &cluster.shape, &agents)?;
    let after = Standing::of(&agents)?;
    let same = before.transitions == after.transitions;
    let seen = format!("{:?}, {:?}", before.transitions, after.transitions);
    stage.claim("VRRP changes nothing meanwhile", same, seen);
    let same = before.states == after.states;
    stage.claim("no backend's state changes, nor begins anew", same, format!("{:?}", after.states));
    refuse(stage, &cluster.shape, agents[0])?;
    for (_, load) in &mut loads {
        load.run_for_requests(50, LIMIT)?;
    }
    let mut tally = Tally::default();
    tally.all_answered(stage, loads)?;
    tally.spread(stage, 3);
    tally.unbroken(stage, 2 * STREAMS);
    tally.figures(stage);
    drop(cluster);
    come_and_go(stage)?;
    for kind in [Kind::Nginx, Kind::Haproxy] {
        beside(stage, kind)?;
    }
    Ok(())
}

/// Clients of every kind: kept connections with streams, new ones, and a node's own process.
pub(super) fn loads(cluster: &Cluster, streams: u32) -> Result<Vec<(String, Load)>> {
    let kept = |arguments| Arguments { concurrency: 8, streams, pause_ms: 10, ..arguments };
    let mut loads = cluster.loads("kept", kept)?;
    for (client, family) in [("client2", Family::V4), ("client1", Family::V6)] {
        let arguments = Arguments {
            connections: Connections::PerRequest,
            concurrency: 4,
            pause_ms: 10,
            source: sources(client, family),
            ..cluster.arguments(Mode::Https, family)
        };
        let who = format!("{client} on new {} connections", family.name());
        loads.push((who, cluster.load(client, &arguments)?));
        if family == Family::V4 {
            let own = Arguments { source: Vec::new(), concurrency: 2, ..arguments };
            loads.push(("a process on master2".to_owned(), cluster.load("master2", &own)?));
        }
    }
    Ok(loads)
}

/// What is not to change by a reload.
struct Standing {
    transitions: Vec<u64>,
    states: Vec<(api::BackendState, u64)>,
}

impl Standing {
    fn of(agents: &[&Agent]) -> Result<Self> {
        let (mut transitions, mut states) = (Vec::new(), Vec::new());
        for agent in agents {
            transitions.extend(agent.vrrp()?.iter().map(|router| router.transitions));
            states.extend(
                agent.backends()?.iter().map(|backend| (backend.state, backend.transitions)),
            );
        }
        Ok(Self { transitions, states })
    }
}

/// Files that differ in everything that a running agent can change and that no client is to notice.
fn variants(shape: &Shape) -> Vec<Shape> {
    let with = |keys: &str, tables: &str| Shape {
        service_keys: keys.to_owned(),
        service_tables: tables.to_owned(),
        ..shape.clone()
    };
    let limited = "[service.rate_limit]\nper_second = 100000\nburst = 100000\n";
    vec![
        shape.clone(),
        with("table_size = 2039\n", ""),
        Shape { hash: "source-port", ..shape.clone() },
        with("", limited),
        Shape { checks: "interval = \"250ms\"\nfall = 5\n".to_owned(), ..shape.clone() },
        Shape { further: ANOTHER.to_owned(), ..shape.clone() },
        Shape { further: "\n[nat]\nudp_timeout = \"3m\"\n".to_owned(), ..shape.clone() },
    ]
}

fn take_over(stage: &mut Stage, shape: &Shape, agents: &[&Agent]) -> Result<()> {
    let variants: Vec<String> = variants(shape).iter().map(Shape::configuration).collect();
    let reloads = RELOADS * u64::from(stage.times());
    stage.step("changed files are taken over");
    let bar = stage.bar(reloads);
    let (mut took, mut silent) = (Vec::new(), 0);
    for number in 0..reloads {
        let (round, at) = (number as usize / agents.len(), number as usize % agents.len());
        // Each node has another of them than its neighbour for a while.
        let begun = Instant::now();
        let said = agents[at].reload_with(&variants[round % variants.len()])?;
        took.push(begun.elapsed());
        silent += u64::from(said.changes.is_empty());
        bar.inc(1);
    }
    took.sort_unstable();
    let first = agents.len() as u64;
    let text = "each file but the first ones is told to be different, and taken over";
    stage.claim(text, silent == first, format!("{reloads} reloads, {silent} without a change"));
    stage.figure("reloads", reloads);
    stage.figure("reload_ms_median", took[took.len() / 2].as_secs_f64() * 1e3);
    stage.figure("reload_ms_most", took[took.len() - 1].as_secs_f64() * 1e3);
    // The last word is what all began with.
    for agent in agents {
        agent.reload_with(&shape.configuration())?;
        let again = agent.reload_with(&shape.configuration())?;
        stage.claim(
            "the same file changes nothing",
            again.changes.is_empty(),
            format!("{again:?}"),
        );
    }
    Ok(())
}

/// What is wrong, or needs a restart, changes nothing at all.
fn refuse(stage: &mut Stage, shape: &Shape, agent: &Agent) -> Result<()> {
    stage.step("files that are refused");
    let right = shape.configuration();
    let with_another = Shape { further: ANOTHER.to_owned(), ..shape.clone() }.configuration();
    let services = agent.services()?.len();
    for (text, why) in [
        (with_another.replace("port = 9000", "port = 900000"), "must be between 1 and 65535"),
        (format!("{with_another}\n[limits]\nservices = 7\n"), "cannot change this: [limits]"),
        (
            with_another.replace(
                "backends = [\"192.168.139.133:9\"]",
                "backends = [\"192.168.139.133:9\"]\nallow_file = \"/nowhere\"",
            ),
            "/nowhere",
        ),
    ] {
        agent.write_configuration(&text)?;
        let refused = agent.lbctl(["reload"]);
        let seen = refused.as_ref().map_or_else(|error| format!("{error:#}"), Clone::clone);
        let untouched = agent.services()?.len() == services;
        let holds = refused.is_err() && seen.contains(why) && untouched;
        stage.claim(&format!("refused as a whole: {why}"), holds, seen.trim());
        let warnings = agent.status()?.warnings;
        let warned = warnings.iter().any(|w| w.contains("the last reload was refused"));
        stage.claim("`lbctl status` says so", warned, format!("{warnings:?}"));
    }
    agent.write_configuration(&with_another)?;
    let asked = agent.lbctl(["reload", "--dry-run"])?;
    let told = asked.contains("service another comes, with 1 backends");
    let untouched = agent.services()?.len() == services;
    stage.claim(
        "a dry run says what would be done and does nothing",
        told && untouched,
        asked.trim(),
    );
    agent.write_configuration(&right)?;
    agent.process().signal(nix::sys::signal::Signal::SIGHUP)?;
    let settled = |warnings: &[String]| !warnings.iter().any(|w| w.contains("refused"));
    agent.wait_for_warnings("SIGHUP takes the right file over", SETTLE, settled)?;
    stage.claim("SIGHUP takes the right file over", true, "no warning is left");
    Ok(())
}

/// Backends that come are served from the first moment on, also one that no node has ever talked to.
fn come_and_go(stage: &mut Stage) -> Result<()> {
    let shape = Shape::pair(&[Mode::Https]);
    let few = shape.with_members(&["server1"]);
    let mut cluster = Cluster::start(stage, few.clone())?;
    let arguments = Arguments {
        connections: Connections::PerRequest,
        concurrency: 8,
        source: sources("client1", Family::V4),
        ..cluster.arguments(Mode::Https, Family::V4)
    };
    let mut load = cluster.load("client1", &arguments)?;
    load.run_for_requests(100, LIMIT)?;
    for next in [shape.with_members(&["server1", "server2"]), shape.clone(), few.clone(), shape] {
        cluster.shape = next;
        let text = cluster.shape.configuration();
        for node in &cluster.nodes {
            node.agent()?.reload_with(&text)?;
        }
        load.run_for_requests(200, LIMIT)?;
    }
    let report = load.stop()?;
    let mut tally = Tally::default();
    tally.answered(stage, "a client of backends that come and go, through NAT", &report);
    let reached = report.backends.len();
    stage.claim("each of them is reached", reached == 3, report.summary());
    Ok(())
}

/// What becomes of the same clients where a proxy has the address and is reloaded. Nothing is claimed of it but that
/// it served: its figures stand beside ours.
fn beside(stage: &mut Stage, kind: Kind) -> Result<()> {
    let family = Family::V4;
    let cluster = Cluster::machines(stage, Shape::masters(&[Mode::Https]))?;
    let servers = cluster.servers(Mode::Https, family);
    let mut proxy = cluster.start_proxy(kind, Mode::Https, family)?;
    let workers = proxy.workers()?;
    let arguments = |client| Arguments {
        concurrency: 8,
        pause_ms: 10,
        source: sources(client, family),
        ..cluster.arguments(Mode::Https, family)
    };
    let mut kept =
        cluster.load("client1", &Arguments { streams: STREAMS, ..arguments("client1") })?;
    kept.wait_until("all streams", LIMIT, |r| r.streams.opened == u64::from(STREAMS))?;
    let connections = Connections::PerRequest;
    let mut single = cluster.load("client2", &Arguments { connections, ..arguments("client2") })?;
    stage.step(&format!("{} is reloaded", kind.name()));
    for round in 0..PROXY_RELOADS {
        proxy.reload(&servers[..servers.len() - round % 2])?;
        for load in [&mut kept, &mut single] {
            load.run_for_requests(20, LIMIT)?;
        }
    }
    let left = proxy.workers()?;
    let (kept, single) = (kept.stop()?, single.stop()?);
    let name = kind.name();
    stage.say(&format!("{name}: kept {}", kept.summary()));
    stage.say(&format!("{name}: new {}", single.summary()));
    let served = kept.requests > 0 && single.requests > 0;
    stage.claim(&format!("{name} serves while it is reloaded"), served, PROXY_RELOADS);
    stage.figure(&format!("{name}_reloads"), PROXY_RELOADS as u64);
    stage.figure(&format!("{name}_failed"), kept.failed + single.failed);
    stage.figure(
        &format!("{name}_connections_broken"),
        kept.connections_broken() + single.connections_broken(),
    );
    stage.figure(&format!("{name}_streams_broken"), kept.streams.broken);
    stage.figure(&format!("{name}_workers_before"), workers as u64);
    stage.figure(&format!("{name}_workers_after"), left as u64);
    Ok(())
}
