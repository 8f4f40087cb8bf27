//! `failover`: how long nobody answers at the VIP when the Active node dies or resigns, beside a real
//! keepalived of the same version and interval on the same switch, the two in turns.

mod keepalived;

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use crate::client::Probe;
use crate::scenario::failover::trial::{Fault, Trial, Turn};
use crate::scenario::failover::{longest_pause_ms, median, sorted_ms};
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
    peer_crash: Vec<Probe>,
    peer_resign: Vec<Probe>,
}

impl Gaps {
    fn probes(&self) -> impl Iterator<Item = Probe> + Clone {
        self.crash.iter().chain(&self.resign).map(|turn| turn.probe)
    }

    fn peer_probes(&self) -> impl Iterator<Item = Probe> + Clone {
        self.peer_crash.iter().chain(&self.peer_resign).copied()
    }
}

/// What befell the pairs and the load beside the faults.
struct Aside {
    requests_failed: u64,
    streams_broken: u64,
    moved_before: usize,
    peer_moved_before: usize,
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
        let (moved_before, peer_moved_before) = (trial.moved_before(), pair.moved_before());
        drop(pair);
        let tally = trial.end(stage)?;
        let (requests_failed, streams_broken) = (tally.failed(), tally.streams_broken());
        let aside = Aside { requests_failed, streams_broken, moved_before, peer_moved_before };
        judge(stage, name, interval, &gaps, &aside);
    }
    Ok(())
}

fn judge(stage: &mut Stage, name: &str, interval: Duration, gaps: &Gaps, aside: &Aside) {
    // The shorter one of the pair's.
    let theory = down_interval(interval, priority(1));
    let theory_ms = theory.as_secs_f64() * 1e3;
    let crash = sorted_ms(gaps.crash.iter().map(|turn| turn.probe.gap));
    let resign = sorted_ms(gaps.resign.iter().map(|turn| turn.probe.gap));
    let peer_crash = sorted_ms(gaps.peer_crash.iter().map(|probe| probe.gap));
    let peer_resign = sorted_ms(gaps.peer_resign.iter().map(|probe| probe.gap));
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
            "requests_failed": aside.requests_failed,
            "streams_broken_other_backends": aside.streams_broken,
            "moved_before": aside.moved_before,
            "keepalived_moved_before": aside.peer_moved_before,
            "prober_pause_max_ms": longest_pause_ms(gaps.probes()),
            "keepalived_prober_pause_max_ms": longest_pause_ms(gaps.peer_probes()),
            "prober_realtime": gaps.probes().chain(gaps.peer_probes()).all(|probe| probe.realtime),
        }),
    );
}

fn hundredths(ratio: f64) -> f64 {
    (ratio * 100.0).round() / 100.0
}
