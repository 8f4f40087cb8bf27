//! `cargo xtask tidy`: the house rules that a machine can check. One rule is one function in
//! `rules`, over a file's path and text; here they are applied to the workspace.

mod layers;
mod rules;

use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use anyhow::Context;

use crate::workspace;

/// A place where a rule is broken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Complaint {
    pub(crate) path: String,
    /// Counted from 1; 0 where the whole file is meant.
    pub(crate) line: usize,
    pub(crate) text: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.text),
            line => write!(f, "{}:{line}: {}", self.path, self.text),
        }
    }
}

/// A file as the rules see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct File<'a> {
    /// From the workspace's root, with slashes.
    pub(crate) path: &'a str,
    pub(crate) text: &'a str,
}

impl File<'_> {
    fn complain(&self, line: usize, text: impl Into<String>) -> Complaint {
        Complaint { path: self.path.to_owned(), line, text: text.into() }
    }

    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }
}

pub(crate) fn run() -> anyhow::Result<()> {
    check()?;
    println!("tidy: every rule holds");
    Ok(())
}

/// Fails with every complaint about the workspace.
pub(crate) fn check() -> anyhow::Result<()> {
    let root = workspace::root();
    let mut paths = Vec::new();
    collect(&root, &mut paths).with_context(|| format!("cannot list {}", root.display()))?;
    paths.sort();
    let mut complaints = Vec::new();
    for path in &paths {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let name = path.strip_prefix(&root).unwrap_or(path).to_string_lossy().into_owned();
        // What is not text has no lines to complain about.
        if let Ok(text) = std::str::from_utf8(&bytes) {
            complaints.extend(judge(File { path: &name, text }));
        }
    }
    let lines: Vec<_> = complaints.iter().map(ToString::to_string).collect();
    anyhow::ensure!(lines.is_empty(), "{}", lines.join("\n"));
    Ok(())
}

/// Every rule's complaints about one file.
fn judge(file: File<'_>) -> Vec<Complaint> {
    let mut complaints = rules::everywhere(file);
    if file.is_rust() {
        complaints.extend(rules::rust(file));
        complaints.extend(layers::imports(file));
    }
    if file.path.ends_with("Cargo.toml") {
        complaints.extend(layers::manifest(file));
    }
    complaints
}

/// The files of the project: no build products, no history.
fn collect(dir: &Path, paths: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let kind = entry.file_type()?;
        if kind.is_dir() {
            if !["target", ".git", ".tools"].iter().any(|skipped| name == *skipped) {
                collect(&entry.path(), paths)?;
            }
        } else if kind.is_file() && name != ".git" {
            paths.push(entry.path());
        }
    }
    Ok(())
}
