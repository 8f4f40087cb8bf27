//! A hundred thousand scenarios of VRRP routers in virtual time. Needs no root. `LB_SEED` chooses
//! others than those of every run; `lb-lab simulate` runs more.

use std::io::{Write as _, stdout};

use lb_tests::simulation::{SEED, runner};

/// Seconds in release mode.
const SCENARIOS: u64 = 100_000;

/// Unoptimised, as many as take no longer.
const FEWER: u64 = 5_000;

#[test]
fn whatever_happens_one_router_is_active_in_the_end_and_no_overlap_is_unexplained() {
    let seed = std::env::var("LB_SEED").map_or(SEED, |seed| {
        seed.parse().unwrap_or_else(|_| panic!("LB_SEED is {seed:?}, not a whole number"))
    });
    let scenarios = if cfg!(debug_assertions) { FEWER } else { SCENARIOS };
    // Also where it hangs or ends the process; the harness hides it where all is well.
    let _ = writeln!(stdout(), "LB_SEED={seed}");
    let report = runner::run(seed, scenarios, |_| {});
    let first: String = report.violations.iter().take(1).map(ToString::to_string).collect();
    let (violated, events) = (report.violated, report.events);
    assert_eq!(violated, 0, "LB_SEED={seed}: of {scenarios} scenarios broke a rule\n{first}");
    assert!(report.scenarios == scenarios && events > 50 * scenarios, "{events} events in all");
}
