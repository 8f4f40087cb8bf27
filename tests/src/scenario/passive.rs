//! `passive`: clients' own connections say that a backend is gone, before any check does. Directly, where nobody is
//! refused, and through NAT; a server that was killed, one that nothing reaches any more, floods that must not
//! take anybody out, and all servers gone at once.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use lb_agent::announce::LinkSocket;
use lb_agent::control::api::{Backend, BackendState, Uses};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpSocket;

use super::cluster::{Cluster, SETTLE};
use super::shape::{self, Family, NIC, Shape, sources};
use super::stage::Stage;
use crate::backend::{Answer, Mode};
use crate::lab::flood::{Flood, Target};

const FAMILY: Family = Family::V4;
const CLIENT: &str = "client1";

/// From the third refused SYN to the backend being out.
const OUT_WITHIN_MS: f64 = 100.0;

/// From the verdict, whose time is told, to the maps that have it.
const WRITTEN_WITHIN_MS: f64 = 10.0;

/// A client waits for so long: two SYNs more.
const PATIENCE: Duration = Duration::from_secs(5);

/// When a client sends its second SYN (RFC 6298, 2.1), and how long everything behind that may take but for the check.
const SECOND_SYN_MS: f64 = 1000.0;
const SPARE_MS: f64 = 300.0;

const FAIL_TIMEOUT_MS: u64 = 1500;

/// Between two SYNs that are one: less would be a frame that something doubled.
const AGAIN: Duration = Duration::from_millis(1100);

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    direct(stage)?;
    translated(stage)
}

/// Nothing is checked: what is known comes from clients.
fn direct(stage: &mut Stage) -> Result<()> {
    let mut cluster = Cluster::start(
        stage,
        Shape {
            families: &[FAMILY],
            checks: "enabled = false\n".to_owned(),
            service_tables: format!("[service.passive]\nfail_timeout = \"{FAIL_TIMEOUT_MS}ms\"\n"),
            ..Shape::masters(&[Mode::Tcp])
        },
    )?;
    for victim in ["master1", "master2"] {
        killed_directly(stage, &mut cluster, victim)?;
    }
    floods(stage, &cluster)?;
    stage.step("master3 hears nothing any more");
    let whose = source_of(&cluster, "master3")?;
    cluster.host("master3")?.set_cable(NIC, false)?;
    // Without a check of its own it is connected to, for as long as a check may take.
    unanswered(stage, &cluster, "master3", whose, 1000.0)
}

fn killed_directly(stage: &mut Stage, cluster: &mut Cluster, victim: &str) -> Result<()> {
    let way = if victim == "master1" { "on the node that steers" } else { "on another node" };
    stage.step(&format!("the server {way} is killed"));
    let whose = source_of(cluster, victim)?;
    cluster.backends.remove(&key(victim)).context("a server to kill")?.kill()?;
    let tries = knock(cluster, whose, 3)?;
    let third_at = tries[2].began;
    let node = usize::from(victim != "master1");
    let out = wait_for(cluster, node, victim, "out", |b| b.state == BackendState::Down)?;
    let reason = format!("refused 3 of its last connections within {}", fail_timeout());
    claim_out(stage, &format!("{victim}, {way}"), &out, third_at, &reason);
    let told = cluster.nodes[node].agent()?.lbctl(["backends"])?;
    stage.claim(&format!("{victim}: lbctl says why"), told.contains(&reason), told.trim());
    let log = cluster.nodes[node].agent()?.process().log();
    stage.claim(&format!("{victim}: the log says why"), log.contains(&reason), "");
    let later = knock(cluster, whose, 20)?;
    claim_nobody_refused(stage, &format!("{victim}, {way}"), tries.iter().chain(&later));

    stage.step(&format!("{victim} is tried after {}, and refuses again", fail_timeout()));
    wait_for(cluster, node, victim, "tried", |b| b.accepting)?;
    let tries = knock(cluster, whose, 1)?;
    let out = wait_for(cluster, node, victim, "out again", |b| b.state == BackendState::Down)?;
    let reason = format!("refused again when it was tried after {}", fail_timeout());
    claim_out(stage, &format!("{victim}, tried"), &out, tries[0].began, &reason);
    claim_nobody_refused(stage, &format!("{victim}, tried"), tries.iter());
    cluster.start_backend(victim, Mode::Tcp)?;
    wait_for(cluster, node, victim, "tried again", |b| b.accepting)?;
    let served = knock(cluster, whose, 1)?;
    let by_it = served[0].outcome.as_deref() == Ok(victim);
    stage.claim(&format!("{victim} serves again"), by_it, format!("{served:?}"));
    Ok(())
}

