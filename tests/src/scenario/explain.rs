//! `explain`: what lbctl explain, flows and events say is what becomes of connections: carried, delivered here and through
//! NAT, over both families, while others come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use lb_agent::control::api::{Event, EventLine, Explanation, Flow};
use socket2::{Domain, Socket, Type};

use super::cluster::Cluster;
use super::shape::{Family, Shape, address, backend, sources, target};
use super::stage::Stage;
use crate::backend::{Answer, Mode};
use crate::client::{Arguments, Connections, Load};
use crate::lab::Process;

const MODE: Mode = Mode::Tcp;
/// Of each family, in each of the two clusters.
const CLIENTS: u16 = 50;
const FIRST_PORT: u16 = 20_000;
const LIMIT: Duration = Duration::from_secs(10);

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    let mut told = 0;
    let mut cluster = Cluster::start(stage, shape(Shape::masters(&[MODE])))?;
    let follower = follow(&cluster)?;
    told += asked_and_tried(stage, &cluster, "direct")?;
    happenings(stage, &mut cluster, follower)?;
    drop(cluster);
    let cluster = Cluster::start(stage, shape(Shape { nodes: 1, ..Shape::pair(&[MODE]) }))?;
    told += asked_and_tried(stage, &cluster, "nat")?;
    stage.figure("explained", told);
    Ok(())
}

/// Each connection has a bucket of its own.
fn shape(shape: Shape) -> Shape {
    Shape { hash: "source-port", ..shape }
}

/// Explains connections, opens them, and looks for them among the flows.
fn asked_and_tried(stage: &mut Stage, cluster: &Cluster, kind: &str) -> Result<u64> {
    let load = load(cluster)?;
    let mut clients = Vec::new();
    for family in Family::BOTH {
        let own = sources("client1", family);
        clients.extend((0..CLIENTS).map(|n| {
            let ip = own[usize::from(n) % own.len()];
            (family, SocketAddr::new(ip, FIRST_PORT + n))
        }));
    }
    stage.step(&format!("{kind}: explaining {} connections", clients.len()));
    let begun = Instant::now();
    let mut predicted = BTreeMap::new();
    let mut ways = BTreeMap::<String, u64>::new();
    let mut disagreed = Vec::new();
    for (family, client) in &clients {
        let told = explain(cluster, *client, target(MODE, *family), &[])?;
        disagreed.extend(told.disagreement.clone());
        let way = told.delivery.map_or_else(|| "nobody".to_owned(), |way| format!("{way:?}"));
        *ways.entry(way.to_lowercase()).or_default() += 1;
        predicted.insert(*client, told.backend.or(told.expected));
    }
    stage.figure(
        &format!("{kind}_explain_ms"),
        begun.elapsed().as_secs_f64() * 1e3 / clients.len() as f64,
    );
    stage.claim("agent and program agree", disagreed.is_empty(), format!("{disagreed:?}"));
    stage.step(&format!("{kind}: opening them"));
    let streams = open(cluster, &clients)?;
    let wrong: Vec<String> = streams
        .iter()
        .filter_map(|(client, (_, answered))| {
            let told = predicted.get(client).copied().flatten();
            let named = told.is_some_and(|told| names(told, answered));
            (!named).then(|| format!("{client}: told {told:?}, got {answered}"))
        })
        .collect();
    let text = "each connection reaches the backend that was told";
    stage.claim(
        &format!("{kind}: {text}"),
        wrong.is_empty(),
        match &wrong[..] {
            [] => format!("{} of {}, {ways:?}", streams.len(), clients.len()),
            wrong => format!("{} did not: {:?}", wrong.len(), &wrong[..wrong.len().min(3)]),
        },
    );
    let expected: BTreeSet<&str> =
        if kind == "nat" { ["nat"].into() } else { ["direct", "local"].into() };
    let seen: BTreeSet<&str> = ways.keys().map(String::as_str).collect();
    stage.claim(
        &format!("{kind}: in all ways that there are"),
        seen == expected,
        format!("{ways:?}"),
    );
    later_segments(stage, cluster, kind, &streams)?;
    listed(stage, cluster, kind, &streams)?;
    let report = load.stop()?;
    let whole = report.failed == 0 && report.broken.is_empty();
    stage.claim(&format!("{kind}: others go on meanwhile"), whole, report.summary());
    Ok(clients.len() as u64)
}

