//! `lbctl doctor`: can this machine run the load balancer, and what is worse here than elsewhere?
//! Needs no agent. Each finding has a remedy.

use clap::Args;
use serde::Serialize;

use super::Outcome;
use super::failure::Failure;
use super::screen::{Screen, Tone};
use super::table::{Cell, Table};
use crate::kernel::{Finding, Knowledge, Severity};

/// Look whether this machine's kernel has what the load balancer needs
///
/// Needs no running agent. As root the kernel is asked; otherwise its version is judged. Exit status
/// is 1 where something that is required is missing.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(after_help = "Examples:\n  \
    lbctl doctor\n  \
    lbctl doctor -o json | jq '.findings[] | select(.severity != \"good\")'")]
pub struct Arguments {}

/// For programs.
#[derive(Serialize)]
struct Diagnosis<'a> {
    kernel: &'a str,
    summary: String,
    findings: &'a [Finding],
}

pub(super) fn run(screen: &mut Screen<'_>) -> Result<Outcome, Failure> {
    let knowledge = Knowledge::gather();
    let (kernel, findings) = (&knowledge.release, &knowledge.findings);
    let diagnosis = Diagnosis { kernel, summary: knowledge.summary(), findings };
    if !screen.data(&diagnosis)? {
        let mut table = Table::new(["KERNEL", "", "FOUND"]);
        for finding in findings {
            let (tone, word) = word(finding.severity);
            table.row([
                Cell::from(finding.subject.as_str()),
                Cell::toned(tone, word),
                Cell::from(finding.found.as_str()),
            ]);
        }
        screen.table(&table)?;
        for finding in findings {
            if let Some(remedy) = &finding.remedy {
                screen.line(&format!("\n{}: {remedy}", finding.subject))?;
            }
        }
        screen.line(&format!("\n{}", diagnosis.summary))?;
    }
    let bad = findings.iter().any(|finding| finding.severity == Severity::Bad);
    Ok(if bad { Outcome::Failed } else { Outcome::Done })
}

const fn word(severity: Severity) -> (Tone, &'static str) {
    match severity {
        Severity::Good => (Tone::Good, "ok"),
        Severity::Doubtful => (Tone::Doubtful, "worse"),
        Severity::Bad => (Tone::Bad, "missing"),
    }
}
