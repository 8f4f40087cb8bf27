//! What a guest says when it is done: one line of JSON.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::verifier;

#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    /// As in 6.1.0-56-cloud-amd64.
    pub release: String,
    /// Seconds from the kernel's start until its first process was at work.
    pub booted_s: f64,
    pub checks: Vec<Check>,
}

impl Report {
    /// Nothing where a program was refused.
    pub fn verifier(&self) -> Option<verifier::Report> {
        let check = self.checks.iter().find(|check| check.name == "verifier")?;
        serde_json::from_value(check.result.as_ref()?.get("report")?.clone()).ok()
    }
}

/// One thing that was tried.
#[derive(Debug, Serialize, Deserialize)]
pub struct Check {
    pub name: String,
    pub ok: bool,
    pub seconds: f64,
    /// What it printed, where that was JSON.
    pub result: Option<Value>,
    /// What it said beside that.
    pub words: String,
}
