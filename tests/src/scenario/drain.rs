//! `drain`: a backend is taken out by hand, under load. It gets no new connections wherever the VIP is, keeps those
//! that it has until they end by themselves, and is told to be draining also after a restart of the agents. Directly,
//! and then through NAT.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lb_agent::control::api::{Admin, Backend, BackendState};

use super::cluster::{Cluster, SETTLE};
use super::shape::{Family, Shape, backend, sources, vip};
use super::stage::Stage;
use super::tally::Tally;
use crate::backend::Mode;
use crate::client::{Arguments, Connections, Load, Report};
use crate::lab::agent::said;

const STREAMS: u32 = 12;
const REQUESTS: u64 = 200;
const LIMIT: Duration = Duration::from_secs(30);

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    let mut tally = Tally::default();
    direct(stage, &mut tally)?;
    translated(stage, &mut tally)?;
    tally.unbroken(stage, 4 * STREAMS);
    tally.figures(stage);
    Ok(())
}

/// What is drained, and by which names.
struct Drained<'a> {
    /// The machine.
    name: &'a str,
    /// As `lbctl` is told.
    words: Vec<String>,
    /// Nodes whose agents are told.
    nodes: Vec<usize>,
    /// The one that can count what is left.
    counter: usize,
}

impl Drained<'_> {
    fn of<'b>(&self, backends: &'b [Backend]) -> impl Iterator<Item = &'b Backend> {
        let at = Family::BOTH.map(|family| backend(self.name, Mode::Https, family));
        backends.iter().filter(move |backend| at.contains(&backend.address))
    }
}

fn direct(stage: &mut Stage, tally: &mut Tally) -> Result<()> {
    let mut cluster = Cluster::start(stage, Shape::masters(&[Mode::Https]))?;
    let drained = Drained {
        name: "master2",
        words: vec!["master2".to_owned()],
        nodes: vec![0, 1, 2],
        counter: 1,
    };
    let mut loads = kept(&cluster)?;
    let own = Arguments { concurrency: 2, ..per_request(&cluster, "master1", Family::V4) };
    let own = Arguments { source: Vec::new(), ..own };
    claim_served(stage, &cluster, &drained, "before", true)?;

    begin(stage, &cluster, &drained)?;
    claim_refusals(stage, &cluster)?;
    claim_served(stage, &cluster, &drained, "drained", false)?;
    let report = cluster.complete("master1", &Arguments { count: REQUESTS, ..own })?;
    let avoided = report.failed == 0 && !report.backends.contains_key(drained.name);
    stage.claim("a node's own processes go elsewhere, too", avoided, report.summary());
    stage.step("the VIP moves, and the agents are killed and started again");
    cluster.move_role(0, 2)?;
    claim_served(stage, &cluster, &drained, "after a move of the VIP", false)?;
    for node in &mut cluster.nodes {
        node.agent.take().context("no agent to kill")?.kill()?;
    }
    cluster.start_agents()?;
    wait_for(&cluster, &drained, "it drains after a restart", |b| {
        b.state == BackendState::Draining && b.admin == Admin::Draining
    })?;
    claim_served(stage, &cluster, &drained, "after a restart of the agents", false)?;
    for (_, load) in &mut loads {
        load.run_for_requests(50, LIMIT)?;
    }
    end(stage, &cluster, &drained, loads, tally, 8443)?;
    enable(stage, &cluster, &drained)
}

fn translated(stage: &mut Stage, tally: &mut Tally) -> Result<()> {
    let cluster = Cluster::start(stage, Shape::pair(&[Mode::Https]))?;
    let address = |family| backend("server2", Mode::Https, family).to_string();
    let drained = Drained {
        name: "server2",
        words: Family::BOTH.map(address).to_vec(),
        nodes: vec![0, 1],
        counter: 0,
    };
    let loads = kept(&cluster)?;
    claim_served(stage, &cluster, &drained, "through NAT, before", true)?;
    begin(stage, &cluster, &drained)?;
    claim_served(stage, &cluster, &drained, "through NAT, drained", false)?;
    end(stage, &cluster, &drained, loads, tally, 6443)?;
    enable(stage, &cluster, &drained)
}

