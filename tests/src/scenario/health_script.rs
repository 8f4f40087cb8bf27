//! `health-script`: what a script finds out about a backend counts. One that it finds sick, or that it hangs for, gets no
//! new clients and keeps those that it has. A script that others could change, or that is gone, speaks against nobody.

use std::fs::{self, Permissions};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use lb_agent::control::api;

use super::cluster::{Cluster, SETTLE};
use super::shape::{Family, Shape, address, sources};
use super::stage::Stage;
use super::tally::Tally;
use crate::backend::Mode;
use crate::client::{Arguments, Connections};

const SICK: &str = "master2";
const STREAMS: u32 = 8;
const REQUESTS: u64 = 200;

/// The script, and what it reads.
struct Script {
    path: PathBuf,
    /// A file for each backend that is not well.
    folder: PathBuf,
}

impl Script {
    fn write(directory: &Path) -> Result<Self> {
        let (path, folder) = (directory.join("check"), directory.join("words"));
        fs::create_dir(&folder).context("a folder for the script")?;
        let words = folder.display();
        let text = format!(
            "#!/bin/sh\n\
             read word 2>&- < {words}/$LB_BACKEND_ADDRESS\n\
             case $word in\n\
             sick) echo no disk left; exit 3;;\n\
             hang) sleep 600;;\n\
             esac\n\
             echo $LB_SERVICE for $LB_VIP at $LB_BACKEND_ADDRESS port $LB_BACKEND_PORT\n"
        );
        fs::write(&path, text).context("the script")?;
        let script = Self { path, folder };
        script.set_mode(0o755)?;
        Ok(script)
    }

    fn set_mode(&self, mode: u32) -> Result<()> {
        fs::set_permissions(&self.path, Permissions::from_mode(mode)).context("the script's mode")
    }

    /// Has it find this of a machine's backends; nothing where they are well.
    fn find(&self, name: &str, word: Option<&str>) -> Result<()> {
        let addresses: [IpAddr; 2] = Family::BOTH.map(|family| address(name, family));
        for file in addresses.map(|address| self.folder.join(address.to_string())) {
            match word {
                // Beside it, and then in its place: no run is to read half a word.
                Some(word) => {
                    let whole = self.folder.join("next");
                    fs::write(&whole, format!("{word}\n")).context("a word for the script")?;
                    fs::rename(whole, file).context("a word for the script")?;
                }
                None => fs::remove_file(file).context("a word for the script")?,
            }
        }
        Ok(())
    }
}

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    let mut cluster = Cluster::machines(stage, Shape::masters(&[Mode::Https]))?;
    let script = Script::write(cluster.lab.directory())?;
    cluster.shape.checks = format!(
        "interval = \"500ms\"\ntimeout = \"400ms\"\nfall = 2\nscript = [{:?}]\nuser = \"root\"\n",
        script.path
    );
    cluster.start_agents()?;
    cluster.settle()?;
    let well =
        "exit status 0, said: kube-apiserver-ipv4 for 192.168.139.150 at 192.168.139.134 port 6443";
    claim_said(stage, &cluster, SICK, "the script is told whom it checks", well, Family::V4)?;
    let kept = |arguments| Arguments { streams: STREAMS, pause_ms: 20, ..arguments };
    let loads = cluster.loads("kept", kept)?;
    claim_served(stage, &cluster, "all is well", true)?;

    for (word, said) in [
        ("sick", "exit status 3, said: no disk left"),
        ("hang", "killed after 400ms without an end"),
    ] {
        stage.step(&format!("{SICK} is found to be: {word}"));
        script.find(SICK, Some(word))?;
        cluster.wait_for_verdicts(SICK, false)?;
        for family in Family::BOTH {
            claim_said(stage, &cluster, SICK, "what the script says is told", said, family)?;
        }
        claim_served(stage, &cluster, word, false)?;
        script.find(SICK, None)?;
        cluster.wait_for_verdicts(SICK, true)?;
    }

    for (fault, said) in [
        ("others could change it", "is writable by others than its owner (mode 0775)"),
        ("it is gone", "there is no "),
    ] {
        stage.step(&format!("the script: {fault}"));
        let aside = script.path.with_extension("aside");
        match fault {
            "it is gone" => fs::rename(&script.path, &aside).context("the script aside")?,
            _ => script.set_mode(0o775)?,
        }
        for node in cluster.shape.node_names() {
            let text = format!("{fault}: {node} keeps its state, and why is told");
            let said = format!("cannot be checked now: {}", said_of(&script.path, said));
            claim_said(stage, &cluster, &node, &text, &said, Family::V6)?;
        }
        claim_served(stage, &cluster, fault, true)?;
        match fault {
            "it is gone" => fs::rename(&aside, &script.path).context("the script back")?,
            _ => script.set_mode(0o755)?,
        }
        await_backends(&cluster, "the script runs again", |backend| {
            !backend.reason.contains("cannot be checked")
        })?;
    }

    let mut tally = Tally::default();
    tally.all_answered(stage, loads)?;
    tally.unbroken(stage, 2 * STREAMS);
    tally.figures(stage);
    Ok(())
}

/// A sentence about the script begins or ends with its path.
fn said_of(path: &Path, said: &str) -> String {
    let path = path.display();
    if said.ends_with(' ') { format!("{said}{path}") } else { format!("{path} {said}") }
}

/// New connections are served, by the sick one among others or not.
fn claim_served(stage: &mut Stage, cluster: &Cluster, when: &str, by_it: bool) -> Result<()> {
    for (client, family) in [("client1", Family::V4), ("client2", Family::V6)] {
        let arguments = Arguments {
            connections: Connections::PerRequest,
            concurrency: 8,
            count: REQUESTS,
            source: sources(client, family),
            ..cluster.arguments(Mode::Https, family)
        };
        let report = cluster.complete(client, &arguments)?;
        let its = report.backends.get(SICK).copied().unwrap_or(0);
        let holds = report.failed == 0 && (its > 0) == by_it;
        let text = format!("{when}: {SICK} gets new {} connections: {by_it}", family.name());
        stage.claim(&text, holds, report.summary());
    }
    Ok(())
}

fn await_backends(
    cluster: &Cluster,
    what: &str,
    holds: impl Fn(&api::Backend) -> bool,
) -> Result<()> {
    cluster.nodes.iter().try_for_each(|node| {
        node.agent()?.wait_for_backends(what, SETTLE, |backends| backends.iter().all(&holds))
    })
}

/// The first node says this of the backend of a family on a node.
fn claim_said(
    stage: &mut Stage,
    cluster: &Cluster,
    on: &str,
    text: &str,
    said: &str,
    family: Family,
) -> Result<()> {
    let agent = cluster.nodes[0].agent()?;
    let of = |backends: &[api::Backend]| -> Option<String> {
        let at = address(on, family);
        let backend = backends.iter().find(|backend| backend.address.ip() == at)?;
        Some(backend.reason.clone())
    };
    let says = |reason: Option<String>| reason.is_some_and(|reason| reason.contains(said));
    agent.wait_for_backends(text, SETTLE, |backends| says(of(backends)))?;
    let reason = of(&agent.backends()?);
    stage.claim(
        &format!("{text} ({})", family.name()),
        says(reason.clone()),
        format!("{reason:?}"),
    );
    Ok(())
}
