//! Many scenarios, one after the other on each core.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::router::{Build, build};
use super::scenario::Scenario;
use super::watch::{Invariant, Overlaps, Violation};
use super::world::{Outcome, World};

/// Scenarios that a thread takes at once.
const BATCH: u64 = 256;

/// Violations that are kept: who broke a rule broke it a thousand times.
const KEPT: usize = 5;

/// What many scenarios came to.
#[derive(Default, Debug)]
pub struct Report {
    pub scenarios: u64,
    /// Packets that arrived and timers that fired.
    pub events: u64,
    /// How many scenarios broke an invariant.
    pub violated: u64,
    /// The first of them.
    pub violations: Vec<Violation>,
    pub overlaps: Overlaps,
    pub took: Duration,
}

impl Report {
    fn add(&mut self, outcome: Outcome) {
        self.scenarios += 1;
        self.events += outcome.events;
        self.violated += u64::from(!outcome.violations.is_empty());
        self.violations.extend(outcome.violations);
        self.merge_overlaps(outcome.overlaps);
        self.keep_first();
    }

    fn merge(&mut self, other: Self) {
        self.scenarios += other.scenarios;
        self.events += other.events;
        self.violated += other.violated;
        self.violations.extend(other.violations);
        self.merge_overlaps(other.overlaps);
        self.keep_first();
    }

    fn merge_overlaps(&mut self, others: Overlaps) {
        for (key, count) in others {
            self.overlaps.entry(key).or_default().add(count);
        }
    }

    fn keep_first(&mut self) {
        self.violations.sort_by_key(|violation| violation.seed);
        self.violations.truncate(KEPT);
    }
}

/// Runs the scenarios of `count` seeds from `seed` on, on every core. `progress` is told how many
/// are done.
pub fn run(seed: u64, count: u64, progress: impl Fn(u64) + Sync) -> Report {
    run_with(build, seed, count, progress)
}

pub(super) fn run_with(
    build: Build,
    seed: u64,
    count: u64,
    progress: impl Fn(u64) + Sync,
) -> Report {
    let began = Instant::now();
    let (next, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let whole = Mutex::new(Report::default());
    let work = || {
        let mut own = Report::default();
        loop {
            let first = next.fetch_add(BATCH, Ordering::Relaxed);
            if first >= count {
                break;
            }
            let last = count.min(first + BATCH);
            (first..last).for_each(|index| own.add(simulate(build, seed.wrapping_add(index))));
            progress(done.fetch_add(last - first, Ordering::Relaxed) + last - first);
        }
        whole.lock().expect("no thread panics while it adds up").merge(own);
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(work))));
    let mut report = whole.into_inner().expect("no thread panics while it adds up");
    report.took = began.elapsed();
    report
}

/// The scenario of one seed.
pub(super) fn simulate(build: Build, seed: u64) -> Outcome {
    let scenario = Scenario::draw(seed);
    catch_unwind(AssertUnwindSafe(|| World::new(&scenario, build).run())).unwrap_or_else(|panic| {
        let text = panic.downcast::<String>().map_or_else(
            |panic| panic.downcast::<&str>().map_or_else(|_| "?".into(), |text| (*text).into()),
            |text| *text,
        );
        let (invariant, members, trace) = (Invariant::NoPanic, Vec::new(), Vec::new());
        let violations = vec![Violation { invariant, seed, text, members, trace }];
        Outcome { violations, ..Outcome::default() }
    })
}
