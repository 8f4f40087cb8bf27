//! `upgrade-under-load`: agents are followed by other versions of themselves, in place and by handing over, also by
//! one with another layout of the maps and back, while they elect one another and carry every kind of load. Versions
//! that fail, at every stage of it, leave the one that runs where it is.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use lb_agent::control::api::{Role, Upgrade};
use lb_common::layout::LAYOUT_VERSION;

use super::cluster::{Cluster, SETTLE};
use super::failover::median;
use super::reload::loads;
use super::shape::{self, Family, Shape, Vrrp, sources};
use super::stage::Stage;
use super::tally::Tally;
use crate::backend::Mode;
use crate::client::{Arguments, Connections, Load};
use crate::lab::agent::{Agent, trusted_binary};

const STREAMS: u32 = 12;
const LIMIT: Duration = Duration::from_secs(30);
const INTERVAL: Duration = Duration::from_millis(100);

/// Behind the nodes, on machines that run nothing of ours: reached by NAT.
const TRANSLATED_PORT: u16 = 9443;
const SERVERS: [&str; 2] = ["server1", "server2"];

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    let mut shape =
        Shape { vrrp: Some(Vrrp { interval: INTERVAL }), ..Shape::masters(&[Mode::Https]) };
    shape.servers = 2;
    shape.further = translated();
    let mut cluster = Cluster::machines(stage, shape)?;
    for server in SERVERS {
        cluster.start_backend(server, Mode::Https)?;
    }
    stage.step("starting the agents");
    cluster.start_agents()?;
    cluster.settle()?;
    let directory = cluster.lab.directory().to_owned();
    let mut run = Run {
        loads: loads(&cluster, STREAMS)?,
        translated: translated_loads(&cluster)?,
        cluster,
        pauses: Vec::new(),
        took: Vec::new(),
        this: trusted_binary("lb-agent", &directory)?.display().to_string(),
        next: trusted_binary("lb-agent-next", &directory)?.display().to_string(),
    };
    run.proceed(20)?;
    let before = run.cluster.vrrp_transitions()?;
    run.in_place(stage)?;
    run.failing(stage)?;
    run.other_layout(stage)?;
    let after = run.cluster.vrrp_transitions()?;
    let text = "VRRP has not moved by all that";
    stage.claim(text, before == after, format!("{before:?}, {after:?}"));
    run.proceed(50)?;
    // Their flows are this node's alone.
    let mut tally = Tally::default();
    tally.all_answered(stage, std::mem::take(&mut run.translated))?;
    run.handing_over(stage)?;
    run.proceed(50)?;
    tally.all_answered(stage, std::mem::take(&mut run.loads))?;
    tally.spread(stage, 3 + SERVERS.len());
    tally.unbroken(stage, 3 * STREAMS);
    tally.figures(stage);
    run.figures(stage);
    Ok(())
}

/// The service whose clients are translated.
fn translated() -> String {
    let backends =
        SERVERS.map(|server| shape::backend(server, Mode::Https, Family::V4).to_string());
    format!(
        "\n[[service]]\nname = \"translated\"\nport = {TRANSLATED_PORT}\nbackends = {backends:?}\n"
    )
}

fn translated_loads(cluster: &Cluster) -> Result<Vec<(&'static str, Load)>> {
    let arguments = |connections, pause_ms| Arguments {
        target: SocketAddr::new(shape::vip(Family::V4), TRANSLATED_PORT),
        connections,
        concurrency: 4,
        pause_ms,
        source: sources("client1", Family::V4),
        ..cluster.arguments(Mode::Https, Family::V4)
    };
    let kept = Arguments { streams: STREAMS, ..arguments(Connections::KeepAlive, 10) };
    let mut kept = cluster.load("client1", &kept)?;
    kept.wait_until("all streams", LIMIT, |r| r.streams.opened == u64::from(STREAMS))?;
    // Each takes a port of 4,000 for a minute.
    let new = cluster.load("client1", &arguments(Connections::PerRequest, 80))?;
    Ok(vec![("a client on kept translated connections", kept), ("one on new ones", new)])
}