/// Neither spoofed SYNs, nor the same ones twice, take anybody out.
fn floods(stage: &mut Stage, cluster: &Cluster) -> Result<()> {
    stage.step("a flood of spoofed SYNs");
    let before = transitions(cluster)?;
    let IpAddr::V4(address) = shape::vip(FAMILY) else { bail!("an IPv4 address") };
    let mac = cluster.nodes[0].host.mac(NIC)?;
    let port = shape::target(Mode::Tcp, FAMILY).port();
    let target = Target { mac, address, port, network: 11 };
    let flood = Flood::start(cluster.host("client2")?, NIC, target, Duration::from_secs(2))?;
    std::thread::sleep(AGAIN);
    let sent = flood.stop()?;
    stage.figure("flood_syns", sent.frames);
    let unanswered = |cluster: &Cluster| -> Result<u64> {
        Ok(cluster.nodes[0].agent()?.backends()?.iter().map(|b| b.unanswered).sum())
    };
    let first = unanswered(cluster)?;
    stage.step("spoofed SYNs that are sent again");
    let mut again = Spoofed::new(cluster, target)?;
    again.send()?;
    std::thread::sleep(AGAIN);
    again.send()?;
    let agent = cluster.nodes[0].agent()?;
    agent.wait_for_backends("the SYNs are counted", SETTLE, |backends| {
        backends.iter().map(|b| b.unanswered).sum::<u64>() > first + u64::from(SPOOFED) / 2
    })?;
    stage.figure("spoofed_unanswered", unanswered(cluster)? - first);
    // Each of them is suspected, so each is connected to, and answers.
    let after = transitions(cluster)?;
    stage.claim("floods take no healthy backend out", before == after, format!("{after:?}"));
    claim_nobody_refused(
        stage,
        "beside floods",
        knock(cluster, sources(CLIENT, FAMILY)[0], 5)?.iter(),
    );
    Ok(())
}

/// Checked so that no check takes anybody out in time.
fn translated(stage: &mut Stage) -> Result<()> {
    let mut cluster = Cluster::start(
        stage,
        Shape {
            families: &[FAMILY],
            checks: "interval = \"1s\"\ntimeout = \"500ms\"\nrise = 1\nfall = 100\n".to_owned(),
            service_tables: "[service.passive]\nfail_timeout = \"20s\"\n".to_owned(),
            ..Shape::pair(&[Mode::Tcp])
        },
    )?;
    stage.step("through NAT: a server is killed");
    let whose = source_of(&cluster, "server2")?;
    cluster.backends.remove(&key("server2")).context("a server to kill")?.kill()?;
    let mut tries = Vec::new();
    while tries.len() < 200 && tries.last().is_none_or(|it: &Try| it.outcome.is_err()) {
        tries.extend(knock(&cluster, whose, 1)?);
    }
    let refused: Vec<&Try> = tries.iter().filter(|it| it.outcome.is_err()).collect();
    let third = refused.get(2).context("three clients that were refused")?;
    let out = wait_for(&cluster, 0, "server2", "out", |b| b.state == BackendState::Down)?;
    let reason = "refused 3 of its last connections within 20s";
    claim_out(stage, "server2, through NAT", &out, third.began, reason);
    stage.figure("nat_clients_refused", refused.len() as u64);
    let late = tries.iter().filter(|it| it.began > out.since + WRITTEN_WITHIN_MS / 1e3);
    let later = knock(&cluster, whose, 20)?;
    claim_nobody_refused(stage, "server2, through NAT, once it is out", late.chain(&later));
    cluster.start_backend("server2", Mode::Tcp)?;
    let began = Instant::now();
    wait_for(&cluster, 0, "server2", "back by its checks", |b| b.accepting)?;
    let took = began.elapsed();
    let soon = took < Duration::from_secs(5);
    stage.claim("server2 comes back by its checks", soon, format!("{took:.1?} of 20s"));

    stage.step("through NAT: a server hears nothing any more");
    cluster.host("server2")?.set_cable(NIC, false)?;
    unanswered(stage, &cluster, "server2", whose, 500.0)?;
    cluster.host("server2")?.set_cable(NIC, true)?;
    wait_for(&cluster, 0, "server2", "back by its checks", |b| b.accepting)?;

    stage.step("through NAT: all servers are killed");
    for name in cluster.shape.server_names() {
        cluster.backends.remove(&key(&name)).context("a server to kill")?.kill()?;
    }
    let agent = cluster.nodes[0].agent()?;
    for source in sources(CLIENT, FAMILY) {
        knock(&cluster, source, 3)?;
    }
    agent.wait_for_backends("all are down, and used", SETTLE, |backends| {
        backends.iter().all(|b| b.state == BackendState::Down && b.accepting)
    })?;
    let uses: Vec<Uses> = agent.services()?.iter().map(|service| service.uses).collect();
    let all = uses.iter().all(|uses| *uses == Uses::Everybody);
    stage.claim("where all refuse, all are used", all, format!("{uses:?}"));
    let warnings = agent.status()?.warnings;
    let told = warnings.iter().any(|warning| warning.contains("fewer than minimum_healthy"));
    stage.claim("and that is told", told, format!("{warnings:?}"));
    Ok(())
}

