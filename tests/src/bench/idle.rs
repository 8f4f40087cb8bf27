//! `idle`: what the agent's process costs when nothing happens, by the interval of its advertisements.
//!
//! A veth's frames are carried over the switch and into the other machines in their sender's time, which
//! would be counted as the agent's. So the switch works on threads of its own here, as behind a card.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::unistd::{SysconfVar, sysconf};
use serde_json::json;

use crate::backend::Mode;
use crate::scenario::cluster::Cluster;
use crate::scenario::shape::{Family, Shape, Vrrp};
use crate::scenario::stage::Stage;

/// What runs while nothing happens: three nodes, one service with the checks that a file without a word
/// of them has.
struct Case {
    name: &'static str,
    /// Between advertisements of each family's virtual router.
    interval: Duration,
    families: &'static [Family],
}

const CASES: [Case; 3] = [
    Case { name: "10ms_ipv4", interval: Duration::from_millis(10), families: &[Family::V4] },
    Case { name: "10ms", interval: Duration::from_millis(10), families: &Family::BOTH },
    Case { name: "100ms", interval: Duration::from_millis(100), families: &Family::BOTH },
];
/// A tick of the kernel's account is 10 ms: 0.05 % of it.
const SPAN: Duration = Duration::from_secs(20);
/// Of a core.
const BAR_PERCENT: f64 = 1.0;

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    for Case { name, interval, families } in CASES {
        stage.step(&format!("{name}: starting"));
        let vrrp = Some(Vrrp { interval });
        let shape = Shape { vrrp, families, checks: "", ..Shape::masters(&[Mode::Https]) };
        let mut cluster = Cluster::start(stage, shape)?;
        cluster.elect(0, &[0, 1, 2])?;
        cluster.settle()?;
        cluster.lab.switch_on_threads()?;
        stage.step(&format!("{name}: nothing happens for {SPAN:?}"));
        let (begun, before) = (Instant::now(), used(&cluster)?);
        std::thread::sleep(SPAN);
        let (elapsed, after) = (begun.elapsed(), used(&cluster)?);
        let percent: Vec<f64> = before
            .iter()
            .zip(&after)
            .map(|(before, after)| {
                let share = (*after - *before).as_secs_f64() / elapsed.as_secs_f64();
                (share * 1e4).round() / 1e2
            })
            .collect();
        let active = cluster.active(&[0, 1, 2])?;
        let text = format!("{name}: the agent takes less than {BAR_PERCENT} % of a core");
        let holds = active == [0] && percent.iter().all(|percent| *percent < BAR_PERCENT);
        stage.claim(&text, holds, format!("Active, Backup, Backup: {percent:?} %"));
        let [active, backups @ ..] = &percent[..] else { continue };
        let figure = json!({ "active_cpu_percent": active, "backup_cpu_percent": backups });
        stage.figure(&format!("at_{name}"), figure);
    }
    Ok(())
}

/// Time on a core, in user space and in the kernel, of each node's agent.
fn used(cluster: &Cluster) -> Result<Vec<Duration>> {
    let nodes = cluster.nodes.iter();
    nodes.map(|node| process_time(node.agent()?.process().id())).collect()
}

/// utime and stime of proc_pid_stat(5).
fn process_time(id: u32) -> Result<Duration> {
    let path = format!("/proc/{id}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    // The second field is a name in parentheses that may hold anything; the third follows it.
    let (_, rest) = text.rsplit_once(')').context("a stat file without a name")?;
    let fields = rest.split_ascii_whitespace().skip(14 - 3).take(2);
    let ticks = fields.map(|field| field.parse::<u64>().context("a time")).sum::<Result<u64>>()?;
    let a_second = sysconf(SysconfVar::CLK_TCK)?.context("no CLK_TCK")?;
    Ok(Duration::from_secs_f64(ticks as f64 / a_second as f64))
}
