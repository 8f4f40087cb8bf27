//! A cpio archive as the kernel unpacks it into its first file system ("newc":
//! Documentation/driver-api/early-userspace/buffer-format.rst). Writing only.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;

const DIRECTORY: u32 = 0o40_755;
const EXECUTABLE: u32 = 0o100_755;
const LINK: u32 = 0o120_777;

/// Being written. Directories come into being with what is in them.
#[derive(Debug)]
pub struct Archive<W> {
    out: W,
    inode: u32,
    /// Names that it has, without the leading slash.
    names: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    pub const fn new(out: W) -> Self {
        Self { out, inode: 0, names: BTreeSet::new() }
    }

    /// An empty directory.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn directory(&mut self, path: &Path) -> io::Result<()> {
        self.above(path)?;
        self.entry(path, DIRECTORY, &[])
    }

    /// A file that may be run. The first of a name counts.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn file(&mut self, path: &Path, content: &[u8]) -> io::Result<()> {
        self.above(path)?;
        self.entry(path, EXECUTABLE, content)
    }

    /// A symbolic link.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn link(&mut self, path: &Path, target: &str) -> io::Result<()> {
        self.above(path)?;
        self.entry(path, LINK, target.as_bytes())
    }

    /// Ends it.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn finish(mut self) -> io::Result<()> {
        self.entry(Path::new("TRAILER!!!"), 0, &[])?;
        self.out.flush()
    }

    fn above(&mut self, path: &Path) -> io::Result<()> {
        let above: Vec<&Path> = path.ancestors().skip(1).collect();
        above.into_iter().rev().try_for_each(|path| self.entry(path, DIRECTORY, &[]))
    }

    fn entry(&mut self, path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
        let name = path.to_string_lossy().trim_start_matches('/').to_owned();
        if name.is_empty() || !self.names.insert(name.clone()) {
            return Ok(());
        }
        self.inode += 1;
        let size = u32::try_from(content.len()).map_err(io::Error::other)?;
        let name_size = name.len() as u32 + 1;
        // Owner, group, links, time; size; numbers of devices; the name's size; no checksum.
        let fields = [self.inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        write!(self.out, "070701")?;
        fields.iter().try_for_each(|field| write!(self.out, "{field:08x}"))?;
        self.padded(&[name.as_bytes(), &[0]].concat(), 110)?;
        self.padded(content, 0)
    }

    /// What follows begins at a multiple of four bytes.
    fn padded(&mut self, bytes: &[u8], before: usize) -> io::Result<()> {
        self.out.write_all(bytes)?;
        let length = before + bytes.len();
        self.out.write_all(&[0; 3][..length.next_multiple_of(4) - length])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_what_the_kernel_documents() {
        let mut bytes = Vec::new();
        let mut archive = Archive::new(&mut bytes);
        archive.file(Path::new("/a/bc"), b"12345").unwrap();
        archive.file(Path::new("/a/bc"), b"again").unwrap();
        archive.finish().unwrap();
        let text = String::from_utf8(bytes.clone()).unwrap();
        let entry = |inode: u32, mode: u32, size: u32, name: &str| {
            let name_size = name.len() + 1;
            let zero = "00000000";
            let mut text = format!("070701{inode:08x}{mode:08x}{zero}{zero}00000001{zero}");
            text.push_str(&format!("{size:08x}{zero}{zero}{zero}{zero}{name_size:08x}{zero}"));
            text.push_str(name);
            text.push('\0');
            while text.len() % 4 != 0 {
                text.push('\0');
            }
            text
        };
        let directory = entry(1, 0o40_755, 0, "a");
        let file = entry(2, 0o100_755, 5, "a/bc") + "12345\0\0\0";
        assert_eq!(text, directory + &file + &entry(3, 0, 0, "TRAILER!!!"));
    }
}
