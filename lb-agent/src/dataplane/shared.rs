//! An array map that lies in this process' memory as well (`BPF_F_MMAPABLE`, Linux 5.5): its words are
//! read and written one by one, each at once, while programs read them.

#![expect(unsafe_code, reason = "mmap, and what lies there")]

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// `count` values, each of so many words.
#[derive(Debug)]
pub(super) struct SharedArray {
    start: NonNull<AtomicU64>,
    words: usize,
    count: u32,
}

// SAFETY: nothing but a place in memory, of which there are only shared references to atomic words.
unsafe impl Send for SharedArray {}
// SAFETY: as above.
unsafe impl Sync for SharedArray {}

impl SharedArray {
    /// The array map `map` of `count` values of the size of a `T`.
    ///
    /// # Errors
    /// Where the kernel does not map it: another map, or a smaller one.
    pub(super) fn of<T>(map: impl AsFd, count: u32) -> io::Result<Self> {
        const { assert!(size_of::<T>().is_multiple_of(size_of::<AtomicU64>())) };
        let words = size_of::<T>() / size_of::<AtomicU64>();
        let length = NonZeroUsize::new(size_of::<T>() * count as usize);
        let length = length.ok_or(io::ErrorKind::InvalidInput)?;
        let rights = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping, wherever the kernel wants it.
        let start = unsafe { mmap(None, length, rights, MapFlags::MAP_SHARED, map, 0) }?;
        Ok(Self { start: start.cast(), words, count })
    }

    pub(super) const fn len(&self) -> u32 {
        self.count
    }

    /// The words of a value; none behind the last one.
    pub(super) fn get(&self, index: u32) -> Option<&[AtomicU64]> {
        if index >= self.count {
            return None;
        }
        let first = index as usize * self.words;
        // SAFETY: within the mapping, which begins on a page and lives as long as this; the kernel's
        // programs only read, and everybody here by atomics.
        Some(unsafe { std::slice::from_raw_parts(self.start.add(first).as_ptr(), self.words) })
    }
}

impl Drop for SharedArray {
    fn drop(&mut self) {
        // SAFETY: mapped by `of` with this length, and nobody has a reference any more.
        let _ = unsafe {
            munmap(self.start.cast(), self.words * self.count as usize * size_of::<AtomicU64>())
        };
    }
}
