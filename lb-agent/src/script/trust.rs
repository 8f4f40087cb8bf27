//! Whether a script may be run: nobody but root and the user that it runs as can change it, or any
//! directory or link on the way to it. [`judge`] decides; [`check`] looks at the files.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use nix::unistd::{User, getegid, geteuid};
use thiserror::Error;

/// As the kernel's own bound (`MAXSYMLINKS`).
const LINKS_MAX: usize = 40;
/// S_ISVTX: in such a directory only its owner can replace a file.
const STICKY: u32 = 0o1000;
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Whom a script runs as; without supplementary groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    File,
    Directory,
    Link,
    Other,
}

/// What counts of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub path: PathBuf,
    pub form: Form,
    pub uid: u32,
    pub gid: u32,
    /// Permissions, with the sticky bit.
    pub mode: u32,
}

/// Why a script is not run.
#[derive(Debug, Error)]
pub enum Distrust {
    #[error("there is no {}", path.display())]
    Missing { path: PathBuf },
    #[error("{} cannot be looked at: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} goes through more than {LINKS_MAX} links", path.display())]
    Links { path: PathBuf },
    #[error("there is no user {name}: name another `user`, or create it")]
    NoUser { name: String },
    #[error("the user {name} cannot be looked up: {source}")]
    UnknownUser { name: String, source: nix::Error },
    #[error("{} is no file", path.display())]
    NotAFile { path: PathBuf },
    #[error("{} is not executable by {user}: chmod it, or name another `user`", path.display())]
    NotExecutable { path: PathBuf, user: String },
    #[error("{} cannot be entered by {user}: move the script, or name another `user`", path.display())]
    NotEntered { path: PathBuf, user: String },
    #[error("{} is writable by others than its owner (mode {mode:04o}): chmod go-w it", path.display())]
    Writable { path: PathBuf, mode: u32 },
    #[error("{} belongs to uid {owner}, neither to root nor to {user}: chown it", path.display())]
    Owner { path: PathBuf, owner: u32, user: String },
}

/// Judges the way to a script: directories and links in order, at its end the file.
///
/// # Errors
///
/// The first thing that is wrong.
pub fn judge(way: &[Facts], user: &Identity) -> Result<(), Distrust> {
    for facts in way {
        let path = || facts.path.clone();
        if facts.uid != 0 && facts.uid != user.uid {
            let user = user.name.clone();
            return Err(Distrust::Owner { path: path(), owner: facts.uid, user });
        }
        let sticky = facts.form == Form::Directory && facts.mode & STICKY != 0;
        if facts.form != Form::Link && facts.mode & WRITABLE_BY_OTHERS != 0 && !sticky {
            return Err(Distrust::Writable { path: path(), mode: facts.mode });
        }
        if facts.form == Form::Directory && !executable(facts, user) {
            return Err(Distrust::NotEntered { path: path(), user: user.name.clone() });
        }
    }
    let Some(file) = way.last() else { return Ok(()) };
    if file.form != Form::File {
        return Err(Distrust::NotAFile { path: file.path.clone() });
    }
    if !executable(file, user) {
        let user = user.name.clone();
        return Err(Distrust::NotExecutable { path: file.path.clone(), user });
    }
    Ok(())
}

/// By the mode alone. Where an access control list says otherwise the start fails, which is said.
const fn executable(facts: &Facts, user: &Identity) -> bool {
    let bits = if user.uid == 0 {
        match facts.form {
            Form::Directory => return true,
            _ => 0o111,
        }
    } else if facts.uid == user.uid {
        0o100
    } else if facts.gid == user.gid {
        0o010
    } else {
        0o001
    };
    facts.mode & bits != 0
}

/// Looks at the script, and at whom it is to run as: a user, or the agent's own.
///
/// # Errors
///
/// Why it is not to be run.
pub fn check(path: &Path, user: Option<&str>) -> Result<Identity, Distrust> {
    let identity = match user {
        Some(user) => look_up(user)?,
        // The agent itself.
        None => {
            let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
            let name = if uid == 0 { "root".to_owned() } else { format!("uid {uid}") };
            Identity { name, uid, gid }
        }
    };
    judge(&way(path)?, &identity)?;
    Ok(identity)
}

fn look_up(user: &str) -> Result<Identity, Distrust> {
    let name = || user.to_owned();
    let found = User::from_name(user)
        .map_err(|source| Distrust::UnknownUser { name: name(), source })?
        .ok_or_else(|| Distrust::NoUser { name: name() })?;
    Ok(Identity { name: name(), uid: found.uid.as_raw(), gid: found.gid.as_raw() })
}

/// Follows an absolute path as the kernel does, and notes all that it goes through.
fn way(path: &Path) -> Result<Vec<Facts>, Distrust> {
    let mut way = vec![facts(Path::new("/"))?];
    let mut here = PathBuf::from("/");
    let mut ahead = VecDeque::from(names(path));
    let mut links = 0;
    while let Some(name) = ahead.pop_front() {
        if name == ".." {
            here.pop();
            continue;
        }
        let next = here.join(&name);
        let found = facts(&next)?;
        let form = found.form;
        way.push(found);
        if form != Form::Link {
            here = next;
            continue;
        }
        links += 1;
        if links > LINKS_MAX {
            return Err(Distrust::Links { path: path.to_owned() });
        }
        let target = std::fs::read_link(&next)
            .map_err(|source| Distrust::Unreadable { path: next, source })?;
        if target.is_absolute() {
            here = PathBuf::from("/");
        }
        for name in names(&target).into_iter().rev() {
            ahead.push_front(name);
        }
    }
    Ok(way)
}

fn names(path: &Path) -> Vec<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect()
}

/// Of the file itself, where it is a link.
fn facts(path: &Path) -> Result<Facts, Distrust> {
    let metadata = std::fs::symlink_metadata(path).map_err(|source| {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Distrust::Missing { path },
            _ => Distrust::Unreadable { path, source },
        }
    })?;
    let kind = metadata.file_type();
    let form = match () {
        () if kind.is_symlink() => Form::Link,
        () if kind.is_dir() => Form::Directory,
        () if kind.is_file() => Form::File,
        () => Form::Other,
    };
    Ok(Facts {
        path: path.to_owned(),
        form,
        uid: metadata.uid(),
        gid: metadata.gid(),
        mode: metadata.mode() & 0o7777,
    })
}
