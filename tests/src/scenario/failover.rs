//! `failover-*`: VRRP moves the VIP by itself, again and again, between two nodes that balance for
//! servers on two others. A prober asks the VIP every millisecond; another machine asks as often by
//! ARP who has it; kept connections and streams are open all the time.

use std::time::Duration;

use anyhow::Result;

use super::stage::Stage;
use super::tally::rounded;
use crate::client::Probe;
use trial::{Fault, Trial, Turn};

pub(crate) mod trial;

/// Unless another one is asked for.
const INTERVAL: Duration = Duration::from_millis(100);
/// Odd, so that the median is a measured value.
const RUNS: usize = 5;

pub(super) fn crash(stage: &mut Stage) -> Result<()> {
    run(stage, Fault::Crash)
}

pub(super) fn agent_kill(stage: &mut Stage) -> Result<()> {
    run(stage, Fault::AgentKill)
}

pub(super) fn agent_stop(stage: &mut Stage) -> Result<()> {
    run(stage, Fault::AgentStop)
}

pub(super) fn resign(stage: &mut Stage) -> Result<()> {
    run(stage, Fault::Resign)
}

fn run(stage: &mut Stage, fault: Fault) -> Result<()> {
    let interval = stage.interval().unwrap_or(INTERVAL);
    let mut trial = Trial::begin(stage, interval)?;
    let mut turns = Vec::new();
    for number in 1..=RUNS {
        stage.step(&format!("run {number} of {RUNS}"));
        turns.push(trial.turn(stage, fault)?);
    }
    stage.figure("moved_before", trial.moved_before());
    trial.end(stage)?;
    judge(stage, fault, interval, &turns);
    Ok(())
}

fn judge(stage: &mut Stage, fault: Fault, interval: Duration, turns: &[Turn]) {
    let gaps_ms = sorted_ms(turns.iter().map(|turn| turn.probe.gap));
    let theory_ms = median(&sorted_ms(turns.iter().map(|turn| turn.theory)));
    let gap_ms = median(&gaps_ms);
    // A crash waits for the others' timers. Whatever leaves the data path alone waits for none: the
    // bound is below the shortest of them, the successor's skew. How little it costs is the figure.
    let skew_ms = theory_ms - 3.0 * milliseconds(interval);
    let (text, bound_ms) = match fault {
        Fault::Crash => ("a crash is over in 1.05 of three intervals and skew", 1.05 * theory_ms),
        _ => ("the move waits for no timer", skew_ms),
    };
    let seen = format!("median {gap_ms:.1} ms of {gaps_ms:.1?}, bound {bound_ms:.1} ms");
    stage.claim(text, gap_ms <= bound_ms, seen);
    if matches!(fault, Fault::AgentKill | Fault::AgentStop) {
        let counts: Vec<_> = turns.iter().map(|turn| turn.answers).collect();
        let alone = counts.iter().all(|&(own, other)| own > 0 && other == 0);
        let text = "from the new Active node's first announcement on it alone answers ARP";
        stage.claim(text, alone, format!("(its own, others') answers: {counts:?}"));
    }
    let dual_ms = sorted_ms(turns.iter().map(|turn| turn.dual));
    stage.figure("gap_ms", rounded(gap_ms));
    stage.figure("theory_ms", rounded(theory_ms));
    stage.figure("dual_answer_ms", median(&dual_ms));
    stage.figure("dual_answer_max_ms", dual_ms.last().copied().unwrap_or_default());
    stage.figure("interval_ms", milliseconds(interval));
    stage.figure("runs", turns.len());
    let probes = turns.iter().map(|turn| turn.probe);
    stage.figure("prober_pause_max_ms", longest_pause_ms(probes.clone()));
    stage.figure("prober_realtime", probes.clone().all(|probe| probe.realtime));
}

/// How late the probers themselves were.
pub(crate) fn longest_pause_ms(probes: impl Iterator<Item = Probe>) -> f64 {
    rounded(milliseconds(probes.map(|probe| probe.pause).max().unwrap_or_default()))
}

/// In order.
pub(crate) fn sorted_ms(durations: impl Iterator<Item = Duration>) -> Vec<f64> {
    let mut all: Vec<f64> = durations.map(milliseconds).collect();
    all.sort_by(f64::total_cmp);
    all
}

/// Of sorted values; of an even number the greater one of the middle.
pub(crate) fn median(sorted: &[f64]) -> f64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

pub(super) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
