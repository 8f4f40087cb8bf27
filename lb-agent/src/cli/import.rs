//! `lbctl import`: the files of an existing cluster as one `lb.toml`. Needs neither privileges nor an agent.
//! The file goes to standard output, what is to be said of it to standard error.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::Outcome;
use super::check::{self, Verdict};
use super::failure::Failure;
use super::screen::{Screen, Tone};
use super::table::{Cell, Table};
use crate::import::{self, Entry, Finding, Imported, Report, Source};

/// There is a password in it.
const MODE: u32 = 0o600;

/// Turn the files of keepalived and nginx into one lb.toml
///
/// Give the keepalived.conf of every node, and nginx's files with those that they include: `include`
/// is not followed. The file goes to standard output, or to --write FILE. The report goes to standard
/// error: what each directive became, what has no meaning here, what was not taken over, where the
/// nodes' files disagree, which traps they had, and what `lbctl check` says of the result.
///
/// Exit status: 0 where everything was taken over and the result is valid; 1 where something is left
/// to do by hand, which the report names, although the file is written; 2 where a file cannot be read
/// as nginx's or keepalived's, and nothing is written.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(after_help = "Examples:\n  \
    lbctl import --nginx nginx.conf stream.conf --keepalived master1.conf master2.conf > lb.toml\n  \
    lbctl import --keepalived master*/keepalived.conf --nginx nginx.conf --write lb.toml\n  \
    lbctl import --keepalived master*.conf -o json 2>&1 >/dev/null | jq .traps")]
pub struct Arguments {
    /// nginx's files
    #[arg(long, value_name = "FILE", num_args = 1..)]
    nginx: Vec<PathBuf>,

    /// keepalived's files, one of each node; the nodes are called by their router_id or after them
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    keepalived: Vec<PathBuf>,

    /// Where the result goes, readable by its owner alone, since a password may be in it
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,

    /// Replace that file
    #[arg(long, requires = "write")]
    force: bool,
}

/// For programs.
#[derive(Serialize)]
struct Answer<'a> {
    #[serde(flatten)]
    report: &'a Report,
    check: &'a Verdict,
}

/// The file goes to `screen`, the report to `aside`.
pub(super) fn run(
    arguments: &Arguments,
    screen: &mut Screen<'_>,
    aside: &mut Screen<'_>,
) -> Result<Outcome, Failure> {
    let (nginx, keepalived) = (texts(&arguments.nginx)?, texts(&arguments.keepalived)?);
    let Imported { toml, report } = match import::import(&sources(&nginx), &sources(&keepalived)) {
        Ok(imported) => imported,
        Err(error) => {
            let label = aside.painted(Tone::Bad, "error:");
            aside.line(&format!("{label} {error}"))?;
            return Ok(Outcome::Misused);
        }
    };
    match &arguments.write {
        Some(file) => write(file, &toml, arguments.force)?,
        None => screen.bytes(toml.as_bytes())?,
    }
    let (verdict, config) = check::judge(&toml);
    if !aside.data(&Answer { report: &report, check: &verdict })? {
        tell(&report, aside)?;
        let name = arguments.write.as_deref().unwrap_or(Path::new("the result"));
        match &config {
            Ok(_) => check::complaints(&verdict, aside)?,
            Err(error) => check::refused(name, error, aside)?,
        }
        aside.line(&format!("\n{}", summary(name, &report, &verdict, aside)))?;
    }
    let whole = report.is_complete() && verdict.valid;
    Ok(if whole { Outcome::Done } else { Outcome::Failed })
}

fn texts(files: &[PathBuf]) -> Result<Vec<(String, String)>, Failure> {
    files.iter().map(|file| Ok((file.display().to_string(), check::read(file)?))).collect()
}

fn sources(texts: &[(String, String)]) -> Vec<Source<'_>> {
    texts.iter().map(|(name, text)| Source { name, text }).collect()
}

