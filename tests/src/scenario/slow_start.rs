//! `slow-start`: a backend that comes back gets more and more of its clients, directly and through NAT, also after
//! its agent was killed in between. It gets all at once where nobody else is left.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use lb_agent::control::api::{Backend, BackendState};

use super::cluster::Cluster;
use super::shape::{Family, Shape, backend, sources};
use super::stage::Stage;
use super::tally::Tally;
use crate::backend::Mode;
use crate::client::{Arguments, Connections, Report};

const LASTS: Duration = Duration::from_secs(8);
/// New connections of one sample.
const SAMPLE: u64 = 600;
/// How far a sample may be off: a drawing of so many has a standard deviation of 2 %.
const TOLERANCE: f64 = 0.08;
const STREAMS: u32 = 12;
const LIMIT: Duration = Duration::from_secs(20);

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    let mut tally = Tally::default();
    direct(stage, &mut tally)?;
    translated(stage, &mut tally)?;
    tally.figures(stage);
    Ok(())
}

/// Each connection has a chance of its own.
fn shape(shape: Shape) -> Shape {
    let checks = format!("{}slow_start = \"{}ms\"\n", shape.checks, LASTS.as_millis());
    Shape { hash: "source-port", families: &[Family::V4], checks, ..shape }
}

fn direct(stage: &mut Stage, tally: &mut Tally) -> Result<()> {
    let mut cluster = Cluster::start(stage, shape(Shape::masters(&[Mode::Https])))?;
    let name = "master2";
    let before = known(&cluster, name)?;
    let at_once = before.state == BackendState::Healthy && before.takes >= 1.0;
    stage.claim("agents that start trust who is there", at_once, told(&before));
    let mut load = cluster.load(
        "client2",
        &Arguments {
            streams: STREAMS,
            source: sources("client2", Family::V4),
            ..cluster.arguments(Mode::Https, Family::V4)
        },
    )?;
    load.wait_until("all streams", LIMIT, |r| r.streams.opened == u64::from(STREAMS))?;
    restart(stage, &mut cluster, name)?;
    let mut begun = Instant::now();
    let (first, _) = sample(stage, &cluster, tally, name, "at once after it came back")?;
    let own = own_processes(&cluster)?;
    let (failed, its) = (own.failed, share(&own, name));
    let text = "the Active node's own processes leave it alone, too";
    stage.claim(text, failed == 0 && its < first.max(0.1) + TOLERANCE, own.summary());
    stage.step("the Active node's agent is killed and started again");
    let killed_at = known(&cluster, name)?.takes;
    let killed = Instant::now();
    cluster.nodes[0].agent.take().context("no agent to kill")?.kill()?;
    cluster.start_agents()?;
    // Nobody takes it further meanwhile.
    begun += killed.elapsed();
    let again = known(&cluster, name)?;
    let goes_on = again.state == BackendState::SlowStarting
        && again.takes >= killed_at
        && again.takes <= killed_at + 0.6;
    stage.claim("a new agent goes on where the one before was", goes_on, told(&again));
    sample(stage, &cluster, tally, name, "after that")?;
    over(stage, &cluster, name, begun)?;
    let (last, _) = sample(stage, &cluster, tally, name, "in the end")?;
    let more = first < last;
    stage.claim("it gets more in the end than at first", more, format!("{first:.3}, {last:.3}"));
    alone(stage, &mut cluster, tally, name)?;
    let report = load.stop()?;
    // Those whose servers stopped listening go on; no server ended.
    let whole = report.streams.broken == 0;
    stage.claim("no stream breaks", whole, report.summary());
    tally.add(&report);
    Ok(())
}

fn translated(stage: &mut Stage, tally: &mut Tally) -> Result<()> {
    let cluster = Cluster::start(stage, shape(Shape::pair(&[Mode::Https])))?;
    let name = "server2";
    let words = backend(name, Mode::Https, Family::V4).to_string();
    stage.step("a backend by NAT is drained and enabled again");
    cluster.nodes[0].agent()?.lbctl(["backends", "drain", &words])?;
    cluster.nodes[0].agent()?.lbctl(["backends", "enable", &words])?;
    let begun = Instant::now();
    let (first, _) = sample(stage, &cluster, tally, name, "through NAT, at once")?;
    stage.step("the size of its table changes by a reload in between");
    let heavier = cluster.shape.configuration().replace("hash =", "table_size = 8191\nhash =");
    cluster.nodes[0].agent()?.reload_with(&heavier)?;
    let still = known(&cluster, name)?;
    let goes_on = still.state == BackendState::SlowStarting && still.takes < 1.0;
    stage.claim("a reload does not end a slow start", goes_on, told(&still));
    over(stage, &cluster, name, begun)?;
    let (last, _) = sample(stage, &cluster, tally, name, "through NAT, in the end")?;
    let more = first < last;
    stage.claim("through NAT it gets more, too", more, format!("{first:.3}, {last:.3}"));
    Ok(())
}