fn kept(cluster: &Cluster) -> Result<Vec<(String, Load)>> {
    let kept =
        |arguments| Arguments { concurrency: 8, streams: STREAMS, pause_ms: 20, ..arguments };
    let mut loads = cluster.loads("kept", kept)?;
    for (_, load) in &mut loads {
        load.run_for_requests(50, LIMIT)?;
    }
    Ok(loads)
}

fn per_request(cluster: &Cluster, client: &str, family: Family) -> Arguments {
    Arguments {
        connections: Connections::PerRequest,
        concurrency: 8,
        count: REQUESTS,
        source: sources(client, family),
        ..cluster.arguments(Mode::Https, family)
    }
}

/// New connections are served, by the one that is drained among others or not.
fn claim_served(
    stage: &mut Stage,
    cluster: &Cluster,
    drained: &Drained<'_>,
    when: &str,
    by_it: bool,
) -> Result<()> {
    for (client, family) in [("client1", Family::V4), ("client2", Family::V6)] {
        let report = cluster.complete(client, &per_request(cluster, client, family))?;
        let its = report.backends.contains_key(drained.name);
        let text =
            format!("{when}: new {} connections reach {}: {by_it}", family.name(), drained.name);
        stage.claim(&text, report.failed == 0 && its == by_it, report.summary());
    }
    Ok(())
}

/// Has it drained everywhere.
fn begin(stage: &mut Stage, cluster: &Cluster, drained: &Drained<'_>) -> Result<()> {
    stage.step(&format!("{} is drained on each node", drained.name));
    for &node in &drained.nodes {
        for word in &drained.words {
            let said = cluster.nodes[node].agent()?.lbctl(["backends", "drain", word])?;
            let told = said.contains("draining") && said.contains("drained with lbctl");
            stage.claim(
                &format!("lbctl on node {node} says that {word} drains"),
                told,
                said.trim(),
            );
        }
    }
    Ok(())
}

/// What cannot be had is refused with a sentence.
fn claim_refusals(stage: &mut Stage, cluster: &Cluster) -> Result<()> {
    let agent = cluster.nodes[0].agent()?;
    agent.lbctl(["backends", "drain", "master1"])?;
    for (arguments, why) in [
        (vec!["backends", "drain", "master3"], "would have no healthy backend left"),
        (vec!["backends", "drain", "master2", "--wait"], "run this on master2"),
        (vec!["backends", "drain", "master9"], "no backend is `master9`"),
        (vec!["backends", "enable", "master1", "--service", "kube"], "no service `kube`"),
    ] {
        let refused = agent.lbctl(&arguments);
        let seen = refused.as_ref().map_or_else(|error| format!("{error:#}"), Clone::clone);
        let holds = refused.is_err() && seen.contains(why);
        stage.claim(&format!("lbctl {} is refused", arguments.join(" ")), holds, seen.trim());
    }
    agent.lbctl(["backends", "enable", "master1"]).map(drop)
}

