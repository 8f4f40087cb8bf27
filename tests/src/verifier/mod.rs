//! What the kernel's verifier makes of the programs: how much it went through for each, against what
//! it goes through at most, so that a program that grows is noticed before a kernel refuses it.

mod calls;
mod load;
mod log;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

pub use log::Statistics;

/// `BPF_COMPLEXITY_LIMIT_INSNS` (include/linux/bpf.h), since Linux 5.2.
pub const INSTRUCTIONS_MAX: u64 = 1_000_000;
/// `MAX_BPF_STACK` (include/linux/filter.h), in bytes, over a chain of calls.
pub const STACK_BYTES_MAX: u64 = 512;

/// The share of that limit above which the report fails: another kernel may go through more for the
/// same program.
pub const INSTRUCTIONS_SHARE_MAX: f64 = 0.50;
/// The stack is what the compiler laid out: no kernel, packet or configuration makes more of it than
/// the oldest kernel's arithmetic does. One step of that, 32 bytes, is to be left.
pub const STACK_SHARE_MAX: f64 = 0.95;

/// Every program of the object, by name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    pub kernel: String,
    pub programs: BTreeMap<String, Statistics>,
}

impl Report {
    /// Has the running kernel verify every program. Nothing is attached or pinned.
    ///
    /// # Errors
    /// Where it refuses one; the message holds the verifier's last words.
    pub fn of_this_kernel() -> Result<Self> {
        Ok(Self { kernel: release()?, programs: load::statistics(lb_agent::dataplane::object())? })
    }

    /// A sentence for each program that is near a limit.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for (name, program) in &self.programs {
            for (what, found, limit, share) in [
                (
                    "instructions verified",
                    program.instructions,
                    INSTRUCTIONS_MAX,
                    INSTRUCTIONS_SHARE_MAX,
                ),
                ("bytes of stack", program.stack_bytes, STACK_BYTES_MAX, STACK_SHARE_MAX),
            ] {
                if found as f64 > limit as f64 * share {
                    warnings.push(format!(
                        "{name}: {found} {what} are more than {:.0} % of the kernel's limit of \
                         {limit}: make the program smaller, or put a part of it into a function \
                         of its own",
                        share * 100.0
                    ));
                }
            }
        }
        warnings
    }

    /// Columns for people.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{:<18} {:>12} {:>7} {:>6} {:>7} {:>8} {:>8}\n",
            "PROGRAM", "INSTRUCTIONS", "LIMIT", "STACK", "LIMIT", "STATES", "TIME"
        );
        for (name, program) in &self.programs {
            let share = |found: u64, limit: u64| 100.0 * found as f64 / limit as f64;
            let _ = writeln!(
                text,
                "{name:<18} {:>12} {:>5.1} % {:>6} {:>5.1} % {:>8} {:>5.1} ms",
                program.instructions,
                share(program.instructions, INSTRUCTIONS_MAX),
                program.stack_bytes,
                share(program.stack_bytes, STACK_BYTES_MAX),
                program.states,
                program.microseconds as f64 / 1000.0,
            );
        }
        text
    }
}

/// The running kernel's release, as in 6.1.0-56-cloud-amd64.
///
/// # Errors
/// Where /proc is not mounted.
pub fn release() -> Result<String> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease");
    Ok(release.context("cannot read the kernel's release")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(instructions: u64, stack_bytes: u64) -> Report {
        let statistics = Statistics { instructions, stack_bytes, ..Statistics::default() };
        let programs = BTreeMap::from([("lb_xdp".to_owned(), statistics)]);
        Report { kernel: "6.1".to_owned(), programs }
    }

    #[test]
    fn a_program_that_nears_a_limit_is_named_with_the_limit() {
        assert!(report(500_000, 480).warnings().is_empty());
        let warnings = report(500_001, 512).warnings();
        assert_eq!(warnings.len(), 2);
        assert!(warnings[0].contains("lb_xdp: 500001 instructions"), "{warnings:?}");
        assert!(warnings[1].contains("512 bytes of stack"), "{warnings:?}");
    }

    #[test]
    fn the_table_has_a_line_for_each_program() {
        let table = report(123_456, 256).table();
        assert_eq!(table.lines().count(), 2);
        assert!(table.contains("123456  12.3 %    256  50.0 %"), "{table}");
    }
}
