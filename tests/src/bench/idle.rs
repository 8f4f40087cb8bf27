//! `idle`: what the agent's process costs when nothing happens, by the interval of its advertisements.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::unistd::{SysconfVar, sysconf};
use serde_json::json;

use crate::backend::Mode;
use crate::scenario::cluster::Cluster;
use crate::scenario::shape::{Shape, Vrrp};
use crate::scenario::stage::Stage;

/// Between advertisements.
const INTERVALS: [(&str, Duration); 2] =
    [("10ms", Duration::from_millis(10)), ("100ms", Duration::from_millis(100))];
/// A tick of the kernel's account is 10 ms: 0.05 % of it.
const SPAN: Duration = Duration::from_secs(20);
/// Of a core.
const BAR_PERCENT: f64 = 1.0;

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    for (name, interval) in INTERVALS {
        stage.step(&format!("{name}: starting"));
        let vrrp = Some(Vrrp { interval });
        let mut cluster = Cluster::start(stage, Shape { vrrp, ..Shape::masters(&[Mode::Https]) })?;
        cluster.elect(0, &[0, 1, 2])?;
        cluster.settle()?;
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