/// Others' connections, which come and go.
fn load(cluster: &Cluster) -> Result<Load> {
    let arguments = Arguments {
        connections: Connections::PerRequest,
        concurrency: 2,
        source: sources("client2", Family::V4),
        ..cluster.arguments(MODE, Family::V4)
    };
    let mut load = cluster.load("client2", &arguments)?;
    load.wait_until("some answers", LIMIT, |report| report.requests > 50)?;
    Ok(load)
}

fn explain(
    cluster: &Cluster,
    client: SocketAddr,
    to: SocketAddr,
    further: &[&str],
) -> Result<Explanation> {
    let (client, to) = (client.to_string(), to.to_string());
    let words = ["explain", &client, &to, "-o", "json"].into_iter().chain(further.iter().copied());
    let mut command = cluster.nodes[0].agent()?.lbctl_command(words)?;
    // Its status is 1 where agent and program disagree.
    let said = command.output().context("lbctl cannot be run")?;
    serde_json::from_slice(&said.stdout)
        .with_context(|| format!("{command:?}: {}", String::from_utf8_lossy(&said.stderr)))
}

type Streams = BTreeMap<SocketAddr, (TcpStream, String)>;

/// Opens a connection from each of these ends, says something, and reads who answers.
fn open(cluster: &Cluster, clients: &[(Family, SocketAddr)]) -> Result<Streams> {
    cluster.host("client1")?.namespace().within(|| {
        let mut streams = Streams::new();
        for (family, client) in clients {
            let socket = Socket::new(Domain::for_address(*client), Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.bind(&(*client).into())?;
            socket.connect_timeout(&target(MODE, *family).into(), LIMIT)?;
            let mut stream = TcpStream::from(socket);
            stream.set_read_timeout(Some(LIMIT))?;
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line)?;
            let answer: Answer = serde_json::from_str(&line)?;
            stream.write_all(b"hello")?;
            streams.insert(*client, (stream, answer.backend));
        }
        Ok(streams)
    })
}

fn names(told: SocketAddr, machine: &str) -> bool {
    Family::BOTH.iter().any(|family| told.ip() == address(machine, *family))
}

/// What is told of a later segment of a connection is where the connection is.
fn later_segments(
    stage: &mut Stage,
    cluster: &Cluster,
    kind: &str,
    streams: &Streams,
) -> Result<()> {
    let mut wrong = Vec::new();
    for (client, (_, answered)) in streams.iter().step_by(10) {
        let family = if client.is_ipv4() { Family::V4 } else { Family::V6 };
        let told = explain(cluster, *client, target(MODE, family), &["--established"])?;
        if !told.agrees || !told.backend.is_some_and(|backend| names(backend, answered)) {
            wrong.push(format!("{client}: {:?}, not {answered}", told.verdict));
        }
    }
    let text = format!("{kind}: a later segment goes where the connection is");
    stage.claim(&text, wrong.is_empty(), format!("{wrong:?}"));
    Ok(())
}