/// The server stops listening, and listens again; its connections stay.
fn restart(stage: &mut Stage, cluster: &mut Cluster, name: &str) -> Result<()> {
    stage.step(&format!("{name} stops listening, and listens again"));
    cluster.backend_mut(name, Mode::Https)?.leave()?;
    cluster.wait_for_verdicts(name, false)?;
    cluster.backend_mut(name, Mode::Https)?.join()?;
    cluster.wait_for_verdicts(name, true)
}

/// What the Active node's agent knows of a backend.
fn known(cluster: &Cluster, name: &str) -> Result<Backend> {
    let address = backend(name, Mode::Https, Family::V4);
    let backends = cluster.nodes[0].agent()?.backends()?;
    let found = backends.into_iter().find(|backend| backend.address == address);
    found.with_context(|| format!("the agent knows nothing of {address}"))
}

fn told(backend: &Backend) -> String {
    format!("{:?}, takes {:.3}: {}", backend.state, backend.takes, backend.reason)
}

/// New connections that a backend gets now, of all; claims that these are as many as its agent says. Returns what it
/// got, and what it was due.
fn sample(
    stage: &mut Stage,
    cluster: &Cluster,
    tally: &mut Tally,
    name: &str,
    when: &str,
) -> Result<(f64, f64)> {
    let before = known(cluster, name)?;
    let arguments = Arguments {
        connections: Connections::PerRequest,
        concurrency: 8,
        count: SAMPLE,
        source: sources("client1", Family::V4),
        ..cluster.arguments(Mode::Https, Family::V4)
    };
    let report = cluster.complete("client1", &arguments)?;
    let after = known(cluster, name)?;
    let got = share(&report, name);
    let due = [&before, &after].map(|backend| backend.share * backend.takes);
    let fits = report.failed == 0 && got >= due[0] - TOLERANCE && got <= due[1] + TOLERANCE;
    let text = format!("{when}: {name} gets what it is due of new connections");
    let seen = format!("{got:.3} of {:.3} to {:.3}; {}", due[0], due[1], told(&after));
    stage.claim(&text, fits, seen);
    tally.add(&report);
    Ok((got, due[1]))
}

fn share(report: &Report, name: &str) -> f64 {
    let its = report.backends.get(name).copied().unwrap_or(0);
    its as f64 / report.requests.max(1) as f64
}

fn own_processes(cluster: &Cluster) -> Result<Report> {
    let arguments = Arguments {
        connections: Connections::PerRequest,
        concurrency: 4,
        count: SAMPLE / 4,
        ..cluster.arguments(Mode::Https, Family::V4)
    };
    cluster.complete("master1", &arguments)
}

/// Waits for the end of the slow start, and claims that it took as long as the file says.
fn over(stage: &mut Stage, cluster: &Cluster, name: &str, begun: Instant) -> Result<()> {
    let address = backend(name, Mode::Https, Family::V4);
    cluster.nodes[0].agent()?.wait_for_backends("the slow start ends", LIMIT, |backends| {
        let its = backends.iter().find(|backend| backend.address == address);
        its.is_some_and(|its| its.state == BackendState::Healthy && its.takes >= 1.0)
    })?;
    let took = begun.elapsed();
    // It had begun a moment before, and ends with a step.
    let fits = took <= LASTS + Duration::from_secs(1) && took + Duration::from_secs(1) >= LASTS;
    stage.claim(&format!("{name} takes all in the end"), fits, format!("after {took:.1?}"));
    Ok(())
}

/// All others go while it starts slowly.
fn alone(stage: &mut Stage, cluster: &mut Cluster, tally: &mut Tally, name: &str) -> Result<()> {
    restart(stage, cluster, name)?;
    stage.step("the others stop listening meanwhile");
    for other in ["master1", "master3"] {
        cluster.backend_mut(other, Mode::Https)?.leave()?;
        cluster.wait_for_verdicts(other, false)?;
    }
    let before = known(cluster, name)?;
    let arguments = Arguments {
        connections: Connections::PerRequest,
        concurrency: 8,
        count: SAMPLE / 4,
        source: sources("client1", Family::V4),
        ..cluster.arguments(Mode::Https, Family::V4)
    };
    let report = cluster.complete("client1", &arguments)?;
    let whole = report.failed == 0 && before.state == BackendState::SlowStarting;
    let seen = format!("{}; {}", told(&before), report.summary());
    stage.claim("where nobody else is left it gets all", whole, seen);
    tally.add(&report);
    Ok(())
}
