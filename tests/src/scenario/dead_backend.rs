//! `dead-backend`: clients that only wait are told when their backend dies: killed, with its node's link down, or
//! in a black hole; directly, through NAT, and those on the nodes themselves. All others go on. The same clients of
//! nginx and haproxy stand beside.

use std::time::{Duration, SystemTime};

use anyhow::Result;
use lb_agent::control::api::{self, BackendState};

use super::cluster::{Cluster, SETTLE};
use super::shape::{self, Family, NIC, Shape, backend, sources};
use super::stage::Stage;
use crate::backend::{Backend, Mode};
use crate::client::{Arguments, End, Load, Report, Watchers};
use crate::lab::peer::proxy::Kind;

/// Clients of each family: some for each backend.
const WATCHERS: usize = 24;
/// From the last node's verdict on.
const TOLD_WITHIN: Duration = Duration::from_secs(1);
/// Far more than it takes to find out and to tell.
const LIMIT: Duration = Duration::from_secs(20);
/// A stream says something once, and then nothing for longer than this scenario lasts.
const SILENT_MS: u64 = 600_000;
/// For so long the clients of proxies are watched: they would wait for hours.
const PATIENCE: Duration = Duration::from_secs(5);

/// How a backend dies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Death {
    Killed,
    LinkDown,
    BlackHole,
}

impl Death {
    const fn name(self) -> &'static str {
        match self {
            Self::Killed => "killed",
            Self::LinkDown => "link_down",
            Self::BlackHole => "black_hole",
        }
    }
}

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    direct(stage)?;
    translated(stage)?;
    for kind in [Kind::Nginx, Kind::Haproxy] {
        beside(stage, kind)?;
    }
    Ok(())
}

fn direct(stage: &mut Stage) -> Result<()> {
    let shape = Shape { hash: "source-port", ..Shape::masters(&[Mode::Tcp, Mode::Https]) };
    let mut cluster = Cluster::start(stage, shape)?;
    for death in [Death::BlackHole, Death::LinkDown, Death::Killed] {
        claim_told(stage, &mut cluster, "master3", death)?;
    }
    Ok(())
}

fn translated(stage: &mut Stage) -> Result<()> {
    let shape = Shape { hash: "source-port", ..Shape::pair(&[Mode::Tcp, Mode::Https]) };
    let mut cluster = Cluster::start(stage, shape)?;
    claim_told(stage, &mut cluster, "server2", Death::BlackHole)
}

/// Who waits.
struct Waiting {
    /// From outside, in each family.
    outside: Vec<(Family, Watchers)>,
    /// A node's own processes, which go by the hooks and so not through the VIP.
    own: Load,
}

impl Waiting {
    fn start(cluster: &Cluster) -> Result<Self> {
        let mut outside = Vec::new();
        for (client, family) in [("client1", Family::V4), ("client2", Family::V6)] {
            let (host, from) = (cluster.host(client)?, sources(client, family));
            let target = shape::target(Mode::Tcp, family);
            outside.push((family, Watchers::start(host, target, &from, WATCHERS)?));
        }
        let streams = WATCHERS as u32;
        let own = Arguments {
            streams,
            stream_interval_ms: SILENT_MS,
            pause_ms: 50,
            ..cluster.arguments(Mode::Https, Family::V4)
        };
        let mut own = cluster.load("master2", &own)?;
        own.wait_until("all streams", LIMIT, |r| r.streams.opened == u64::from(streams))?;
        Ok(Self { outside, own })
    }
}

fn claim_told(stage: &mut Stage, cluster: &mut Cluster, victim: &str, death: Death) -> Result<()> {
    let way = format!("{victim} {}", death.name());
    let mut waiting = Waiting::start(cluster)?;
    stage.step(&format!("{way}: with {WATCHERS} watchers of each kind"));
    let killed: Vec<_> = match death {
        Death::Killed => [Mode::Tcp, Mode::Https]
            .into_iter()
            .filter_map(|mode| cluster.backends.remove(&(victim.to_owned(), mode)))
            .collect(),
        Death::LinkDown | Death::BlackHole => Vec::new(),
    };
    let host = cluster.host(victim)?;
    let mut verdict = SystemTime::now();
    let fault = match death {
        Death::BlackHole => Some(host.lose_everything(NIC)?),
        Death::LinkDown | Death::Killed => None,
    };
    if death == Death::LinkDown {
        host.set_cable(NIC, false)?;
    }
    killed.into_iter().try_for_each(Backend::kill)?;
    // These are told of ten times a second; the others keep the moment themselves.
    let own = claim_own(stage, &mut waiting.own, victim, &way)?;
    for (_, watchers) in &waiting.outside {
        watchers.await_ends(victim, LIMIT);
    }
    // Of a process that is killed its kernel tells by itself, before any check.
    if death != Death::Killed {
        verdict = last_verdict(cluster, victim)?;
        claim_said(stage, cluster, victim, &way)?;
    }
    drop(fault);
    let slowest = claim_outside(stage, &waiting.outside, victim, death, verdict);
    let name = format!("{}_{}_told_ms", victim.trim_end_matches(char::is_numeric), death.name());
    stage.figure(&name, slowest.as_millis() as u64);
    let own = own.duration_since(verdict).unwrap_or_default();
    stage.figure(&format!("{name}_own"), own.as_millis() as u64);
    drop(waiting);
    restore(cluster, victim, death)
}

