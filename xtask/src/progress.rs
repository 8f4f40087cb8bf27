//! What a long step shows meanwhile, on standard error: a spinner with the running program's last
//! line on a terminal, a plain line at its start and at its end elsewhere.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often the spinner turns.
const TICK: Duration = Duration::from_millis(120);

/// A step that is under way.
pub(crate) struct Task {
    name: String,
    started: Instant,
    spinner: Option<ProgressBar>,
}

impl Task {
    pub(crate) fn start(name: &str) -> Self {
        let spinner = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) =
                ProgressStyle::with_template("{spinner} {prefix} {elapsed} {wide_msg:.dim}")
            {
                bar.set_style(style);
            }
            bar.set_prefix(name.to_owned());
            bar.enable_steady_tick(TICK);
            bar
        });
        if spinner.is_none() {
            eprintln!("{name} ...");
        }
        Self { name: name.to_owned(), started: Instant::now(), spinner }
    }

    /// The running program's latest words.
    pub(crate) fn note(&self, line: &str) {
        if let Some(spinner) = &self.spinner {
            spinner.set_message(line.trim().to_owned());
        }
    }

    pub(crate) fn done(self) {
        self.end("done");
    }

    /// Ends it and returns its name, for the error that follows.
    pub(crate) fn fail(self) -> String {
        self.end("FAILED");
        self.name
    }

    fn end(&self, outcome: &str) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
        eprintln!("{} {outcome} ({:.1} s)", self.name, self.started.elapsed().as_secs_f64());
    }
}