/// Three clients at once whom nobody answers, and what comes of it.
fn unanswered(
    stage: &mut Stage,
    cluster: &Cluster,
    victim: &str,
    whose: IpAddr,
    check_ms: f64,
) -> Result<()> {
    let began = now();
    let tries = knock_at_once(cluster, whose, 3)?;
    let out = wait_for(cluster, 0, victim, "out", |b| b.state == BackendState::Down)?;
    let told = out.reason.starts_with("left 3 of its last connections unanswered within ");
    stage.claim(&format!("{victim}: whom nobody answers is told"), told, &out.reason);
    let took_ms = (out.since - began) * 1e3;
    let most_ms = SECOND_SYN_MS + check_ms + SPARE_MS;
    let text = format!("{victim} is out after the second SYNs and a check");
    stage.claim(&text, (SECOND_SYN_MS..most_ms).contains(&took_ms), format!("{took_ms:.0} ms"));
    stage.figure(&format!("{victim}_unanswered_out_ms"), took_ms.round());
    let later = knock(cluster, whose, 20)?;
    claim_nobody_refused(stage, &format!("{victim}, unanswered"), tries.iter().chain(&later));
    Ok(())
}

fn claim_out(stage: &mut Stage, who: &str, out: &Backend, third_at: f64, reason: &str) {
    let ms = (out.since - third_at) * 1e3;
    let holds = (0.0..=OUT_WITHIN_MS).contains(&ms);
    let text = format!("{who}: out within {OUT_WITHIN_MS} ms of the refusal that is one too many");
    stage.claim(&text, holds, format!("{ms:.1} ms"));
    stage.figure(&format!("{}_out_ms", who.replace([' ', ','], "_")), (ms * 10.0).round() / 10.0);
    stage.claim(&format!("{who}: the reason"), out.reason.starts_with(reason), &out.reason);
}

fn claim_nobody_refused<'t>(stage: &mut Stage, who: &str, tries: impl Iterator<Item = &'t Try>) {
    let (mut all, mut failed) = (0, Vec::new());
    for it in tries {
        all += 1;
        failed.extend(it.outcome.as_ref().err());
    }
    let text = format!("{who}: no client is refused");
    stage.claim(&text, failed.is_empty() && all > 0, format!("{all} tries, {failed:?}"));
}

fn key(name: &str) -> (String, Mode) {
    (name.to_owned(), Mode::Tcp)
}

fn fail_timeout() -> String {
    lb_agent::config::duration_text(Duration::from_millis(FAIL_TIMEOUT_MS))
}

/// How often each backend's state changed, on each node.
fn transitions(cluster: &Cluster) -> Result<Vec<Vec<(SocketAddr, u64)>>> {
    let of = |node: &super::cluster::Node| -> Result<Vec<(SocketAddr, u64)>> {
        Ok(node.agent()?.backends()?.iter().map(|b| (b.address, b.transitions)).collect())
    };
    cluster.nodes.iter().map(of).collect()
}