struct Run {
    cluster: Cluster,
    loads: Vec<(String, Load)>,
    translated: Vec<(&'static str, Load)>,
    pauses: Vec<f64>,
    took: Vec<u64>,
    /// This version, and the next one.
    this: String,
    next: String,
}

impl Run {
    /// Every client has so many more answers.
    fn proceed(&mut self, requests: u64) -> Result<()> {
        let translated = self.translated.iter_mut().map(|(_, load)| load);
        let loads = self.loads.iter_mut().map(|(_, load)| load);
        loads.chain(translated).try_for_each(|load| load.run_for_requests(requests, LIMIT))
    }

    fn agent(&mut self, node: usize) -> Result<&mut Agent> {
        self.cluster.nodes[node].agent_mut()
    }

    fn upgrade(&mut self, node: usize, arguments: &[&str]) -> Result<Upgrade> {
        let upgrade = self.agent(node)?.upgrade(arguments)?;
        self.pauses.push(upgrade.pause_ms.context("no pause is told")?);
        self.took.push(upgrade.took_ms);
        self.cluster.settle()?;
        self.proceed(10)?;
        Ok(upgrade)
    }

    fn active(&self) -> Result<usize> {
        for (index, node) in self.cluster.nodes.iter().enumerate() {
            if node.agent()?.status()?.role == Role::Active {
                return Ok(index);
            }
        }
        anyhow::bail!("no node is Active")
    }

    /// Each node in turn.
    fn in_place(&mut self, stage: &mut Stage) -> Result<()> {
        stage.step("agents are followed in place");
        let (active, this) = (self.active()?, self.this.clone());
        for node in 0..self.cluster.nodes.len() {
            let before = self.agent(node)?.process().id();
            let upgrade = self.upgrade(node, &[&this])?;
            let text = format!("another process goes on on node {}", node + 1);
            let holds = upgrade.pid.is_some_and(|pid| pid != before);
            stage.claim(&text, holds, format!("{before}, {:?}", upgrade.pid));
            let status = self.agent(node)?.status()?;
            let as_before = (status.role == Role::Active) == (node == active);
            let text = format!("node {} has the role that it had", node + 1);
            stage.claim(&text, as_before, status.role_reason);
        }
        Ok(())
    }

