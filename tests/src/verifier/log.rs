//! What the verifier says about its own work: kernel/bpf/verifier.c, `print_verification_stats`.

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::calls::Calls;

/// Of one program.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Statistics {
    /// That the verifier went through: those on several ways as often.
    pub instructions: u64,
    /// Of the deepest chain of calls.
    pub stack_bytes: u64,
    /// Points at which it compared what it knew.
    pub states: u64,
    pub peak_states: u64,
    pub microseconds: u64,
}

impl Statistics {
    /// Reads the last lines of a log, as in
    ///
    /// ```text
    /// verification time 4632 usec
    /// stack depth 120+16
    /// processed 3512 insns (limit 1000000) max_states_per_insn 12 total_states 210 peak_states 190 mark_read 30
    /// ```
    pub(super) fn read(log: &str, calls: &Calls) -> Result<Self> {
        let line = |start: &str| log.lines().find_map(|line| line.strip_prefix(start));
        let processed = line("processed ").context("the verifier's log counts nothing")?;
        let words: Vec<&str> = processed.split_ascii_whitespace().collect();
        let after = |name: &str| {
            let at = words.iter().position(|word| *word == name)?;
            words.get(at + 1)?.parse().ok()
        };
        let stack = line("stack depth ").context("the verifier's log has no stack depth")?;
        let depths = stack.split('+').map(|depth| depth.trim().parse::<u64>());
        let depths = depths
            .collect::<Result<Vec<u64>, _>>()
            .with_context(|| format!("no depths in `stack depth {stack}`"))?;
        let time = line("verification time ").and_then(|rest| rest.split(' ').next()?.parse().ok());
        Ok(Self {
            instructions: words
                .first()
                .and_then(|word| word.parse().ok())
                .with_context(|| format!("no count in `processed {processed}`"))?,
            stack_bytes: calls.stack_bytes(&depths),
            states: after("total_states").unwrap_or_default(),
            peak_states: after("peak_states").unwrap_or_default(),
            microseconds: time.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "verification time 4632 usec\nstack depth 120+16\nprocessed 3512 insns (limit \
        1000000) max_states_per_insn 12 total_states 210 peak_states 190 mark_read 30\n";

    fn read(log: &str) -> Result<Statistics> {
        Statistics::read(log, &Calls::none())
    }

    #[test]
    fn every_figure_is_read() {
        let expected = Statistics {
            instructions: 3512,
            stack_bytes: 128,
            states: 210,
            peak_states: 190,
            microseconds: 4632,
        };
        assert_eq!(read(LOG).unwrap(), expected);
    }

    #[test]
    fn a_log_without_the_counts_is_no_report() {
        assert!(read("").is_err());
        assert!(read("processed 1 insns (limit 1000000)\n").is_err());
        assert!(read("stack depth 1\nprocessed many insns\n").is_err());
    }
}
