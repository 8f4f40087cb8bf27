//! `attach`: each way to an interface on a node of its own, and each of these nodes Active in turn.
//! Small, since it also runs on emulated machines (`kernels`).

use std::time::{Duration, Instant};

use anyhow::Result;

use super::cluster::Cluster;
use super::shape::{Family, NIC, Shape, sources, target};
use super::stage::Stage;
use super::tally::{Tally, untranslated};
use crate::backend::Mode;
use crate::client::{Arguments, Connections};
use crate::lab::agent::{Agent, purge};
use crate::lab::{Host, tool};

/// By node.
const MODES: [&[&str]; 3] = [&["native"], &["generic"], &["tc"]];
/// Connections of a client in each family.
const COUNT: u64 = 32;
/// How long the kernel may take to detach what nobody refers to.
const DETACHED: Duration = Duration::from_secs(5);

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    let shape = Shape { clients: 1, on_stop_remove: true, ..Shape::masters(&[Mode::Tcp]) };
    let mut cluster = Cluster::machines(stage, shape.clone())?;
    let configuration = |modes| Shape { modes, ..shape.clone() }.configuration();
    stage.step("starting the agents");
    for (node, modes) in cluster.nodes.iter_mut().zip(MODES) {
        node.agent = Some(Agent::start(&node.host, &configuration(modes))?);
    }
    cluster.settle()?;
    let mut tally = Tally::default();
    for (index, modes) in MODES.iter().enumerate() {
        if index > 0 {
            stage.step(&format!("{} becomes Active", cluster.name_of(index)));
            cluster.move_role(index - 1, index)?;
        }
        attached(stage, &cluster, index, modes)?;
        ask(stage, &cluster, &mut tally, &format!("with {} on the Active node", modes[0]))?;
    }
    tally.spread(stage, 3);

    // Where the configuration wants it: an agent that comes back goes by that.
    cluster.move_role(2, 0)?;
    for (index, modes) in MODES.iter().enumerate() {
        stage.step(&format!("the agent on {} is killed and comes back", cluster.name_of(index)));
        let node = &mut cluster.nodes[index];
        if let Some(agent) = node.agent.take() {
            agent.kill()?;
        }
        node.agent = Some(Agent::start(&node.host, &configuration(modes))?);
    }
    cluster.settle()?;
    for (index, modes) in MODES.iter().enumerate() {
        attached(stage, &cluster, index, modes)?;
    }
    ask(stage, &cluster, &mut tally, "with programs taken over")?;
    for (node, modes) in cluster.nodes.iter_mut().zip(MODES) {
        let Some(agent) = node.agent.take() else { continue };
        let name = node.host.name();
        // Filters are nobody's who died, unlike links, so that of tc it is tried.
        let text = if modes == ["tc"] {
            agent.kill()?;
            purge(&node.host)?;
            format!("purging leaves nothing of a killed agent on {name}")
        } else {
            agent.stop()?;
            format!("an agent that ends leaves nothing on {name}")
        };
        let left = await_none_left(&node.host)?;
        stage.claim(&text, left.is_empty(), format!("{left:?}"));
    }
    tally.figures(stage);
    Ok(())
}

fn attached(stage: &mut Stage, cluster: &Cluster, node: usize, modes: &[&str]) -> Result<()> {
    let interfaces = cluster.nodes[node].agent()?.status()?.interfaces;
    let found: Vec<String> = interfaces
        .iter()
        .map(|interface| Ok(serde_json::to_string(&interface.mode)?.replace('"', "")))
        .collect::<Result<_>>()?;
    let text = format!("{} is attached by {modes:?}", cluster.name_of(node));
    stage.claim(&text, found == modes, format!("{found:?}"));
    Ok(())
}

fn ask(stage: &mut Stage, cluster: &Cluster, tally: &mut Tally, when: &str) -> Result<()> {
    for family in Family::BOTH {
        let arguments = Arguments {
            connections: Connections::PerRequest,
            concurrency: 4,
            count: COUNT,
            source: sources("client1", family),
            ..cluster.arguments(Mode::Tcp, family)
        };
        let who = format!("{} client {when}", family.name());
        let report = cluster.complete("client1", &arguments)?;
        tally.answered(stage, &who, &report);
        untranslated(stage, &who, &report, target(Mode::Tcp, family));
    }
    Ok(())
}

/// The kernel detaches a link some time after its last reference went (`bpf_link_put`).
fn await_none_left(host: &Host) -> Result<Vec<String>> {
    let deadline = Instant::now() + DETACHED;
    loop {
        let left = left(host)?;
        if left.is_empty() || Instant::now() > deadline {
            return Ok(left);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Programs on the interface that `tc` and `ip` list.
fn left(host: &Host) -> Result<Vec<String>> {
    let namespace = host.namespace().name();
    let mut text = tool::run("ip", &["-n", namespace, "link", "show", "dev", NIC])?;
    for direction in ["ingress", "egress"] {
        let words = ["-n", namespace, "filter", "show", "dev", NIC, direction];
        // Without a qdisc there is nothing to list, which some versions call a failure.
        text.push_str(&tool::run("tc", &words).unwrap_or_default());
    }
    let ours = |line: &&str| line.contains("lb_tc") || line.contains("prog/xdp");
    Ok(text.lines().filter(ours).map(str::to_owned).collect())
}
