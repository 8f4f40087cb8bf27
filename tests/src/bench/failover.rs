//! `failover`: how long nobody answers at the VIP when the Active node dies or resigns, beside a real
//! keepalived of the same version and interval on the same switch, the two in turns.

mod keepalived;

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use crate::scenario::failover::trial::{Fault, Trial, Turn};
use crate::scenario::failover::{median, sorted_ms};
use crate::scenario::shape::{down_interval, priority};
use crate::scenario::stage::Stage;
use crate::scenario::tally::rounded;
use keepalived::Pair;

/// Longer than it takes: the kernel's programs are loaded anew after each crash.
pub(super) const LIMIT: Duration = Duration::from_secs(900);

/// Between advertisements, and how often each fault is made: odd, so that the median is a measured
/// value; the slow one less often.
const INTERVALS: [(&str, Duration, usize); 3] = [
    ("1s", Duration::from_secs(1), 5),
    ("100ms", Duration::from_millis(100), 7),
    ("10ms", Duration::from_millis(10), 9),
];

/// What a crash may take, of three intervals and the skew.
const CRASH_MAX: f64 = 1.05;
const RESIGN_MAX_MS: f64 = 5.0;

/// Gaps of one interval.
#[derive(Default)]
struct Gaps {
    crash: Vec<Turn>,
    resign: Vec<Turn>,
    peer_crash: Vec<Duration>,
    peer_resign: Vec<Duration>,
}

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    for (name, interval, runs) in INTERVALS {
        if stage.interval().is_some_and(|only| only != interval) {
            continue;
        }
        stage.step(&format!("{name}: starting"));
        let mut trial = Trial::begin(stage, interval)?;
        let mut pair = Pair::start(trial.cluster(), interval)?;
        let mut gaps = Gaps::default();
        for number in 1..=runs {
            stage.step(&format!("{name}: run {number} of {runs}"));
            gaps.crash.push(trial.turn(stage, Fault::Crash)?);
            gaps.peer_crash.push(pair.turn(trial.cluster(), Fault::Crash)?);
            gaps.resign.push(trial.turn(stage, Fault::Resign)?);
            gaps.peer_resign.push(pair.turn(trial.cluster(), Fault::Resign)?);
        }
        drop(pair);
        let tally = trial.end(stage)?;
        judge(stage, name, interval, &gaps, (tally.failed(), tally.streams_broken()));
    }
    Ok(())
}

fn judge(stage: &mut Stage, name: &str, interval: Duration, gaps: &Gaps, broken: (u64, u64)) {
    // The shorter one of the pair's.
    let theory = down_interval(interval, priority(1));
    let theory_ms = theory.as_secs_f64() * 1e3;
    let crash = sorted_ms(gaps.crash.iter().map(|turn| turn.gap));
    let resign = sorted_ms(gaps.resign.iter().map(|turn| turn.gap));
    let peer_crash = sorted_ms(gaps.peer_crash.iter().copied());
    let peer_resign = sorted_ms(gaps.peer_resign.iter().copied());
    let [crash_ms, resign_ms, peer_crash_ms, peer_resign_ms] =
        [&crash, &resign, &peer_crash, &peer_resign].map(|all| median(all));
    let text = format!("{name}: a crash takes at most {CRASH_MAX} of three intervals and skew");
    let bound_ms = CRASH_MAX * theory_ms;
    let seen = |ours: f64, all: &[f64], bound: f64, peer: f64, peers: &[f64]| {
        format!(
            "median {ours:.1} ms of {all:.1?}, bound {bound:.1} ms; keepalived {peer:.1} ms of {peers:.1?}"
        )
    };
    let line = seen(crash_ms, &crash, bound_ms, peer_crash_ms, &peer_crash);
    stage.claim(&text, crash_ms <= bound_ms, line);
    let text = format!("{name}: a resignation takes at most {RESIGN_MAX_MS} ms");
    let line = seen(resign_ms, &resign, RESIGN_MAX_MS, peer_resign_ms, &peer_resign);
    stage.claim(&text, resign_ms <= RESIGN_MAX_MS, line);
    let (failed, streams_broken) = broken;
    let all = |values: &[f64]| values.iter().copied().map(rounded).collect::<Vec<_>>();
    let dual = sorted_ms(gaps.crash.iter().chain(&gaps.resign).map(|turn| turn.dual));
    stage.figure(
        &format!("at_{name}"),
        json!({
            "theory_ms": rounded(theory_ms),
            "crash_gap_ms": rounded(crash_ms),
            "crash_gaps_ms": all(&crash),
            "crash_of_theory": hundredths(crash_ms / theory_ms),
            "keepalived_crash_gap_ms": rounded(peer_crash_ms),
            "keepalived_crash_gaps_ms": all(&peer_crash),
            "crash_of_keepalived": hundredths(crash_ms / peer_crash_ms),
            "resign_gap_ms": rounded(resign_ms),
            "resign_gaps_ms": all(&resign),
            "keepalived_resign_gap_ms": rounded(peer_resign_ms),
            "keepalived_resign_gaps_ms": all(&peer_resign),
            "resign_of_keepalived": hundredths(resign_ms / peer_resign_ms),
            "dual_answer_max_ms": dual.last().copied().unwrap_or_default(),
            "requests_failed": failed,
            "streams_broken_other_backends": streams_broken,
        }),
    );
}

fn hundredths(ratio: f64) -> f64 {
    (ratio * 100.0).round() / 100.0
}