    /// On the Active node, whatever it is that fails.
    fn failing(&mut self, stage: &mut Stage) -> Result<()> {
        stage.step("versions that fail");
        let node = self.active()?;
        let directory = self.cluster.nodes[node].host.directory().to_owned();
        let this = self.this.clone();
        let without = |what: &str| format!("exec setpriv --bounding-set {what} {this} \"$@\"");
        let cases = [
            ("ends at once", "exit 3".to_owned(), "ended (exit status: 3)"),
            ("never says a word", "exec sleep 60".to_owned(), "said nothing"),
            ("may not load programs", without("-bpf,-sys_admin"), "needs root"),
            ("may not speak VRRP, found out last of all", without("-net_raw"), "raw socket"),
        ];
        for (number, (what, script, why)) in cases.iter().enumerate() {
            let path = directory.join(format!("fails-{number}"));
            write_program(&path, script)?;
            self.refused(stage, node, &path, what, why)?;
        }
        let path = directory.join("of-others");
        write_program(&path, "exit 0")?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o777))?;
        self.refused(stage, node, &path, "everybody can change", "writable by others")?;
        let path = PathBuf::from(&this);
        let right = self.cluster.shape.configuration();
        for (what, text, why) in [
            ("does not like its file", right.replace("port = 9443", "port = 94430"), "65535"),
            (
                "is to be in another election",
                right.replace("router_id = 51", "router_id = 52"),
                "undo it",
            ),
        ] {
            self.agent(node)?.write_configuration(&text)?;
            self.refused(stage, node, &path, what, why)?;
        }
        self.agent(node)?.write_configuration(&right)
    }

    fn refused(
        &mut self,
        stage: &mut Stage,
        node: usize,
        path: &Path,
        what: &str,
        why: &str,
    ) -> Result<()> {
        let before = (self.agent(node)?.process().id(), self.cluster.vrrp_transitions()?);
        let path = path.display().to_string();
        let said = match self.agent(node)?.upgrade([&path]) {
            Ok(upgrade) => format!("{upgrade:?}"),
            Err(error) => format!("{error:#}"),
        };
        let text = format!("a version that {what} does not follow, and lbctl says why");
        stage.claim(&text, said.contains(why), said.trim());
        self.cluster.settle()?;
        self.proceed(10)?;
        let after = (self.agent(node)?.process().id(), self.cluster.vrrp_transitions()?);
        let held = self.agent(node)?.status()?.virtual_addresses.iter().all(|vip| vip.held);
        let text =
            format!("after it ({what}) the same process has the VIPs, without a change of VRRP");
        stage.claim(&text, held && before == after, format!("{before:?}, {after:?}"));
        Ok(())
    }

    /// The Active node and a Backup to the next version, which has another layout, and back.
    fn other_layout(&mut self, stage: &mut Stage) -> Result<()> {
        stage.step("agents with another layout of the maps follow");
        let (next, this) = (self.next.clone(), self.this.clone());
        let active = self.active()?;
        let asked: Upgrade = {
            let text = self.agent(active)?.lbctl(["-o", "json", "upgrade", "--check", &next])?;
            serde_json::from_str(&text)?
        };
        let left = self.pinned(active)?;
        let holds = !asked.done && asked.to.layout_version == LAYOUT_VERSION + 1 && left.len() == 1;
        let text = "`--check` says that it would go, and leaves nothing";
        stage.claim(text, holds, format!("{asked:?} {left:?}"));
        for (path, layout) in [(&next, LAYOUT_VERSION + 1), (&this, LAYOUT_VERSION)] {
            for node in [active, (active + 1) % self.cluster.nodes.len()] {
                let flows = self.agent(node)?.counter("nat_forward")?;
                self.upgrade(node, &[path])?;
                let status = self.agent(node)?.status()?;
                let left = self.pinned(node)?;
                let holds = status.layout_version == layout && left == [format!("v{layout}")];
                let text =
                    format!("node {} has layout {layout}, and nothing else is left", node + 1);
                stage.claim(&text, holds, format!("{left:?}"));
                let counted = self.agent(node)?.counter("nat_forward")?;
                let text = format!("the counters of node {} went along", node + 1);
                stage.claim(&text, counted >= flows, format!("{flows}, {counted}"));
            }
        }
        Ok(())
    }

    fn pinned(&self, node: usize) -> Result<Vec<String>> {
        let directory: PathBuf = self.cluster.nodes[node].host.bpf_directory();
        let entries = std::fs::read_dir(&directory)?.flatten();
        Ok(entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
    }

    /// The Active node gives the VIPs away before. What follows is the file that the agent was started from.
    fn handing_over(&mut self, stage: &mut Stage) -> Result<()> {
        stage.step("an agent hands over, and is followed then");
        let node = self.active()?;
        let before: u64 = self.cluster.vrrp_transitions()?.iter().sum();
        self.upgrade(node, &["--hand-over"])?;
        let agent = self.agent(node)?;
        agent.wait_until("it is Backup", SETTLE, |status| status.role == Role::Backup)?;
        let after: u64 = self.cluster.vrrp_transitions()?.iter().sum();
        let now = self.active()?;
        let text = "another node is Active then, by one change on each, in each family";
        let holds = now != node && after - before == 4;
        stage.claim(text, holds, format!("node {}, {} changes", now + 1, after - before));
        Ok(())
    }

    fn figures(&mut self, stage: &mut Stage) {
        self.took.sort_unstable();
        self.pauses.sort_unstable_by(f64::total_cmp);
        stage.figure("upgrades", self.took.len() as u64);
        stage.figure("upgrade_ms_median", self.took[self.took.len() / 2]);
        stage.figure("vrrp_pause_ms_median", median(&self.pauses));
        stage.figure("vrrp_pause_ms_most", self.pauses[self.pauses.len() - 1]);
    }
}

/// A shell script in the place of a program.
fn write_program(path: &Path, script: &str) -> Result<()> {
    std::fs::write(path, format!("#!/bin/sh\n{script}\n")).context("cannot write a program")?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).context("chmod")
}
