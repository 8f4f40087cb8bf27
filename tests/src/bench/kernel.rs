//! Small XDP programs by hand, and the kernel's own timing of them.
//!
//! BPF_PROG_TEST_RUN does not restore a frame between repeats. A program that rewrites it is
//! therefore measured behind a wrapper that writes the frame anew and jumps to it by a tail call;
//! the floors stand behind the same wrapper.

#![expect(unsafe_code, reason = "bpf(2) by hand")]

use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, ensure};

const MAP_CREATE: libc::c_long = 0;
const MAP_UPDATE: libc::c_long = 2;
const PROGRAM_LOAD: libc::c_long = 5;
const TEST_RUN: libc::c_long = 10;

const MAP_TYPE_PROGRAM_ARRAY: u32 = 3;
const PROGRAM_TYPE_XDP: u32 = 6;
const ATTACH_TYPE_XDP: u32 = 37;
/// The wrapper must be of the kind of what it jumps to: aware of frames in several buffers.
const XDP_HAS_FRAGS: u32 = 1 << 5;

const TAIL_CALL: i32 = 12;
const RANDOM: i32 = 7;

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

fn call<T>(command: libc::c_long, attributes: &mut T) -> Result<libc::c_long> {
    // SAFETY: `attributes` is the command's member of `union bpf_attr`, and what it points to
    // outlives the call.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>())
    };
    ensure!(result >= 0, std::io::Error::last_os_error());
    Ok(result)
}

fn own(fd: libc::c_long) -> OwnedFd {
    // SAFETY: a new descriptor that nobody else owns.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

/// The head of `union bpf_attr` for BPF_PROG_LOAD, as far as it is used.
#[repr(C)]
#[derive(Default)]
struct LoadAttributes {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    attach_type: u32,
}

fn load(instructions: &[Instruction]) -> Result<OwnedFd> {
    let mut log = vec![0u8; 65_536];
    let mut attributes = LoadAttributes {
        kind: PROGRAM_TYPE_XDP,
        instruction_count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 1,
        log_size: log.len() as u32,
        log: log.as_mut_ptr() as u64,
        flags: XDP_HAS_FRAGS,
        attach_type: ATTACH_TYPE_XDP,
        ..Default::default()
    };
    let loaded = call(PROGRAM_LOAD, &mut attributes);
    loaded.map(own).with_context(|| {
        let end = log.iter().position(|&byte| byte == 0).unwrap_or(0);
        format!("a wrapper does not load: {}", String::from_utf8_lossy(&log[..end]))
    })
}

/// A program that only answers.
pub(super) fn answer(action: u32) -> Result<OwnedFd> {
    load(&[op(0xb7, 0, 0, 0, action.cast_signed()), op(0x95, 0, 0, 0, 0)])
}

/// The head of `union bpf_attr` for BPF_MAP_CREATE.
#[repr(C)]
struct MapAttributes {
    kind: u32,
    key_size: u32,
    value_size: u32,
    entries: u32,
}

#[repr(C)]
struct ElementAttributes {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
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
        let mut map =
            MapAttributes { kind: MAP_TYPE_PROGRAM_ARRAY, key_size: 4, value_size: 4, entries: 1 };
        let targets = own(call(MAP_CREATE, &mut map).context("making a program array")?);
        let (key, value) = (0u32, target.as_fd().as_raw_fd());
        let mut element = ElementAttributes {
            map: targets.as_raw_fd().cast_unsigned(),
            padding: 0,
            key: (&raw const key) as u64,
            value: (&raw const value) as u64,
            flags: 0,
        };
        call(MAP_UPDATE, &mut element).context("the program cannot be jumped to")?;
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
        test_run(&self.program, frame, repeat)
    }
}

/// The member of `union bpf_attr` for BPF_PROG_TEST_RUN, as far as it is used.
#[repr(C)]
#[derive(Default)]
struct RunAttributes {
    program: u32,
    answer: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
}

fn test_run(program: &OwnedFd, frame: &[u8], repeat: u32) -> Result<(u32, u32)> {
    let mut attributes = RunAttributes {
        program: program.as_raw_fd().cast_unsigned(),
        size_in: frame.len() as u32,
        data_in: frame.as_ptr() as u64,
        repeat,
        ..Default::default()
    };
    call(TEST_RUN, &mut attributes).context("BPF_PROG_TEST_RUN")?;
    Ok((attributes.answer, attributes.duration))
}
