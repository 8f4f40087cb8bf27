//! Scripts for tests: files in a directory of the test's own.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::unistd::{User, geteuid};

/// A directory of the test's own, removed with it.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("lb-script-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).expect("a new directory");
        set_mode(&path, 0o755);
        Self(path)
    }

    /// A script of the shell.
    pub(crate) fn script(&self, body: &str) -> PathBuf {
        let path = self.0.join("check");
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).expect("a writable directory");
        set_mode(&path, 0o755);
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    let mode = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(path, mode).expect("a file of our own");
}

pub(crate) fn own_name() -> String {
    User::from_uid(geteuid()).expect("users can be read").expect("we are somebody").name
}
