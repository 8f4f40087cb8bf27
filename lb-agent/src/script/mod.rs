//! Scripts of the user's: whether one may be run at all, and running it so that it can harm nothing
//! but itself. Knows nothing of why it is run.
//!
//! A script runs in a process group of its own, which is killed at its timeout; in a clean
//! environment; as another user where one is named; and of what it prints the last line is kept.
//! Whatever still runs in its group when it ends is killed too: scripts must not pile up.

mod output;
mod pidfd;
mod run;
#[cfg(test)]
pub(crate) mod testbed;
#[cfg(test)]
mod tests;
pub mod trust;

use std::path::Path;

#[cfg(test)]
pub(crate) use pidfd::ended;
pub use run::{Ending, Input, RunError, Runner, Script};

/// Whether a program may be run as this process: root alone, or its own user, can change it.
///
/// # Errors
/// Why it may not.
pub fn trusted(path: &Path) -> Result<(), trust::Distrust> {
    trust::check(path, None).map(drop)
}
