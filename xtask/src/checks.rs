//! What has passed and failed so far in `cargo xtask test`: one for each check, test and scenario.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Instant;

use anyhow::Context;

use crate::command::{each_line, shown};

/// The sum over everything that was run.
#[derive(Default, Debug)]
pub(crate) struct Tally {
    passed: u64,
    failed: u64,
    /// What failed, to be named again at the end, after pages of output.
    failures: Vec<String>,
}

impl Tally {
    /// Counts one check; its error is its report.
    pub(crate) fn check(&mut self, name: &str, check: impl FnOnce() -> anyhow::Result<()>) {
        let (result, seconds) = timed(check);
        self.count(name, result, seconds);
    }

    /// Counts checks of which so many run at the same time.
    pub(crate) fn beside<T: Sync>(
        &mut self,
        at_once: usize,
        items: &[T],
        title: impl Fn(&T) -> String,
        check: impl Fn(&T) -> anyhow::Result<()> + Sync,
    ) {
        let (next, check) = (AtomicUsize::new(0), &check);
        let (results, ended) = mpsc::channel();
        std::thread::scope(|scope| {
            for _ in 0..at_once {
                let (results, next) = (results.clone(), &next);
                scope.spawn(move || {
                    while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let (result, seconds) = timed(|| check(item));
                        // The other end lives as long as this scope.
                        let _ = results.send((item, result, seconds));
                    }
                });
            }
            drop(results);
            for (item, result, seconds) in ended {
                self.count(&title(item), result, seconds);
            }
        });
    }

    fn count(&mut self, name: &str, result: anyhow::Result<()>, seconds: f64) {
        match result {
            Ok(()) => {
                self.passed += 1;
                println!("{name}: ok ({seconds:.1} s)");
            }
            Err(error) => {
                println!("{name}: FAILED ({seconds:.1} s)\n{error:#}");
                self.fail(name);
            }
        }
    }

    /// Runs `cargo test` and counts its tests, as they say it themselves.
    pub(crate) fn tests(&mut self, name: &str, command: &mut std::process::Command) {
        println!("{name}: {}", shown(command));
        let failed_before = self.failed;
        let status = each_line(command, |line| {
            println!("{line}");
            self.read(line);
        });
        let complaint = match status.context("cannot run the tests") {
            Ok(status) if status.success() => return,
            Ok(status) => format!("{name} ({status})"),
            Err(error) => format!("{name} ({error:#})"),
        };
        // Something else than a test failed: the compiler, or a test's process as a whole.
        if self.failed == failed_before {
            self.fail(&complaint);
        }
    }

    /// Reads one line of libtest's output.
    fn read(&mut self, line: &str) {
        if let Some(name) = line.strip_prefix("test ").and_then(|l| l.strip_suffix(" ... FAILED")) {
            self.failures.push(name.to_owned());
        }
        let Some(result) = line.strip_prefix("test result: ") else { return };
        self.passed += count(result, "passed");
        self.failed += count(result, "failed");
    }

    fn fail(&mut self, name: &str) {
        self.failed += 1;
        self.failures.push(name.to_owned());
    }

    /// Prints what failed and the sum, which is the last line; whether all is well.
    pub(crate) fn finish(self) -> bool {
        for failure in &self.failures {
            println!("failed: {failure}");
        }
        println!("{} passed, {} failed", self.passed, self.failed);
        self.passed > 0 && self.failed == 0
    }
}

fn timed(check: impl FnOnce() -> anyhow::Result<()>) -> (anyhow::Result<()>, f64) {
    let started = Instant::now();
    (check(), started.elapsed().as_secs_f64())
}

/// The number before a word, as in `ok. 16 passed; 0 failed; 0 ignored`.
fn count(result: &str, word: &str) -> u64 {
    let mut words = result.split([' ', ';']).filter(|word| !word.is_empty()).peekable();
    while let Some(number) = words.next() {
        if words.peek() == Some(&word) {
            return number.parse().unwrap_or(0);
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn after(script: &str) -> Tally {
        let mut tally = Tally::default();
        tally.tests("tests", Command::new("sh").args(["-c", script]));
        tally
    }

    #[test]
    fn results_of_several_binaries_add_up() {
        let tally = after(
            "echo 'test result: ok. 16 passed; 0 failed; 1 ignored; 0 measured; finished in 0.02s'
             echo 'test a::b ... FAILED'
             echo 'test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured'
             exit 101",
        );
        assert_eq!((tally.passed, tally.failed), (19, 1));
        assert_eq!(tally.failures, ["a::b"]);
    }

    #[test]
    fn a_run_that_ends_badly_without_a_failed_test_is_a_failure() {
        let tally = after("echo 'error: could not compile'; exit 101");
        assert_eq!((tally.passed, tally.failed), (0, 1));
        assert!(tally.failures[0].contains("101"), "{:?}", tally.failures);
    }

    #[test]
    fn nothing_tested_is_not_a_success() {
        assert!(!after("true").finish());
        assert!(after("echo 'test result: ok. 1 passed; 0 failed;'").finish());
    }

    #[test]
    fn a_failed_check_counts_and_does_not_end_the_run() {
        let mut tally = Tally::default();
        tally.check("first", || anyhow::bail!("no"));
        tally.check("second", || Ok(()));
        assert_eq!((tally.passed, tally.failed), (1, 1));
    }

    #[test]
    fn checks_beside_one_another_all_count_and_two_meet() {
        let mut tally = Tally::default();
        let meeting = std::sync::Barrier::new(2);
        tally.beside(2, &[1, 2, 3, 4], u32::to_string, |number| {
            meeting.wait();
            anyhow::ensure!(*number != 3, "no");
            Ok(())
        });
        assert_eq!((tally.passed, tally.failed, tally.failures), (3, 1, vec!["3".to_owned()]));
    }
}