/// As a whole or not at all; what is there stays unless it is to be replaced.
fn write(file: &Path, text: &str, force: bool) -> Result<(), Failure> {
    let unwritable = |source| Failure::Unwritable { file: file.to_owned(), source };
    if file.exists() && !force {
        return Err(Failure::Exists { file: file.to_owned() });
    }
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let beside = file.with_file_name(name);
    let create = || -> io::Result<File> {
        OpenOptions::new().write(true).create_new(true).mode(MODE).open(&beside)
    };
    let mut new = create().map_err(unwritable)?;
    let written = new.write_all(text.as_bytes()).and_then(|()| new.sync_all()).and_then(|()| {
        // A link is only made where nothing is.
        if force { fs::rename(&beside, file) } else { fs::hard_link(&beside, file) }
    });
    if written.is_err() || !force {
        // Where it cannot be removed it is in nobody's way.
        let _ = fs::remove_file(&beside);
    }
    match written {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(Failure::Exists { file: file.to_owned() })
        }
        written => written.map_err(unwritable),
    }
}

fn tell(report: &Report, screen: &mut Screen<'_>) -> Result<(), Failure> {
    if !report.taken.is_empty() {
        let mut table = Table::new(["PLACE", "DIRECTIVE", "TAKEN OVER AS"]);
        for Entry { place, directive, outcome } in &report.taken {
            let row = [place.to_string(), directive.clone(), outcome.clone()];
            table.row(row.map(Cell::from));
        }
        screen.table(&table)?;
    }
    entries("Without a meaning here", Tone::Plain, &report.meaningless, screen)?;
    entries("Not taken over", Tone::Bad, &report.not_taken, screen)?;
    findings("The files disagree", Tone::Bad, &report.disagreements, screen)?;
    findings("Missing", Tone::Bad, &report.missing, screen)?;
    findings("Traps, and what is different now", Tone::Doubtful, &report.traps, screen)
}

/// Under each reason the directives that have it.
fn entries(
    heading: &str,
    tone: Tone,
    entries: &[Entry],
    screen: &mut Screen<'_>,
) -> Result<(), Failure> {
    let mut reasons: Vec<&str> = Vec::new();
    for entry in entries {
        if !reasons.contains(&entry.outcome.as_str()) {
            reasons.push(&entry.outcome);
        }
    }
    head(heading, tone, entries.len(), screen)?;
    for reason in reasons {
        screen.line(&format!("  {reason}"))?;
        for entry in entries.iter().filter(|entry| entry.outcome == reason) {
            screen.line(&format!("    {}: {}", entry.place, entry.directive))?;
        }
    }
    Ok(())
}

fn findings(
    heading: &str,
    tone: Tone,
    findings: &[Finding],
    screen: &mut Screen<'_>,
) -> Result<(), Failure> {
    head(heading, tone, findings.len(), screen)?;
    findings.iter().try_for_each(|finding| screen.line(&format!("  {finding}")))
}

fn head(heading: &str, tone: Tone, count: usize, screen: &mut Screen<'_>) -> Result<(), Failure> {
    if count == 0 {
        return Ok(());
    }
    let heading = screen.painted(tone, &format!("{heading}:"));
    screen.line(&format!("\n{heading}"))
}

fn summary(file: &Path, report: &Report, verdict: &Verdict, screen: &Screen<'_>) -> String {
    let Report { taken, meaningless, not_taken, disagreements, missing, traps } = report;
    let left = not_taken.len() + disagreements.len() + missing.len();
    let to_do = match left {
        0 => "nothing is left to do by hand".to_owned(),
        left => screen.painted(Tone::Bad, &format!("{left} to look at by hand")),
    };
    let valid = match verdict.valid {
        true => screen.painted(Tone::Good, "valid"),
        false => screen.painted(Tone::Bad, "not valid yet"),
    };
    format!(
        "{} directives taken over, {} without a meaning here, {} traps; {to_do}; {} is {valid}",
        taken.len(),
        meaningless.len(),
        traps.len(),
        file.display(),
    )
}
