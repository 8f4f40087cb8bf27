//! Small XDP programs by hand, and the kernel's own timing of them.
//!
//! BPF_PROG_TEST_RUN does not restore a frame between repeats. A program that rewrites it is
//! therefore measured behind a wrapper that writes the frame anew and jumps to it by a tail call;
//! the floors stand behind the same wrapper.

use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result};

use crate::packet::syscall::{self, Instructed, PROGRAM_ARRAY, XDP_HAS_FRAGS};

const PROGRAM_TYPE_XDP: u32 = 6;
const ATTACH_TYPE_XDP: u32 = 37;

const TAIL_CALL: i32 = 12;
const RANDOM: i32 = 7;

pub(super) const XDP_DROP: u32 = 1;
pub(super) const XDP_PASS: u32 = 2;
pub(super) const XDP_TX: u32 = 3;

/// An instruction: opcode, destination and source register, offset, immediate.
type Instruction = [u8; 8];

const fn op(code: u8, to: u8, from: u8, offset: i16, value: i32) -> Instruction {
    let (o, v) = (offset.to_le_bytes(), value.to_le_bytes());
    [code, to | from << 4, o[0], o[1], v[0], v[1], v[2], v[3]]
}

fn wide(to: u8, from: u8, value: u64) -> [Instruction; 2] {
    let (low, high) = (value as u32, (value >> 32) as u32);
    [op(0x18, to, from, 0, low.cast_signed()), op(0, 0, 0, 0, high.cast_signed())]
}

fn load(instructions: &[Instruction]) -> Result<OwnedFd> {
    let program = Instructed {
        kind: PROGRAM_TYPE_XDP,
        attach_type: ATTACH_TYPE_XDP,
        // A wrapper must be of the kind of what it jumps to.
        flags: XDP_HAS_FRAGS,
        instructions: instructions.concat(),
        license: c"GPL",
    };
    let (program, _) = syscall::load(&program).context("a wrapper does not load")?;
    Ok(program)
}

/// A program that only answers.
pub(super) fn answer(action: u32) -> Result<OwnedFd> {
    load(&[op(0xb7, 0, 0, 0, action.cast_signed()), op(0x95, 0, 0, 0, 0)])
}

/// What the wrapper varies.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Vary {
    Nothing,
    /// Every run is another IPv4 client: a random address in the frame's source field.
    Source,
}

/// A wrapper that writes `frame` and jumps to `target`. It keeps the map that the jump needs.
pub(super) struct Wrapper {
    program: OwnedFd,
    _targets: OwnedFd,
}

impl Wrapper {
    pub(super) fn new(frame: &[u8], target: impl AsFd, vary: Vary) -> Result<Self> {
        let targets = syscall::map(PROGRAM_ARRAY, 4, 1, 0).context("making a program array")?;
        syscall::update(targets.as_fd(), &0u32, &target.as_fd().as_raw_fd())
            .context("the program cannot be jumped to")?;
        let program = load(&Self::instructions(frame, targets.as_raw_fd(), vary))?;
        Ok(Self { program, _targets: targets })
    }

    fn instructions(frame: &[u8], targets: i32, vary: Vary) -> Vec<Instruction> {
        // Whole words; a frame is at least as long as its headers.
        let words = frame.len() / 8;
        let writes = 3 * words + if vary == Vary::Source { 2 } else { 0 };
        let mut code = vec![op(0xbf, 6, 1, 0, 0)];
        if vary == Vary::Source {
            code.extend([op(0x85, 0, 0, 0, RANDOM), op(0xbf, 7, 0, 0, 0)]);
        }
        code.extend([
            op(0x61, 2, 6, 0, 0),
            op(0x61, 3, 6, 4, 0),
            op(0xbf, 4, 2, 0, 0),
            op(0x07, 4, 0, 0, (words * 8) as i32),
            op(0x2d, 4, 3, (writes + 5) as i16, 0),
        ]);
        for (at, word) in frame.chunks_exact(8).enumerate() {
            let value = u64::from_le_bytes(word.try_into().expect("chunks of eight"));
            code.extend(wide(5, 0, value));
            code.push(op(0x7b, 2, 5, (at * 8) as i16, 0));
        }
        if vary == Vary::Source {
            // Ethernet, then the source address at 12 of the IPv4 header.
            code.extend([op(0x63, 2, 7, 26, 0), op(0xbf, 0, 0, 0, 0)]);
        }
        code.push(op(0xbf, 1, 6, 0, 0));
        code.extend(wide(2, 1, u64::from(targets.cast_unsigned())));
        code.extend([op(0xb7, 3, 0, 0, 0), op(0x85, 0, 0, 0, TAIL_CALL)]);
        code.extend([op(0xb7, 0, 0, 0, 0), op(0x95, 0, 0, 0, 0)]);
        code
    }

    /// Runs it `repeat` times on a copy of `frame`; the last answer, and nanoseconds for one run by
    /// the kernel's clock.
    pub(super) fn time(&self, frame: &[u8], repeat: u32) -> Result<(u32, u32)> {
        syscall::time(self.program.as_fd(), frame, repeat).context("BPF_PROG_TEST_RUN")
    }
}
