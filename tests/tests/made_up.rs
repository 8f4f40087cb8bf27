//! Frames that a fuzzer made up, through the programs as the kernel verified them. Needs root; says so
//! where it is not. Longer: `cargo xtask fuzz kernel`.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use lb_tests::packet::made_up::run::{self, SEED};

/// A part of the minute that fuzzing takes in the test run (xtask/src/fuzz.rs).
const TIME: Duration = Duration::from_secs(6);

#[test]
#[expect(clippy::print_stderr, reason = "the runner shows it: how many, of which seed")]
fn nothing_that_is_not_ours_is_changed_and_nothing_leaves_damaged_by_us() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folders = ["fuzz/corpus/frame", "target/fuzz/corpus/frame"].map(|path| root.join(path));
    let known = run::inputs(&folders)?;
    let report = run::run(&known, SEED, TIME)?;
    let run::Report { known, new, frames, failures } = report;
    eprintln!("{known} known and {new} new stories of seed {SEED}, {frames} frames");
    let told: Vec<String> = failures
        .iter()
        .map(|found| {
            let bytes: String = found.story.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{}: {}\nthe story: {bytes}", found.name, found.why)
        })
        .collect();
    ensure!(told.is_empty(), "{} stories failed:\n{}", told.len(), told.join("\n"));
    ensure!(frames > 100 && new > 0, "too little was tried");
    Ok(())
}