/// Every connection is among the flows, with who answered it.
fn listed(stage: &mut Stage, cluster: &Cluster, kind: &str, streams: &Streams) -> Result<()> {
    let agent = cluster.nodes[0].agent()?;
    let list = |words: &[&str]| -> Result<Vec<Flow>> {
        let words = ["flows", "-o", "json"].into_iter().chain(words.iter().copied());
        let said = agent.lbctl(words)?;
        said.lines().map(|line| serde_json::from_str(line).context("a flow")).collect()
    };
    let all = list(&["--limit", "0"])?;
    let found: BTreeMap<SocketAddr, &Flow> = all.iter().map(|flow| (flow.client, flow)).collect();
    let missing: Vec<String> = streams
        .iter()
        .filter_map(|(client, (_, answered))| {
            let backend = found.get(client).and_then(|flow| flow.backend);
            let right = backend.is_some_and(|backend| names(backend, answered));
            (!right).then(|| format!("{client}: {backend:?}, not {answered}"))
        })
        .collect();
    let text = format!("{kind}: every connection is among the flows with its backend");
    let seen = match &missing[..] {
        [] => format!("{} of {} flows", streams.len(), all.len()),
        missing => format!("{} are not: {:?}", missing.len(), &missing[..missing.len().min(3)]),
    };
    stage.claim(&text, missing.is_empty(), seen);
    let (client, (_, answered)) = streams.iter().next().context("no connection")?;
    let its = list(&["--client", &client.to_string()])?;
    let machine = backend(answered, MODE, Family::V4).to_string();
    let filtered = list(&["--backend", &machine, "--limit", "3"])?;
    let of_one = its.iter().all(|flow| flow.client == *client) && its.len() == 1;
    let bounded = filtered.len() == 3
        && filtered.iter().all(|flow| flow.backend.is_some_and(|it| it.to_string() == machine));
    let text = format!("{kind}: flows of one client, or three of one backend");
    stage.claim(&text, of_one && bounded, format!("{its:?}, {} of {machine}", filtered.len()));
    Ok(())
}

/// `lbctl events --follow` on the first node.
fn follow(cluster: &Cluster) -> Result<Process> {
    let node = &cluster.nodes[0];
    let words = ["events", "--follow", "-o", "json"];
    node.host.spawn("lbctl-events", node.agent()?.lbctl_command(words)?)
}

/// What happens is told to a follower, also by an agent that comes after another one.
fn happenings(stage: &mut Stage, cluster: &mut Cluster, follower: Process) -> Result<()> {
    let name = "master3";
    stage.step(&format!("{name} stops listening, and the first agent is killed and started again"));
    cluster.backend_mut(name, MODE)?.leave()?;
    let its: [String; 2] = Family::BOTH.map(|family| backend(name, MODE, family).to_string());
    let is_its = |event: &Event| {
        let backend = event.fields.get("backend").and_then(|backend| backend.as_str());
        backend.is_some_and(|backend| its.iter().any(|it| it == backend))
    };
    let down = await_event(&follower, |event| {
        ["backend-down", "backend-out"].contains(&event.kind.as_deref().unwrap_or(""))
            && is_its(event)
    })?;
    stage.claim("a follower hears of a backend that is down", down.gaps == 0, down.told);
    cluster.nodes[0].agent.take().context("no agent to kill")?.kill()?;
    cluster.start_agents()?;
    let serves = await_event(&follower, |event| event.kind.as_deref() == Some("agent-serves"))?;
    let text = "it goes on with the next agent, and is told that something may be missing";
    stage.claim(text, serves.gaps == 1, format!("{} gaps; {}", serves.gaps, serves.told));
    // A client that this machine never saw: the dead one is passed over, with the reason.
    cluster.wait_for_verdicts(name, false)?;
    let mut reasons = BTreeSet::new();
    for port in 0..20 {
        let client = SocketAddr::new(IpAddr::from([192, 0, 2, 7]), 30_000 + port);
        let told = explain(cluster, client, target(MODE, Family::V4), &[])?;
        let dead = told.ranks.iter().find(|rank| its.contains(&rank.backend.to_string()));
        reasons.extend(dead.and_then(|rank| rank.passed_over.clone()));
    }
    let named = reasons.iter().any(|why| why.starts_with("takes no new connections: "));
    stage.claim("explain says why a backend is passed over", named, format!("{reasons:?}"));
    Ok(())
}

struct Heard {
    gaps: u32,
    told: String,
}

/// Reads on until an event is the one.
fn await_event(follower: &Process, is_it: impl Fn(&Event) -> bool) -> Result<Heard> {
    let until = Instant::now() + LIMIT;
    let mut gaps = 0;
    loop {
        let line = follower.line(until.saturating_duration_since(Instant::now()))?;
        match serde_json::from_str(&line).with_context(|| line.clone())? {
            EventLine::Event(event) if is_it(&event) => return Ok(Heard { gaps, told: line }),
            EventLine::Gap(_) => gaps += 1,
            EventLine::Event(_) | EventLine::Begin(_) => {}
        }
    }
}