/// Waits until a node's agent says this of a machine's backend, and returns what it says.
fn wait_for(
    cluster: &Cluster,
    node: usize,
    of: &str,
    what: &str,
    holds: impl Fn(&Backend) -> bool,
) -> Result<Backend> {
    let agent = cluster.nodes[node].agent()?;
    let address = shape::backend(of, Mode::Tcp, FAMILY);
    let found =
        |backends: &[Backend]| backends.iter().find(|b| b.address == address && holds(b)).cloned();
    let last = std::cell::RefCell::new(None);
    agent.wait_for_backends(&format!("{of} is {what}"), SETTLE, |backends| {
        *last.borrow_mut() = found(backends);
        last.borrow().is_some()
    })?;
    last.into_inner().context("a backend that was there")
}

/// An address of the client whose connections go to this machine.
fn source_of(cluster: &Cluster, name: &str) -> Result<IpAddr> {
    for source in sources(CLIENT, FAMILY) {
        if knock(cluster, source, 1)?[0].outcome.as_deref() == Ok(name) {
            return Ok(source);
        }
    }
    bail!("no address of {CLIENT} belongs to {name}")
}

/// A connection, or that it was refused.
#[derive(Clone, Debug)]
struct Try {
    /// Seconds since the Unix epoch, before its SYN.
    began: f64,
    /// Who answered.
    outcome: Result<String, String>,
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// So many connections, one after the other.
fn knock(cluster: &Cluster, source: IpAddr, count: usize) -> Result<Vec<Try>> {
    in_client(cluster, async move {
        let mut tries = Vec::new();
        for _ in 0..count {
            tries.push(connect(source).await);
        }
        tries
    })
}

/// So many at once.
fn knock_at_once(cluster: &Cluster, source: IpAddr, count: usize) -> Result<Vec<Try>> {
    in_client(cluster, async move {
        let tries: Vec<_> = (0..count).map(|_| tokio::spawn(connect(source))).collect();
        let mut all = Vec::new();
        for it in tries {
            all.extend(it.await);
        }
        all
    })
}

fn in_client(cluster: &Cluster, work: impl Future<Output = Vec<Try>> + Send) -> Result<Vec<Try>> {
    cluster.host(CLIENT)?.namespace().within(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(runtime.context("a client's runtime")?.block_on(work))
    })
}

async fn connect(source: IpAddr) -> Try {
    let began = now();
    let outcome = match tokio::time::timeout(PATIENCE, answer(source)).await {
        Ok(Ok(line)) => Ok(line),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer".to_owned()),
    };
    Try { began, outcome }
}

/// The name of the server that answers.
async fn answer(source: IpAddr) -> io::Result<String> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(source, 0))?;
    let stream = socket.connect(shape::target(Mode::Tcp, FAMILY)).await?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).await?;
    let answer: Answer = serde_json::from_str(&line)?;
    Ok(answer.backend)
}

const SPOOFED: u16 = 200;

/// SYNs of clients that are none, to be sent more than once.
struct Spoofed {
    socket: LinkSocket,
    frames: Vec<Vec<u8>>,
}

impl Spoofed {
    fn new(cluster: &Cluster, to: Target) -> Result<Self> {
        let host = cluster.host("client2")?;
        let own = host.mac(NIC)?;
        let frames = (0..SPOOFED).map(|number| syn(own, to, number)).collect();
        Ok(Self { socket: host.link_socket(NIC)?, frames })
    }

    fn send(&mut self) -> Result<()> {
        let Self { socket, frames } = self;
        frames.iter().try_for_each(|frame| socket.send(frame).context("a spoofed SYN"))
    }
}

/// Without checksums, which only the one who answers would look at.
fn syn(own: [u8; 6], to: Target, number: u16) -> Vec<u8> {
    let mut frame = [&to.mac[..], &own[..], &[8, 0]].concat();
    frame.extend([0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0]);
    frame.extend([12, 0, (number >> 8) as u8, number as u8]);
    frame.extend(to.address.octets());
    frame.extend((20_000 + number).to_be_bytes());
    frame.extend(to.port.to_be_bytes());
    frame.extend([0, 0, 0, 77, 0, 0, 0, 0, 5 << 4, 2, 0xfa, 0xf0, 0, 0, 0, 0]);
    frame
}
