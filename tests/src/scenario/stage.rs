//! What a scenario speaks through: claims, each proven or not, figures, and the step it is at.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::{Map, Value};

/// Who reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Audience {
    /// Lines on standard output, a progress line on a terminal.
    People,
    /// One object on standard output; what failed on standard error too.
    Machine,
}

impl Audience {
    /// With `--json` or without.
    pub const fn of(json: bool) -> Self {
        if json { Self::Machine } else { Self::People }
    }
}

/// The last line for machines.
#[derive(Debug, Serialize)]
struct Verdict<'a> {
    name: &'a str,
    ok: bool,
    figures: &'a Map<String, Value>,
    /// Claims that did not hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    refuted: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Debug)]
struct Claim {
    text: String,
    holds: bool,
}

/// How a scenario is run and shown.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The path of the `lb-lab` binary.
    pub tool: PathBuf,
    pub audience: Audience,
    /// Each step is printed.
    pub verbose: bool,
    /// Where to leave the agents' logs and last words, and what passed on the wires.
    pub evidence: Option<PathBuf>,
    /// Between VRRP's advertisements, instead of the scenario's own.
    pub interval: Option<Duration>,
    /// So many times as much as usual, where a scenario has a measure.
    pub times: u32,
}

impl Setting {
    /// Of what needs no machines: it runs within this program.
    pub const fn within(json: bool) -> Self {
        Self {
            tool: PathBuf::new(),
            audience: Audience::of(json),
            verbose: false,
            evidence: None,
            interval: None,
            times: 1,
        }
    }
}

/// One run of one scenario.
#[derive(Debug)]
pub struct Stage {
    name: String,
    tool: PathBuf,
    audience: Audience,
    verbose: bool,
    evidence: Option<PathBuf>,
    interval: Option<Duration>,
    times: u32,
    claims: Vec<Claim>,
    figures: Map<String, Value>,
    progress: ProgressBar,
}

impl Stage {
    /// # Errors
    /// Where the output is closed.
    pub fn open(name: &str, about: &str, setting: &Setting) -> Result<Self> {
        // Hidden by itself where standard error is no terminal.
        let progress = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("  {spinner} {elapsed} {wide_msg}") {
            progress.set_style(style);
        }
        progress.enable_steady_tick(Duration::from_millis(100));
        let stage = Self {
            name: name.to_owned(),
            tool: setting.tool.clone(),
            audience: setting.audience,
            verbose: setting.verbose,
            evidence: setting.evidence.as_ref().map(|directory| directory.join(name)),
            interval: setting.interval,
            times: setting.times,
            claims: Vec::new(),
            figures: Map::new(),
            progress,
        };
        if setting.audience == Audience::People {
            stage.print(&format!("{name}: {about}"))?;
        }
        Ok(stage)
    }

    pub fn tool(&self) -> &Path {
        &self.tool
    }

    /// Where this scenario leaves its evidence, if anywhere.
    pub fn evidence(&self) -> Option<&Path> {
        self.evidence.as_deref()
    }

    /// Between VRRP's advertisements, where it was asked for.
    pub const fn interval(&self) -> Option<Duration> {
        self.interval
    }

    /// How many times as much as usual is asked for.
    pub const fn times(&self) -> u32 {
        self.times
    }

    /// What it does now.
    pub fn step(&self, what: &str) {
        self.progress.set_message(what.to_owned());
        if self.verbose {
            self.note(&format!("  ...  {what}"));
        }
    }

    /// A bar to be moved up to `most`.
    pub fn bar(&self, most: u64) -> ProgressBar {
        let template = "  {spinner} {elapsed} {wide_bar} {human_pos} of {human_len}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.progress.set_style(style);
        }
        self.progress.set_length(most);
        self.progress.clone()
    }

    /// A claim and what was seen.
    pub fn claim(&mut self, text: &str, holds: bool, seen: impl std::fmt::Display) {
        let sign = if holds { "ok  " } else { "FAIL" };
        let line = format!("  {sign} {text}: {seen}");
        if self.audience == Audience::People {
            // A closed output is noticed at the end.
            let _ = self.print(&line);
        } else if self.verbose || !holds {
            self.note(&line);
        }
        self.claims.push(Claim { text: text.to_owned(), holds });
    }

    /// A line for people that claims nothing.
    pub fn say(&self, line: &str) {
        if self.audience == Audience::People {
            // A closed output is noticed at the end.
            let _ = self.print(&format!("  {line}"));
        } else if self.verbose {
            self.note(&format!("  {line}"));
        }
    }

    /// Several lines that are drawn over and over, on a terminal only.
    pub fn picture(&self, lines: &str) {
        if let Ok(style) = ProgressStyle::with_template("{msg}") {
            self.progress.set_style(style);
        }
        self.progress.set_message(lines.to_owned());
    }

    pub fn figure(&mut self, name: &str, value: impl Into<Value>) {
        self.figures.insert(name.to_owned(), value.into());
    }

    /// Whether every claim so far holds.
    pub fn holds(&self) -> bool {
        !self.claims.is_empty() && self.claims.iter().all(|claim| claim.holds)
    }

    /// The last word. True where everything holds and nothing failed.
    ///
    /// # Errors
    /// Where the output is closed.
    pub fn close(self, outcome: &Result<()>) -> Result<bool> {
        let ok = outcome.is_ok() && self.holds();
        let error = outcome.as_ref().err().map(|error| format!("{error:#}"));
        self.progress.finish_and_clear();
        if let Some(error) = &error {
            self.note(&format!("  FAIL {}: {error}", self.name));
        }
        match self.audience {
            Audience::People => {
                self.print(&format!("  {}", figures_line(&self.figures)))?;
                let word = if ok { "ok" } else { "failed" };
                self.print(&format!("{}: {word}", self.name))?;
            }
            Audience::Machine => {
                let refuted = self.claims.iter().filter(|claim| !claim.holds);
                let refuted = refuted.map(|claim| claim.text.as_str()).collect();
                let (name, figures) = (self.name.as_str(), &self.figures);
                let verdict = Verdict { name, ok, figures, refuted, error };
                self.print(&serde_json::to_string(&verdict)?)?;
            }
        }
        Ok(ok)
    }

    fn print(&self, line: &str) -> Result<()> {
        self.progress
            .suspend(|| writeln!(std::io::stdout(), "{line}"))
            .context("cannot write to the output")
    }

    fn note(&self, line: &str) {
        // Nowhere to tell where standard error is closed.
        let _ = self.progress.suspend(|| writeln!(std::io::stderr(), "{line}"));
    }
}

fn figures_line(figures: &Map<String, Value>) -> String {
    let words: Vec<String> =
        figures.iter().map(|(name, value)| format!("{name} {value}")).collect();
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage() -> Stage {
        Stage::open("name", "about", &Setting::within(true)).unwrap()
    }

    #[test]
    fn a_scenario_that_claims_nothing_is_not_ok() {
        assert!(!stage().close(&Ok(())).unwrap());
    }

    #[test]
    fn one_false_claim_or_an_error_spoils_it() {
        let mut good = stage();
        good.claim("a", true, 1);
        assert!(good.close(&Ok(())).unwrap());
        let mut bad = stage();
        bad.claim("a", true, 1);
        bad.claim("b", false, 2);
        assert!(!bad.close(&Ok(())).unwrap());
        let mut broken = stage();
        broken.claim("a", true, 1);
        assert!(!broken.close(&Err(anyhow::anyhow!("x"))).unwrap());
    }
}
