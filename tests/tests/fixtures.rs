//! Every packet fixture, through the programs as the kernel verified them. Needs root; says so where
//! it is not.

use std::path::Path;

use anyhow::{Result, ensure};
use lb_tests::packet::fixture;

#[test]
#[expect(clippy::print_stderr, reason = "the runner shows it: how many there were")]
fn every_packet_gets_its_verdict_and_leaves_as_described() -> Result<()> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/packets");
    let (runs, failures) = fixture::run_all(&directory)?;
    eprintln!("{runs} runs, {} failed", failures.len());
    let count = failures.len();
    ensure!(runs > 0, "no fixtures ran");
    ensure!(count == 0, "{count} of {runs} runs failed:\n{}", failures.join("\n"));
    Ok(())
}
