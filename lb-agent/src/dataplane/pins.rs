//! Where programs' links and maps are pinned, and whether what is pinned is what we expect.
//!
//! Each layout version has a folder. There are two while one agent follows another of another layout; the
//! one that is in charge is marked as settled.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use aya::maps::{Map, MapData};
use nix::sys::statfs::statfs;

use super::attach;
use super::error::DataPlaneError;
use super::layout::Layout;

/// `BPF_FS_MAGIC` (include/uapi/linux/magic.h).
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// The usual place of a BPF file system.
const USUAL: &str = "/sys/fs/bpf";

/// The folder of one layout version. Names in it have no dots: a BPF file system refuses them.
#[derive(Clone, Debug)]
pub struct Pins {
    base: PathBuf,
    root: PathBuf,
    version: u32,
}

impl Pins {
    /// Those of this version's layout.
    pub fn new(base: &Path) -> Self {
        Self::of(base, Layout::CURRENT.version)
    }

    pub fn of(base: &Path, version: u32) -> Self {
        Self { base: base.to_owned(), root: base.join(format!("v{version}")), version }
    }

    /// Another layout's.
    pub(super) fn sibling(&self, version: u32) -> Self {
        Self::of(&self.base, version)
    }

    pub(super) fn base(&self) -> &Path {
        &self.base
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) const fn version(&self) -> u32 {
        self.version
    }

    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.root.join("maps").join(name)
    }

    pub(super) fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    pub(super) fn interface(&self, index: u32) -> PathBuf {
        self.links().join(format!("if{index}"))
    }

    pub(super) fn cgroup(&self) -> PathBuf {
        self.links().join("cgroup")
    }

    /// Whether an agent left something here.
    pub(super) fn exist(&self) -> bool {
        self.root.join("maps").is_dir()
    }

    /// The interface indexes with pinned links.
    pub(super) fn interfaces(&self) -> Vec<u32> {
        interfaces(&self.links()).map(|(index, _)| index).collect()
    }

    /// Makes the folders.
    pub(super) fn make_folders(&self) -> Result<(), DataPlaneError> {
        for folder in ["maps", "links"] {
            let path = self.root.join(folder);
            fs::create_dir_all(&path).map_err(|e| DataPlaneError::file("making", &path, e))?;
        }
        Ok(())
    }

    /// What else lies beside: other layouts', and what nobody knows.
    pub(super) fn others(&self) -> Result<Vec<Other>, DataPlaneError> {
        let entries = match fs::read_dir(&self.base) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(DataPlaneError::file("reading", &self.base, error)),
        };
        let folders = entries.flatten().map(|entry| entry.path());
        let others = folders.filter(|path| *path != self.root && path.is_dir());
        Ok(others.map(|path| self.other(path)).collect())
    }

    fn other(&self, path: PathBuf) -> Other {
        let version =
            path.file_name().and_then(|name| name.to_str()?.strip_prefix('v')?.parse().ok());
        Other { pins: version.map(|version| self.sibling(version)), path }
    }

    /// A folder: on a BPF file system there are no others' files.
    fn mark(&self) -> PathBuf {
        self.root.join("settled")
    }

    /// Whether the agent that it belongs to is, or was, in charge.
    pub(super) fn is_settled(&self) -> bool {
        self.mark().is_dir()
    }

    /// Notes that the agent that it belongs to is in charge.
    pub(super) fn settle(&self) -> io::Result<()> {
        fs::create_dir_all(self.mark())
    }

    pub(super) fn require_bpf_file_system(&self) -> Result<(), DataPlaneError> {
        let mut existing = self.base.as_path();
        while !existing.exists() {
            existing = existing.parent().unwrap_or(Path::new("/"));
        }
        if is_bpf_file_system(existing) {
            return Ok(());
        }
        // A machine without systemd has the mount point, but nothing on it.
        if self.base.starts_with(USUAL) && Path::new(USUAL).is_dir() {
            let mounted = nix::mount::mount(
                Some("bpf"),
                USUAL,
                Some("bpf"),
                nix::mount::MsFlags::empty(),
                None::<&str>,
            );
            if mounted.is_ok() {
                return Ok(());
            }
        }
        Err(DataPlaneError::NoBpfFileSystem { path: self.base.clone() })
    }

    /// Removes every pin of every layout version: unpinned links detach, filters are deleted, maps
    /// go with their last user.
    pub fn purge(&self) -> io::Result<()> {
        for version in fs::read_dir(&self.base).into_iter().flatten().flatten() {
            for (index, folder) in interfaces(&version.path().join("links")) {
                attach::detach_filters(&folder, index);
            }
        }
        match fs::remove_dir_all(&self.base) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Removes the pins of this layout version.
    pub(super) fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Compares a pinned map with what this version would make. aya takes a pinned map over without
    /// looking, and reads past its values if they are shorter than it thinks.
    pub(super) fn check(&self, name: &str, expected: &Shape) -> Result<(), DataPlaneError> {
        let path = self.map(name);
        if !path.exists() {
            return Ok(());
        }
        let info = MapData::from_pin(&path)
            .and_then(|map| map.info())
            .map_err(|e| DataPlaneError::map("reading", name, e))?;
        let found = Shape {
            key_size: info.key_size(),
            value_size: info.value_size(),
            max_entries: info.max_entries(),
        };
        if found == *expected {
            return Ok(());
        }
        Err(DataPlaneError::Layout {
            path,
            found: found.to_string(),
            expected: expected.to_string(),
        })
    }
}

/// The interfaces with a folder among the links, by index.
fn interfaces(links: &Path) -> impl Iterator<Item = (u32, PathBuf)> {
    fs::read_dir(links).into_iter().flatten().flatten().filter_map(|entry| {
        let index = entry.file_name().to_str()?.strip_prefix("if")?.parse().ok()?;
        Some((index, entry.path()))
    })
}

fn is_bpf_file_system(path: &Path) -> bool {
    statfs(path).is_ok_and(|info| info.filesystem_type().0 == BPF_FS_MAGIC)
}

/// Sizes of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) key_size: u32,
    pub(super) value_size: u32,
    pub(super) max_entries: u32,
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "keys of {} and values of {} bytes and {} entries",
            self.key_size, self.value_size, self.max_entries
        )
    }
}

/// Something that lies beside a layout's folder.
#[derive(Debug)]
pub(super) struct Other {
    pub(super) path: PathBuf,
    /// Where it has a layout's name.
    pub(super) pins: Option<Pins>,
}

/// Opens a pinned map as the type that it is used as.
pub(super) fn open_map<M: TryFrom<Map>>(pins: &Pins, name: &str) -> Result<M, DataPlaneError>
where
    M::Error: std::fmt::Display,
{
    let map = MapData::from_pin(pins.map(name)).and_then(Map::from_map_data);
    let map = map.map_err(|e| DataPlaneError::map("opening", name, e))?;
    map.try_into().map_err(|error: M::Error| DataPlaneError::Object {
        detail: format!("map {name}: {error}"),
    })
}

/// A descriptor of a pinned map, for what aya's types don't offer.
pub(super) fn descriptor(pins: &Pins, name: &str) -> Result<OwnedFd, DataPlaneError> {
    let map = MapData::from_pin(pins.map(name));
    let map = map.map_err(|e| DataPlaneError::map("opening", name, e))?;
    let fd = map.fd().as_fd().try_clone_to_owned();
    fd.map_err(|e| DataPlaneError::io("duplicating", name, e))
}