/// How long the last of them took from the verdict on.
fn claim_outside(
    stage: &mut Stage,
    outside: &[(Family, Watchers)],
    victim: &str,
    death: Death,
    verdict: SystemTime,
) -> Duration {
    let way = format!("{victim} {}", death.name());
    let mut slowest = Duration::ZERO;
    for (family, watchers) in outside {
        let (kind, all, ends) = (family.name(), watchers.of(victim), watchers.ends(victim));
        let resets = ends.iter().filter(|(_, end)| *end == End::Reset).count();
        let last = ends.iter().map(|(at, _)| *at).max().unwrap_or(verdict);
        let took = last.duration_since(verdict).unwrap_or_default();
        slowest = slowest.max(took);
        let seen = format!(
            "{} of {all} ended, {resets} by a reset, the last after {took:.0?}",
            ends.len()
        );
        let text =
            format!("{way}: each {kind} watcher of it learns within a second of the verdict");
        // The kernel of a process that is killed ends its connections in order.
        let ended = if death == Death::Killed { ends.len() } else { resets };
        let told = all > 0 && ended == all && took <= TOLD_WITHIN;
        stage.claim(&text, told, &seen);
        let others = watchers.others_ended(victim);
        let text = format!("{way}: no {kind} watcher of another backend is disturbed");
        stage.claim(&text, others == 0, others);
    }
    slowest
}

/// When all of the node's own that waited for it have ended, within a tenth of a second.
fn claim_own(stage: &mut Stage, own: &mut Load, victim: &str, way: &str) -> Result<SystemTime> {
    let waited = |report: &Report| report.streams.backends.get(victim).copied().unwrap_or(0);
    let ended = |report: &Report| report.streams.broken_backends.get(victim).copied().unwrap_or(0);
    own.wait_until("own watchers end", LIMIT, |report| ended(report) == waited(report))?;
    let at = SystemTime::now();
    let report = own.latest()?.clone();
    let text = format!("{way}: the nodes' own watchers of it learn, and no others");
    let holds = waited(&report) > 0 && report.streams.broken == waited(&report);
    stage.claim(&text, holds, report.summary());
    Ok(at)
}

/// When the last of the nodes that are left found it down.
fn last_verdict(cluster: &Cluster, victim: &str) -> Result<SystemTime> {
    let mut last = 0.0_f64;
    for node in cluster.nodes.iter().filter(|node| node.host.name() != victim) {
        let backends = node.agent()?.backends()?;
        last = of(&backends, victim).map(|backend| backend.since).fold(last, f64::max);
    }
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs_f64(last))
}

/// What is said of it.
fn of<'a>(backends: &'a [api::Backend], victim: &str) -> impl Iterator<Item = &'a api::Backend> {
    let at = Family::BOTH.map(|family| backend(victim, Mode::Tcp, family));
    backends.iter().filter(move |backend| at.contains(&backend.address))
}

/// The node that sent the segments says so.
fn claim_said(stage: &mut Stage, cluster: &Cluster, victim: &str, way: &str) -> Result<()> {
    let agent = cluster.nodes[0].agent()?;
    agent.wait_for_backends("clients are told", SETTLE, |backends| {
        of(backends, victim).all(|backend| backend.gone && backend.clients_told > 0)
    })?;
    let backends = agent.backends()?;
    let said: Vec<_> = of(&backends, victim)
        .map(|backend| (backend.state, backend.clients_told, backend.reason.clone()))
        .collect();
    let holds = said.iter().all(|(state, _, reason)| {
        *state == BackendState::Down && reason.contains("gone: its clients are told")
    });
    stage.claim(&format!("{way}: lbctl tells of it"), holds, format!("{said:?}"));
    Ok(())
}

fn restore(cluster: &mut Cluster, victim: &str, death: Death) -> Result<()> {
    match death {
        Death::Killed => {
            cluster.start_backend(victim, Mode::Tcp)?;
            cluster.start_backend(victim, Mode::Https)?;
        }
        Death::LinkDown => cluster.host(victim)?.set_cable(NIC, true)?,
        Death::BlackHole => {}
    }
    for node in &cluster.nodes {
        let what = format!("{} is well again", victim);
        node.agent()?.wait_for_backends(&what, SETTLE, |backends| {
            of(backends, victim).all(|backend| backend.accepting && !backend.gone)
        })?;
    }
    cluster.settle()
}

/// The same where a proxy has the address. Nothing is claimed of it: its figures stand beside ours.
fn beside(stage: &mut Stage, kind: Kind) -> Result<()> {
    let family = Family::V4;
    let cluster = Cluster::machines(stage, Shape::masters(&[Mode::Tcp]))?;
    let target = shape::target(Mode::Tcp, family);
    let _proxy = cluster.start_proxy(kind, Mode::Tcp, family)?;
    let watchers =
        Watchers::start(cluster.host("client1")?, target, &sources("client1", family), WATCHERS)?;
    stage.step(&format!("the link of master3 goes down behind {}", kind.name()));
    cluster.host("master3")?.set_cable(NIC, false)?;
    let told = watchers.await_ends("master3", PATIENCE);
    let (name, all) = (kind.name(), watchers.of("master3"));
    stage.say(&format!("{name}: {told} of {all} watchers know after {PATIENCE:?}"));
    stage.figure(&format!("{name}_watchers"), all as u64);
    stage.figure(&format!("{name}_told_within_{}s", PATIENCE.as_secs()), told as u64);
    Ok(())
}
