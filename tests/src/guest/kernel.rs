//! The kernels that the system's package registries offer, newest of each series, fetched and
//! unpacked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail};

/// Small ones for virtual machines: with virtio, veth, bridges and VLANs, without drivers.
const PREFIX: &str = "linux-image-";
const SUFFIX: &str = "-cloud-amd64";

/// A kernel's package, as in `linux-image-6.1.0-56-cloud-amd64`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Offer {
    pub package: String,
    /// As in 6.1.
    pub series: String,
    /// Numbers of the release, for which is newer.
    version: Vec<u32>,
}

impl Offer {
    /// None for packages of other kinds, and for those that only name the newest.
    fn read(package: &str) -> Option<Self> {
        let release = package.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
        let numbers = release.split(['.', '-', '+']).map_while(|part| part.parse().ok());
        let version: Vec<u32> = numbers.collect();
        let [major, minor, _, ..] = version[..] else { return None };
        Some(Self { package: package.to_owned(), series: format!("{major}.{minor}"), version })
    }
}

/// The newest of each series, the oldest series first.
///
/// # Errors
/// Where apt's lists cannot be read. Without apt there is nothing, which is no error.
pub fn offered() -> Result<Vec<Offer>> {
    let mut command = Command::new("apt-cache");
    command.args(["pkgnames", PREFIX]).stdin(Stdio::null());
    match command.output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        output => Ok(newest(&text(&output.context("cannot run apt-cache")?, "apt-cache")?)),
    }
}

fn newest(names: &str) -> Vec<Offer> {
    let mut offers: Vec<Offer> = names.lines().filter_map(Offer::read).collect();
    offers.sort_by(|one, other| other.version.cmp(&one.version));
    offers.dedup_by(|older, newer| older.series == newer.series);
    offers.reverse();
    offers
}

/// A kernel's files.
#[derive(Clone, Debug)]
pub struct Unpacked {
    pub image: PathBuf,
    directory: PathBuf,
}

/// Unpacks a package below `cache`, which it fetches where it is not there yet. Where it cannot be had,
/// one of the same series that was fetched before will do.
///
/// # Errors
/// Where there is none either.
pub fn unpack(offer: &Offer, cache: &Path) -> Result<Unpacked> {
    let mut directory = cache.join(&offer.package);
    if !directory.join("boot").is_dir()
        && let Err(error) = fetch(offer, cache, &directory)
    {
        let names = fs::read_dir(cache).into_iter().flatten().flatten();
        let names: Vec<String> =
            names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        let before = newest(&names.join("\n")).into_iter().find(|one| one.series == offer.series);
        directory = cache.join(before.ok_or(error)?.package);
    }
    let images = fs::read_dir(directory.join("boot")).context("the package has no /boot")?;
    let mut images = images.flatten().map(|entry| entry.path());
    let image = images
        .find(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("vmlinuz")))
        .with_context(|| format!("{} holds no kernel", directory.display()))?;
    Ok(Unpacked { image, directory })
}

/// Complete or not there at all, whatever ends it.
fn fetch(offer: &Offer, cache: &Path, directory: &Path) -> Result<()> {
    let part = cache.join(format!("{}.part", offer.package));
    if part.exists() {
        fs::remove_dir_all(&part).with_context(|| format!("cannot remove {}", part.display()))?;
    }
    fs::create_dir_all(&part).with_context(|| format!("cannot make {}", part.display()))?;
    run(&part, "apt-get", &["--quiet", "download", &offer.package]).with_context(|| {
        format!("cannot fetch {}: run `apt-get update`, or go online", offer.package)
    })?;
    let archives: Vec<PathBuf> = files(&part)?;
    let [archive] = &archives[..] else { bail!("apt-get fetched {} files", archives.len()) };
    run(&part, "dpkg-deb", &["--extract", &archive.to_string_lossy(), "."])?;
    fs::remove_file(archive).context("cannot remove the package")?;
    fs::rename(&part, directory).with_context(|| format!("cannot make {}", directory.display()))
}

impl Unpacked {
    /// The file of a module, compressed or not; none where the kernel has it built in, or lacks it.
    ///
    /// # Errors
    /// Where the directory cannot be read.
    pub fn module(&self, name: &str) -> Result<Option<PathBuf>> {
        let mut directories = vec![self.directory.join("lib/modules")];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(&directory)
                .with_context(|| format!("cannot read {}", directory.display()))?
                .flatten()
            {
                let file = entry.file_name().to_string_lossy().into_owned();
                let kind = entry.file_type().context("a file without a type")?;
                if kind.is_dir() {
                    directories.push(entry.path());
                } else if file.split_once(".ko").is_some_and(|(stem, _)| stem == name) {
                    return Ok(Some(entry.path()));
                }
            }
        }
        Ok(None)
    }
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).context("cannot read what was fetched")?;
    Ok(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect())
}

fn run(directory: &Path, program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    text(&output, program)
}

fn text(output: &Output, program: &str) -> Result<String> {
    if !output.status.success() {
        bail!(
            "{program} failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_each_series_is_taken() {
        let names = "linux-image-6.1.0-9-cloud-amd64\nlinux-image-6.12.117+deb12-cloud-amd64\n\
            linux-image-6.1.0-56-cloud-amd64\nlinux-image-6.1.0-56-cloud-amd64-unsigned\n\
            linux-image-cloud-amd64\nlinux-image-6.12-cloud-amd64\nlinux-image-6.1.0-57-amd64\n\
            linux-image-6.12.99+deb12-cloud-amd64\n";
        let found: Vec<(String, String)> =
            newest(names).into_iter().map(|offer| (offer.series, offer.package)).collect();
        let expected = [
            ("6.1", "linux-image-6.1.0-56-cloud-amd64"),
            ("6.12", "linux-image-6.12.117+deb12-cloud-amd64"),
        ];
        assert_eq!(found, expected.map(|(series, name)| (series.to_owned(), name.to_owned())));
    }
}
