//! Whether a script's file may be run: as root, a file that others can change is a way to become
//! root.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::Uid;
use thiserror::Error;

/// Write permission of the group and of others.
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// In such a directory nobody replaces what is another's.
const STICKY: u32 = 0o1000;
const EXECUTABLE: u32 = 0o111;

/// Why a script is not run.
#[derive(Debug, Error)]
pub enum Unsafe {
    #[error("there is no script {}: create it, or correct the configuration", path.display())]
    Missing { path: PathBuf },
    #[error("cannot look at the script {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} is no file: name a script", path.display())]
    NotAFile { path: PathBuf },
    #[error("{} is not executable: chmod +x {0}", path.display())]
    NotExecutable { path: PathBuf },
    #[error(
        "{} can be written by its group or by others, who could run anything with it: chmod go-w {0}",
        path.display()
    )]
    Writable { path: PathBuf },
    #[error(
        "{} belongs to the user {owner}, who could run anything with it: chown root {0}",
        path.display()
    )]
    Foreign { path: PathBuf, owner: u32 },
}

/// Whether nobody but root, this process' own user and `user` (a numeric id) can change the file,
/// nor put another one in its place. Links are followed.
///
/// # Errors
///
/// What is wrong, and what to do about it.
pub fn inspect(path: &Path, user: Option<u32>) -> Result<(), Unsafe> {
    let unreadable = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => Unsafe::Missing { path: path.to_owned() },
        _ => Unsafe::Unreadable { path: path.to_owned(), source },
    };
    let real = path.canonicalize().map_err(unreadable)?;
    let file = real.metadata().map_err(unreadable)?;
    if !file.is_file() {
        return Err(Unsafe::NotAFile { path: path.to_owned() });
    }
    if file.mode() & EXECUTABLE == 0 {
        return Err(Unsafe::NotExecutable { path: path.to_owned() });
    }
    for place in real.ancestors() {
        let metadata = place.metadata().map_err(unreadable)?;
        let (mode, owner) = (metadata.mode(), metadata.uid());
        let shared = metadata.is_dir() && mode & STICKY != 0;
        if mode & WRITABLE_BY_OTHERS != 0 && !shared {
            return Err(Unsafe::Writable { path: place.to_owned() });
        }
        if owner != 0 && owner != Uid::effective().as_raw() && Some(owner) != user {
            return Err(Unsafe::Foreign { path: place.to_owned(), owner });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// A directory of the test's own, removed with it.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("script-{}-{number}", std::process::id()));
            fs::create_dir(&path).expect("a new directory");
            fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("our own directory");
            Self(path)
        }

        fn script(&self, mode: u32) -> PathBuf {
            let path = self.0.join("script");
            fs::write(&path, "#!/bin/sh\n").expect("a writable directory");
            fs::set_permissions(&path, Permissions::from_mode(mode)).expect("our own file");
            path
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_script_that_only_its_owner_can_change_may_be_run() {
        let scratch = Scratch::new();
        for mode in [0o700, 0o755, 0o555] {
            inspect(&scratch.script(mode), None).expect("only we can change it");
        }
    }

    #[test]
    fn a_script_that_is_missing_or_no_program_is_refused() {
        let scratch = Scratch::new();
        let missing = inspect(&scratch.0.join("none"), None);
        assert!(matches!(missing, Err(Unsafe::Missing { .. })), "{missing:?}");
        let directory = inspect(&scratch.0, None);
        assert!(matches!(directory, Err(Unsafe::NotAFile { .. })), "{directory:?}");
        let text = inspect(&scratch.script(0o644), None);
        assert!(matches!(text, Err(Unsafe::NotExecutable { .. })), "{text:?}");
    }

    #[test]
    fn a_script_that_others_can_change_is_refused() {
        let scratch = Scratch::new();
        for mode in [0o775, 0o757, 0o777] {
            let refused = inspect(&scratch.script(mode), None);
            assert!(matches!(refused, Err(Unsafe::Writable { .. })), "{mode:o}: {refused:?}");
        }
    }

    #[test]
    fn a_script_that_others_can_replace_is_refused_also_behind_a_link() {
        let (scratch, elsewhere) = (Scratch::new(), Scratch::new());
        let script = scratch.script(0o755);
        let link = elsewhere.0.join("link");
        symlink(&script, &link).expect("a writable directory");
        inspect(&link, None).expect("both are ours");
        fs::set_permissions(&scratch.0, Permissions::from_mode(0o777)).expect("our own directory");
        for path in [&script, &link] {
            let refused = inspect(path, None);
            assert!(matches!(refused, Err(Unsafe::Writable { .. })), "{refused:?}");
        }
    }

    #[test]
    fn a_script_of_another_user_is_run_only_as_that_user() {
        if !Uid::effective().is_root() {
            // Only root can give a file away.
            return;
        }
        let scratch = Scratch::new();
        let script = scratch.script(0o755);
        std::os::unix::fs::chown(&script, Some(4242), None).expect("root may");
        let refused = inspect(&script, None);
        assert!(matches!(refused, Err(Unsafe::Foreign { owner: 4242, .. })), "{refused:?}");
        inspect(&script, Some(4242)).expect("it is that user's own");
    }
}
