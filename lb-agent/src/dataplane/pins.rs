//! Where programs' links and maps are pinned, and whether what is pinned is what we expect.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aya::maps::MapData;
use lb_common::layout::LAYOUT_VERSION;
use nix::sys::statfs::statfs;

use super::attach;
use super::error::DataPlaneError;

/// `BPF_FS_MAGIC` (include/uapi/linux/magic.h).
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// The usual place of a BPF file system.
const USUAL: &str = "/sys/fs/bpf";

/// The folder of one layout version. Names in it have no dots: a BPF file system refuses them.
#[derive(Clone, Debug)]
pub struct Pins {
    base: PathBuf,
    root: PathBuf,
}

impl Pins {
    pub fn new(base: &Path) -> Self {
        Self { base: base.to_owned(), root: base.join(format!("v{LAYOUT_VERSION}")) }
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

    /// Makes the folders, on a BPF file system, and refuses another layout's remains.
    pub(super) fn prepare(&self) -> Result<(), DataPlaneError> {
        self.require_bpf_file_system()?;
        for folder in ["maps", "links"] {
            let path = self.root.join(folder);
            fs::create_dir_all(&path).map_err(|e| DataPlaneError::file("making", &path, e))?;
        }
        for entry in fs::read_dir(&self.base)
            .map_err(|e| DataPlaneError::file("reading", &self.base, e))?
            .flatten()
        {
            if entry.path() != self.root && entry.path().is_dir() {
                return Err(DataPlaneError::OtherLayout { path: entry.path() });
            }
        }
        Ok(())
    }

    fn require_bpf_file_system(&self) -> Result<(), DataPlaneError> {
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
