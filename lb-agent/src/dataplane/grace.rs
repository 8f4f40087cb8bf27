//! Waiting until no kernel program reads what a map named a moment ago.
//!
//! A program that has read a service goes on with the table and the backends that it names, however
//! long its CPU is held up in between. They must not change until it has ended. The kernel waits for
//! the programs that run when an element of a map of maps is replaced, so that whoever did it knows
//! that the former one is out of use (`maybe_wait_bpf_programs`, kernel/bpf/syscall.c, commit
//! 1ae80cf31938): a map of our own that nobody reads serves to ask for that.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use lb_common::bucket::Bucket;

use super::batch;
use super::maps::INNER_MAP;

/// A map of maps to wait with, and what is in it: a table of one empty bucket.
pub(super) struct Grace {
    outer: OwnedFd,
    empty: OwnedFd,
}

impl Grace {
    pub(super) fn new() -> io::Result<Self> {
        let empty = batch::array_of(&[Bucket::EMPTY], INNER_MAP)?;
        Ok(Self { outer: batch::array_of_map(&empty)?, empty })
    }

    /// Returns once every program has ended that ran when it was called.
    pub(super) fn wait(&self) -> io::Result<()> {
        batch::update(&self.outer, &[0], &[self.empty_table()])
    }

    /// The descriptor of an empty table, as a value of a map of maps.
    pub(super) fn empty_table(&self) -> u32 {
        self.empty.as_raw_fd().cast_unsigned()
    }
}
