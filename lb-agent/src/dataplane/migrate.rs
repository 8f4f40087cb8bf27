//! From the maps of one layout to those of another: what is the same is pinned in both places, what is
//! not is copied, and links are pinned in both, so that whoever gives up its place takes nothing along.

use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

use aya::maps::{MapData, MapType};
use lb_common::layout::map;

use super::batch;
use super::error::DataPlaneError;
use super::layout::{Convert, Direction, Fate, Former, Layout};
use super::links;
use super::pins::Pins;

/// A way from one agent's pins to another's.
#[derive(Debug)]
pub(super) struct Migration {
    from: Pins,
    to: Pins,
    copied: Vec<(&'static str, Convert)>,
}

/// Which elements are copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pass {
    /// All.
    First,
    /// Those of hash maps that have come since.
    Again,
}

impl Migration {
    /// Pins what both layouts have in common in the other place too. Nothing is written to any map.
    ///
    /// # Errors
    /// Where it cannot be pinned.
    pub(super) fn begin(
        from: Pins,
        to: Pins,
        former: &Former,
        direction: Direction,
    ) -> Result<Self, DataPlaneError> {
        to.make_folders()?;
        let mut copied = Vec::new();
        for name in map::ALL {
            match former.fate(name, direction) {
                Fate::Anew => {}
                Fate::Copied(convert) => copied.push((name, convert)),
                Fate::Shared if from.map(name).exists() => {
                    share(&from.map(name), &to.map(name))
                        .map_err(|e| DataPlaneError::io("pinning once more", name, e))?;
                }
                Fate::Shared => {}
            }
        }
        Ok(Self { from, to, copied })
    }

    /// Pins the links in the other place too, once nobody attaches or detaches any more.
    ///
    /// # Errors
    /// Where one cannot be pinned.
    pub(super) fn share_links(&self) -> Result<(), DataPlaneError> {
        let (from, to) = (self.from.links(), self.to.links());
        for folder in entries(&from) {
            let Some(name) = folder.file_name() else { continue };
            let there = to.join(name);
            fs::create_dir_all(&there).map_err(|e| DataPlaneError::file("making", &there, e))?;
            for link in entries(&folder) {
                let Some(name) = link.file_name() else { continue };
                let there = there.join(name);
                // A directory stands for a filter.
                let done = match link.is_dir() {
                    true => fs::create_dir_all(&there),
                    false => share(&link, &there),
                };
                done.map_err(|e| DataPlaneError::file("pinning once more", &link, e))?;
            }
        }
        Ok(())
    }

    /// Copies what the layouts do not have in common. Returns how many elements.
    ///
    /// # Errors
    /// Where the kernel refuses to read or to write. A map that is full is none: flows are soft.
    pub(super) fn copy(&self, pass: Pass) -> Result<u64, DataPlaneError> {
        let mut count = 0;
        for (name, convert) in &self.copied {
            if self.from.map(name).exists() {
                count += copy(&self.from.map(name), &self.to.map(name), *convert, pass)
                    .map_err(|e| DataPlaneError::io("copying", name, e))?;
            }
        }
        Ok(count)
    }
}

/// Makes room for an agent's pins, by what is pinned already. `running` is the layout of an agent that still
/// runs, which this one is to follow. Returns how to come from another layout's maps.
///
/// # Errors
/// Where there are pins of a layout that nobody here knows; they stay.
pub(super) fn prepare(
    pins: &Pins,
    layout: &Layout,
    running: Option<u32>,
) -> Result<Option<Migration>, DataPlaneError> {
    pins.require_bpf_file_system()?;
    let failed =
        |e| DataPlaneError::file("removing", "the pins of a start that was not finished", e);
    let up = |other: &Pins, former: &Former| {
        pins.remove().map_err(failed)?;
        Migration::begin(other.clone(), pins.clone(), former, Direction::Up).map(Some)
    };
    if let Some(version) = running {
        let other = pins.sibling(version);
        return match layout.former(version) {
            _ if version == pins.version() => pins.make_folders().map(|()| None),
            Some(former) => up(&other, former),
            // The one that runs knows this layout.
            None if pins.exist() => Ok(None),
            None => Err(DataPlaneError::OtherLayout { path: pins.root().to_owned() }),
        };
    }
    for other in pins.others()? {
        let refused = || DataPlaneError::OtherLayout { path: other.path.clone() };
        let theirs = other.pins.as_ref().ok_or_else(refused)?;
        let former = layout.former(theirs.version());
        match former {
            // Left over from the way to this layout, or to another one that was not reached.
            _ if pins.is_settled() => theirs.remove().map_err(failed)?,
            Some(former) => return up(theirs, former),
            None if pins.exist() && !theirs.is_settled() => theirs.remove().map_err(failed)?,
            None => return Err(refused()),
        }
    }
    pins.make_folders()?;
    Ok(None)
}

fn entries(folder: &Path) -> impl Iterator<Item = std::path::PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// Pins what is pinned at `from` at `to` as well. What was there is gone then.
fn share(from: &Path, to: &Path) -> io::Result<()> {
    match fs::remove_file(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    links::pin(&links::open(from)?, to)
}

fn copy(from: &Path, to: &Path, convert: Convert, pass: Pass) -> io::Result<u64> {
    let open = |path: &Path| MapData::from_pin(path).map_err(io::Error::other);
    let (from, to) = (open(from)?, open(to)?);
    let [(kind, key, before), (_, _, after)] = [sizes(&from)?, sizes(&to)?];
    let is_hash = matches!(
        kind,
        MapType::Hash | MapType::LruHash | MapType::PerCpuHash | MapType::LruPerCpuHash
    );
    if pass == Pass::Again && !is_hash {
        return Ok(0);
    }
    let mut count = 0;
    let mut value = vec![0; after.1];
    batch::for_each_bytes(from.fd().as_fd(), key, before.0 * before.1, |key, values| {
        let mut all = Vec::with_capacity(after.0 * after.1);
        // One for each CPU, where the map has as many.
        for one in values.chunks_exact(before.1) {
            value.fill(0);
            convert(one, &mut value);
            all.extend_from_slice(&value);
        }
        count += u64::from(batch::put_bytes(to.fd().as_fd(), key, &all, is_hash)?);
        Ok(())
    })?;
    Ok(count)
}

/// The map's kind, the size of its keys, and how many values of which size lie under each.
fn sizes(map: &MapData) -> io::Result<(MapType, usize, (usize, usize))> {
    let info = map.info().map_err(io::Error::other)?;
    let kind = info.map_type().map_err(io::Error::other)?;
    let per_cpu =
        matches!(kind, MapType::PerCpuArray | MapType::PerCpuHash | MapType::LruPerCpuHash);
    let value = info.value_size() as usize;
    let values = match per_cpu {
        // The kernel rounds them up (`bpf_map_value_size`).
        true => (aya::util::nr_cpus().map_err(|(_, e)| e)?, value.next_multiple_of(8)),
        false => (1, value),
    };
    Ok((kind, info.key_size() as usize, values))
}
