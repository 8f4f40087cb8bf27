//! `import`: the files of today's cluster, keepalived's of three masters and nginx's, through `lbctl import`.
//! Agents that start with nothing but its result serve what the old programs did.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use lb_agent::control::api::{Track, TrackState};
use serde_json::Value;

use super::cluster::{Cluster, SETTLE};
use super::owner::{await_owner, one_answers};
use super::shape::{Family, NIC, Shape, sources, vip};
use super::stage::Stage;
use crate::backend::Mode;
use crate::client::{Arguments, Connections};
use crate::lab::agent::{Agent, binary};
use crate::lab::peer::today;

const MASTERS: u8 = 3;

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    let mut cluster = Cluster::machines(stage, Shape::masters(&[Mode::Https]))?;
    stage.step("importing the files");
    let text = import(stage, cluster.lab.directory())?;

    stage.step("starting agents with the result");
    for node in &mut cluster.nodes {
        node.agent = Some(Agent::start(&node.host, &text)?);
    }
    // Version 2 and two seconds, as the files say: its down interval is 6.6 s.
    cluster.nodes[0].agent_mut()?.wait_until_active(SETTLE)?;
    cluster.settle()?;
    for node in &cluster.nodes {
        let looked = |track: &Track| track.state != TrackState::Unknown;
        let track = node.agent()?.wait_for_track("check_nginx", SETTLE, looked)?;
        let holds = track.state == TrackState::Good && track.weight == Some(-5);
        let text = format!("{} runs the script that vrrp_script names", node.host.name());
        stage.claim(&text, holds, format!("{}: {:?}, {}", track.about, track.state, track.reason));
    }
    serves(stage, &cluster, 1, "master1, of the highest priority")?;

    stage.step("master1 resigns");
    cluster.nodes[0].agent()?.lbctl(["vrrp", "hold"])?;
    cluster.nodes[1].agent_mut()?.wait_until_active(SETTLE)?;
    serves(stage, &cluster, 2, "then master2, of the second")
}

/// The text that comes of the files, which are put into a directory.
fn import(stage: &mut Stage, directory: &Path) -> Result<String> {
    let write = |name: &str, text: &str| -> Result<PathBuf> {
        let path = directory.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {name}"))?;
        Ok(path)
    };
    // The clusters' own starts nginx, which is not there any more.
    let script = write("check_nginx.sh", "#!/bin/sh\nexit 0\n")?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    let result = directory.join("imported.toml");
    let mut lbctl = Command::new(binary("lbctl")?);
    lbctl.args(["-o", "json", "import", "--write"]).arg(&result).arg("--nginx");
    lbctl.arg(write("nginx.conf", today::NGINX)?).arg(write("stream.conf", today::NGINX_STREAM)?);
    lbctl.arg("--keepalived");
    for master in 1..=MASTERS {
        let text = today::keepalived(master, false, &script)?;
        lbctl.arg(write(&format!("master{master}.conf"), &text)?);
    }
    let output = lbctl.output().context("cannot run lbctl")?;
    let said = String::from_utf8_lossy(&output.stderr);
    stage.claim("everything is taken over", output.status.success(), output.status.to_string());
    let report: Value = serde_json::from_str(&said).with_context(|| format!("no JSON: {said}"))?;
    for group in ["taken", "meaningless", "not_taken", "traps"] {
        stage.figure(group, report[group].as_array().context("a list")?.len());
    }
    let text = fs::read_to_string(&result).context("no result")?;
    let hidden = !said.contains(today::PASSWORD) && text.contains(today::PASSWORD);
    stage.claim("the password is in the file, not in the report", hidden, String::new());
    Ok(text)
}

/// The VIP is at the master, and every backend answers through it and sees the clients themselves.
fn serves(stage: &mut Stage, cluster: &Cluster, master: u8, who: &str) -> Result<()> {
    let mac = cluster.host(&format!("master{master}"))?.mac(NIC)?;
    let asking = cluster.host("client2")?;
    await_owner(asking, vip(Family::V4), mac, SETTLE)?;
    one_answers(stage, &format!("{who} has the VIP"), asking, vip(Family::V4), mac)?;
    let arguments = Arguments {
        connections: Connections::PerRequest,
        concurrency: 8,
        count: 160,
        source: sources("client1", Family::V4),
        ..cluster.arguments(Mode::Https, Family::V4)
    };
    let report = cluster.complete("client1", &arguments)?;
    let all = report.failed == 0 && report.backends.len() == usize::from(MASTERS);
    stage.claim(&format!("{who} serves with every backend"), all, report.summary());
    let seen = format!("{} of {} see another one", report.mismatched, report.requests);
    let text = format!("{who}: the backends see the clients' own addresses");
    stage.claim(&text, report.mismatched == 0, seen);
    Ok(())
}
