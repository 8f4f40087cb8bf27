//! Where the workspace lies, and who runs us.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::{env, path::Path};

/// The workspace's root: `cargo run` says where our manifest is now, the compiler where it was.
pub(crate) fn root() -> PathBuf {
    let manifest = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest.parent().map(Path::to_owned).unwrap_or(manifest)
}

/// Whether the effective user is root.
pub(crate) fn is_root() -> bool {
    // The owner of a process' directory is its effective user (proc(5)).
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Fails with a sentence where `what` cannot work for want of root.
pub(crate) fn require_root(what: &str) -> anyhow::Result<()> {
    anyhow::ensure!(
        is_root(),
        "{what} needs root, for it makes network namespaces and loads programs into the kernel: \
         run it again as root"
    );
    Ok(())
}
