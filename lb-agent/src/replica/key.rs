//! The secret that the nodes share, from its file.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;
use ring::digest::{SHA256, digest};
use thiserror::Error;

/// Characters of a secret that nobody guesses: 128 bits in hexadecimal digits.
const LEAST: usize = 32;
/// No key is as long; whoever names another file by mistake is told so.
const MOST: usize = 4096;

const OTHERS: u32 = 0o077;

/// What the file's text comes to. Not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; 32]);

/// Why a file holds no key.
#[derive(Debug, Error)]
pub enum KeyError {
    #[error("cannot read {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error(
        "{} can be read or changed by others than its owner (mode {mode:04o}): chmod 600 it, and make \
         a new key if others had access",
        path.display()
    )]
    Open { path: PathBuf, mode: u32 },
    #[error("{} belongs to uid {owner}, neither to root nor to the agent's user: chown it", path.display())]
    Owner { path: PathBuf, owner: u32 },
    #[error(
        "{} holds {length} characters; a key has {LEAST} to {MOST}: openssl rand -hex 32 > {}",
        path.display(),
        path.display()
    )]
    Length { path: PathBuf, length: usize },
}

impl Key {
    /// Reads a file that nobody but its owner may read. White space around the text does not count.
    ///
    /// # Errors
    /// Where it cannot be read, others can, or it holds too little.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let unreadable = |source| KeyError::Unreadable { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(unreadable)?;
        let facts = file.metadata().map_err(unreadable)?;
        let mode = facts.permissions().mode() & 0o7777;
        if mode & OTHERS != 0 {
            return Err(KeyError::Open { path: path.to_owned(), mode });
        }
        if facts.uid() != 0 && facts.uid() != geteuid().as_raw() {
            return Err(KeyError::Owner { path: path.to_owned(), owner: facts.uid() });
        }
        let mut text = Vec::new();
        file.by_ref().take(MOST as u64 + 1).read_to_end(&mut text).map_err(unreadable)?;
        let length = text.trim_ascii().len();
        Self::of(&text).ok_or_else(|| KeyError::Length { path: path.to_owned(), length })
    }

    fn of(text: &[u8]) -> Option<Self> {
        let text = text.trim_ascii();
        if !(LEAST..=MOST).contains(&text.len()) {
            return None;
        }
        digest(&SHA256, text).as_ref().try_into().ok().map(Self)
    }

    pub(super) const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use super::*;

    const TEXT: &str = "0123456789abcdef0123456789abcdef\n";

    fn file(text: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("peers.key");
        fs::write(&path, text).expect("a file");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("its mode");
        (directory, path)
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        for mode in [0o640, 0o604, 0o620, 0o602, 0o644] {
            let (_directory, path) = file(TEXT, mode);
            let refused = Key::read(&path);
            assert!(matches!(refused, Err(KeyError::Open { .. })), "{mode:o}: {refused:?}");
        }
        for mode in [0o600, 0o400] {
            let (_directory, path) = file(TEXT, mode);
            assert!(Key::read(&path).is_ok(), "{mode:o}");
        }
    }

    #[test]
    fn a_short_text_is_no_key() {
        for text in ["", "secret", &"a".repeat(LEAST - 1), &"a".repeat(MOST + 1)] {
            let (_directory, path) = file(text, 0o600);
            assert!(matches!(Key::read(&path), Err(KeyError::Length { .. })), "{}", text.len());
        }
    }

    #[test]
    fn a_line_feed_at_the_end_makes_no_other_key_and_one_letter_does() {
        let key = |text: &str| Key::of(text.as_bytes()).expect("long enough");
        assert_eq!(key(TEXT), key(TEXT.trim()));
        assert_ne!(key(TEXT), key(&TEXT.replace('f', "e")));
    }

    #[test]
    fn it_is_not_shown() {
        let key = Key::of(TEXT.as_bytes()).expect("long enough");
        assert_eq!(format!("{key:?}"), "Key(..)");
    }
}
