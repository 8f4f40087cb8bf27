//! What outlives the agent: a value in a file of `paths.state`, replaced in one step.

use std::fs;
use std::io;
use std::path::PathBuf;

use serde::Serialize;
use tracing::warn;

/// A value, with the file that keeps it.
#[derive(Debug)]
pub(super) struct Kept<T> {
    path: PathBuf,
    value: T,
}

impl<T: Default + Serialize> Kept<T> {
    /// Reads `what` it is; a file that is missing counts as none, and so does a spoilt one.
    pub(super) fn read(
        path: PathBuf,
        what: &'static str,
        parse: impl FnOnce(&[u8]) -> Result<T, String>,
    ) -> Self {
        let bytes = match fs::read(&path) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                warn!(path = %path.display(), %error, "{what} cannot be read");
                None
            }
        };
        let value = bytes.map_or_else(T::default, |bytes| match parse(&bytes) {
            Ok(value) => value,
            Err(error) => {
                warn!(path = %path.display(), error, "{what} is spoilt and forgotten");
                T::default()
            }
        });
        Self { path, value }
    }

    pub(super) const fn value(&self) -> &T {
        &self.value
    }

    /// Changes the value, which a later [`change`](Self::change) is to write.
    pub(super) fn alter(&mut self, change: impl FnOnce(&mut T)) {
        change(&mut self.value);
    }

    /// Changes the value, and writes it. Where it cannot be written it is changed all the same.
    pub(super) fn change<R>(&mut self, change: impl FnOnce(&mut T) -> R) -> io::Result<R> {
        let changed = change(&mut self.value);
        self.write().map(|()| changed)
    }

    /// A crash leaves the old file or the new one.
    fn write(&self) -> io::Result<()> {
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let next = self.path.with_extension("json.new");
        fs::write(&next, serde_json::to_vec_pretty(&self.value)?)?;
        fs::rename(next, &self.path)
    }
}
