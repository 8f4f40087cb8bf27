//! `scale`: a million concurrent flows, a thousand services of a thousand backends each, and ten thousand
//! changes of tables in a row under traffic, without a wrong packet; that what changes is there all the
//! time (`steady`); and what a flow and a service take of the machine's memory, held against what the
//! documentation says.
//!
//! Who must get a packet is reckoned apart from the code that steers (`reckon`).

mod flows;
mod frames;
mod reckon;
mod rig;
mod services;
mod steady;
mod updates;

use anyhow::{Context as _, Result};

use super::stage::Stage;

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    services::run(stage)?;
    flows::run(stage)?;
    updates::run(stage)?;
    steady::run(stage)
}

/// The table of sizes that users read.
const DOCUMENT: &str = include_str!("../../../../docs/operations.md");

/// Claims that a thing takes as many bytes as docs/operations.md says, give or take a twentieth.
fn documented(stage: &mut Stage, thing: &str, measured: u64) -> Result<()> {
    let row = DOCUMENT.lines().find_map(|line| line.strip_prefix(&format!("| {thing} | ")));
    let said = row.and_then(|rest| rest.split_once(" |")).map(|(number, _)| number);
    let said = said.with_context(|| format!("docs/operations.md has no row for {thing}"))?;
    let said: u64 = said.trim().parse().with_context(|| format!("{said:?} bytes for {thing}"))?;
    let text = format!("{thing} takes what the documentation says");
    stage.claim(
        &text,
        measured.abs_diff(said) * 20 <= said,
        format!("{measured} and {said} bytes"),
    );
    Ok(())
}
