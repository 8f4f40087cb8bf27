//! A hook's notices on disk, so that no end of the agent loses one: a directory with a file for each
//! that waits, and one that says how far the hook is. Blocks; [`hook`](super::hook) lets it.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::notice::{Notice, read_sequence};
use super::queue::{Leftovers, Work};

/// Holds the number of the last notice that was delivered.
const DELIVERED: &str = "delivered";
const NOTICE: &str = "json";
/// Of a file that is being written.
const NEW: &str = "new";
/// Of a file that cannot be read.
const SPOILT: &str = "spoilt";

#[derive(Debug)]
pub(super) struct Spool {
    directory: PathBuf,
}

/// Notices that are not safe from the agent's end.
#[derive(Debug, Error)]
#[error("cannot keep notices in {}: {source}; is the disk full, or not writable?", path.display())]
pub(super) struct SpoolError {
    path: PathBuf,
    source: io::Error,
}

impl Spool {
    pub(super) const fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// What the agent before did not deliver. A file that cannot be read is put aside.
    pub(super) fn read(&self) -> Result<Leftovers, SpoolError> {
        self.make()?;
        let mut left = Leftovers::default();
        let delivered = self.directory.join(DELIVERED);
        match fs::read(&delivered) {
            Ok(bytes) => match read_sequence(&bytes) {
                Ok(sequence) => left.delivered = sequence,
                // What was delivered may be told again.
                Err(why) => put_aside(&delivered, &why),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(failed(&delivered, source)),
        }
        for entry in fs::read_dir(&self.directory).map_err(|e| failed(&self.directory, e))? {
            let path = entry.map_err(|e| failed(&self.directory, e))?.path();
            if path.extension().is_none_or(|extension| extension != NOTICE) {
                continue;
            }
            let bytes = fs::read(&path).map_err(|source| failed(&path, source))?;
            match Notice::read(&bytes) {
                Ok(notice) if path == self.path_of(notice.sequence) => left.notices.push(notice),
                Ok(_) => put_aside(&path, "its name is not its number"),
                Err(why) => put_aside(&path, &why),
            }
        }
        Ok(left)
    }

    /// In this order: new notices, how far the hook is, files that nobody needs. Whatever it stops at,
    /// nothing is lost; at worst a notice is told again.
    pub(super) fn carry_out(&self, work: &Work) -> Result<(), SpoolError> {
        self.make()?;
        for notice in &work.write {
            self.put(&self.path_of(notice.sequence), &notice.json())?;
        }
        if let Some(sequence) = work.delivered {
            self.put(&self.directory.join(DELIVERED), format!("{sequence}\n").as_bytes())?;
        }
        if !work.write.is_empty() || work.delivered.is_some() {
            // The names too must be on disk before anything goes.
            let directory = File::open(&self.directory).and_then(|directory| directory.sync_all());
            directory.map_err(|source| failed(&self.directory, source))?;
        }
        for &sequence in &work.remove {
            let path = self.path_of(sequence);
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(failed(&path, source));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn make(&self) -> Result<(), SpoolError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.directory);
        made.map_err(|source| failed(&self.directory, source))
    }

    fn path_of(&self, sequence: u64) -> PathBuf {
        self.directory.join(format!("{sequence:020}.{NOTICE}"))
    }

    /// Whole or not at all.
    fn put(&self, path: &Path, bytes: &[u8]) -> Result<(), SpoolError> {
        let new = path.with_extension(NEW);
        let write = || {
            let mut file = File::create(&new)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&new, path)
        };
        write().map_err(|source| failed(path, source))
    }
}

fn failed(path: &Path, source: io::Error) -> SpoolError {
    SpoolError { path: path.to_owned(), source }
}

fn put_aside(path: &Path, why: &str) {
    tracing::warn!(path = %path.display(), why, "a hook's file is spoilt and put aside");
    if let Err(error) = fs::rename(path, path.with_extension(SPOILT)) {
        tracing::warn!(path = %path.display(), %error, "putting it aside");
    }
}