/// What is left is counted, and `--wait` ends when it does.
fn end(
    stage: &mut Stage,
    cluster: &Cluster,
    drained: &Drained<'_>,
    loads: Vec<(String, Load)>,
    tally: &mut Tally,
    port: u16,
) -> Result<()> {
    let agent = cluster.nodes[drained.counter].agent()?;
    wait_for_count(cluster, drained)?;
    let counted = left(&agent.backends()?, drained);
    let sockets = sockets(cluster, drained.name, port)?;
    let text = format!("{}: as many connections are left as it has sockets", drained.name);
    stage.claim(&text, counted == Some(sockets) && sockets > 0, format!("{counted:?}, {sockets}"));
    let impatient =
        agent.lbctl(["backends", "drain", &drained.words[0], "--wait", "--timeout", "1500ms"]);
    let seen = impatient.unwrap_or_else(|error| format!("{error:#}"));
    let text = format!("{}: a wait with a limit fails and says how many are left", drained.name);
    stage.claim(&text, seen.contains("connections are left after 1s500ms"), seen.trim());

    stage.step(&format!("the clients of {} end", drained.name));
    std::thread::scope(|scope| -> Result<()> {
        let mut waits = Vec::new();
        for word in &drained.words {
            let mut lbctl = agent.lbctl_command(["backends", "drain", word, "--wait"])?;
            waits.push(scope.spawn(move || said(&mut lbctl)));
        }
        let mut broken = 0;
        for (who, load) in loads {
            let report: Report = load.stop()?;
            tally.answered(stage, &format!("{who}, {} drained", drained.name), &report);
            broken += report.connections_broken();
        }
        let text = format!("{}: its connections end by themselves", drained.name);
        stage.claim(&text, broken == 0, broken);
        let ended = Instant::now();
        for wait in waits {
            wait.join().map_err(|_| anyhow::anyhow!("lbctl's thread panicked"))??;
        }
        let took = ended.elapsed();
        let text = format!("{}: lbctl waits until the last has ended, and no longer", drained.name);
        stage.claim(&text, took < LIMIT, format!("{took:.1?}"));
        stage.figure(&format!("{}_wait_ended_ms", drained.name), took.as_millis() as u64);
        Ok(())
    })?;
    let counted = left(&agent.backends()?, drained);
    stage.claim(
        &format!("{}: none is left", drained.name),
        counted == Some(0),
        format!("{counted:?}"),
    );
    Ok(())
}

fn enable(stage: &mut Stage, cluster: &Cluster, drained: &Drained<'_>) -> Result<()> {
    stage.step(&format!("{} is enabled again", drained.name));
    for &node in &drained.nodes {
        for word in &drained.words {
            cluster.nodes[node].agent()?.lbctl(["backends", "enable", word])?;
        }
    }
    claim_served(stage, cluster, drained, "enabled again", true)
}

/// Connections that are left to it in both families, once they are counted.
fn left(backends: &[Backend], drained: &Drained<'_>) -> Option<u64> {
    drained.of(backends).map(|backend| backend.connections_left).sum()
}

fn wait_for_count(cluster: &Cluster, drained: &Drained<'_>) -> Result<()> {
    let agent = cluster.nodes[drained.counter].agent()?;
    agent.wait_for_backends("its connections are counted", SETTLE, |backends| {
        left(backends, drained).is_some()
    })
}

fn wait_for(
    cluster: &Cluster,
    drained: &Drained<'_>,
    what: &str,
    holds: impl Fn(&Backend) -> bool,
) -> Result<()> {
    for &node in &drained.nodes {
        cluster.nodes[node].agent()?.wait_for_backends(what, SETTLE, |backends| {
            drained.of(backends).count() == Family::BOTH.len() && drained.of(backends).all(&holds)
        })?;
    }
    Ok(())
}

/// Connections of the VIPs' clients that a machine has at this port, as `ss` lists them.
fn sockets(cluster: &Cluster, machine: &str, port: u16) -> Result<u64> {
    let listed = cluster.host(machine)?.namespace().run("ss", &["-Htn", "state", "established"])?;
    let vips = Family::BOTH.map(vip);
    let count = listed.lines().filter(|line| {
        let mut ends = line.split_whitespace().skip(2).filter_map(|end| {
            let (address, port) = end.rsplit_once(':')?;
            let address: IpAddr = address.trim_matches(['[', ']']).parse().ok()?;
            Some(SocketAddr::new(address.to_canonical(), port.parse().ok()?))
        });
        let (Some(local), Some(peer)) = (ends.next(), ends.next()) else { return false };
        // Delivered unchanged, or translated with the VIP as the source.
        local.port() == port && (vips.contains(&local.ip()) || vips.contains(&peer.ip()))
    });
    let count = count.count() as u64;
    ensure!(!listed.is_empty(), "ss lists nothing on {machine}");
    Ok(count)
}
