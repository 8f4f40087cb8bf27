//! bpf(2) where aya has no call, or none that fits: test runs, tables, programs by their instructions and
//! what the verifier says of those that it takes.

#![expect(unsafe_code, reason = "bpf(2) by hand")]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use aya::Pod;
use lb_common::protection::PrefixKey;

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_TEST_RUN: libc::c_long = 10;

/// `BPF_LOG_STATS` (include/linux/bpf_verifier.h): figures, not every step.
const LOG_STATISTICS: u32 = 4;
/// Figures take some lines, a refusal many: its last ones are cut off then.
const LOG_BYTES: usize = 1 << 16;

/// `BPF_MAP_TYPE_HASH`.
const HASH: u32 = 1;
/// `BPF_MAP_TYPE_ARRAY`.
pub const ARRAY: u32 = 2;
/// `BPF_MAP_TYPE_LPM_TRIE`, and `BPF_F_NO_PREALLOC`, which it needs.
const TRIE: u32 = 11;
const NO_PREALLOC: u32 = 1;
/// `BPF_MAP_TYPE_PROG_ARRAY`.
pub const PROGRAM_ARRAY: u32 = 3;
/// `BPF_F_XDP_HAS_FRAGS`: the program is aware of frames in several buffers.
pub const XDP_HAS_FRAGS: u32 = 1 << 5;
/// `BPF_F_INNER_MAP`: a table of any size fits the map of tables.
pub const INNER_MAP: u32 = 1 << 12;

/// The member of `union bpf_attr` for BPF_PROG_TEST_RUN.
#[repr(C)]
#[derive(Default)]
struct TestAttributes {
    program: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    padding: u32,
}

#[repr(C)]
struct MapAttributes {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
}

/// The member of `union bpf_attr` for BPF_PROG_LOAD, as far as it is used.
#[repr(C)]
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

/// A program, with its maps and functions in place.
#[derive(Debug)]
pub struct Instructed<'a> {
    /// `enum bpf_prog_type`.
    pub kind: u32,
    /// `enum bpf_attach_type`.
    pub attach_type: u32,
    pub flags: u32,
    /// Eight bytes each.
    pub instructions: Vec<u8>,
    pub license: &'a CStr,
}

/// What a run of a program did.
#[derive(Clone, Debug)]
pub struct Run {
    /// What the program returned.
    pub action: u32,
    /// The frame as it left it.
    pub frame: Vec<u8>,
}

/// Runs an XDP or tc program once on a frame, in the calling thread's network namespace, on its
/// loopback interface.
///
/// # Errors
/// Where the kernel refuses the frame (below 14 bytes) or the program.
pub fn test_run(program: BorrowedFd<'_>, frame: &[u8]) -> io::Result<Run> {
    let mut out = vec![0u8; frame.len() + 256];
    let mut attributes = TestAttributes {
        program: raw(program),
        data_size_in: frame.len() as u32,
        data_size_out: out.len() as u32,
        data_in: frame.as_ptr() as u64,
        data_out: out.as_mut_ptr() as u64,
        repeat: 1,
        ..TestAttributes::default()
    };
    loop {
        match call(BPF_PROG_TEST_RUN, &mut attributes) {
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    out.truncate(attributes.data_size_out as usize);
    Ok(Run { action: attributes.retval, frame: out })
}

/// Runs an XDP program `repeat` times on a frame, which it gets as the run before left it. The last
/// answer, and nanoseconds for one run by the kernel's clock.
///
/// # Errors
/// Where the kernel refuses the frame (below 14 bytes) or the program.
pub fn time(program: BorrowedFd<'_>, frame: &[u8], repeat: u32) -> io::Result<(u32, u32)> {
    let mut attributes = TestAttributes {
        program: raw(program),
        data_size_in: frame.len() as u32,
        data_in: frame.as_ptr() as u64,
        repeat,
        ..TestAttributes::default()
    };
    call(BPF_PROG_TEST_RUN, &mut attributes)?;
    Ok((attributes.retval, attributes.duration))
}

/// Has the kernel verify and load a program, and returns what the verifier counted.
///
/// # Errors
/// Where it is refused; the error holds the verifier's words.
pub fn load(program: &Instructed<'_>) -> io::Result<(OwnedFd, String)> {
    let mut log = vec![0u8; LOG_BYTES];
    let mut attributes = LoadAttributes {
        kind: program.kind,
        instruction_count: (program.instructions.len() / 8) as u32,
        instructions: program.instructions.as_ptr() as u64,
        license: program.license.as_ptr() as u64,
        log_level: LOG_STATISTICS,
        log_size: log.len() as u32,
        log: log.as_mut_ptr() as u64,
        kernel_version: 0,
        flags: program.flags,
        name: [0; 16],
        ifindex: 0,
        attach_type: program.attach_type,
    };
    let result = call(BPF_PROG_LOAD, &mut attributes);
    let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
    let log = String::from_utf8_lossy(&log[..end]).into_owned();
    match result {
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(fd) => Ok((unsafe { OwnedFd::from_raw_fd(fd) }, log)),
        Err(error) => Err(io::Error::new(error.kind(), format!("{error}: {}", log.trim()))),
    }
}

/// Makes a map with keys of four bytes.
///
/// # Errors
/// Where the kernel refuses it.
pub fn map(map_type: u32, value_size: u32, entries: u32, flags: u32) -> io::Result<OwnedFd> {
    let mut attributes =
        MapAttributes { map_type, key_size: 4, value_size, max_entries: entries, map_flags: flags };
    // SAFETY: the kernel has just made this descriptor for us.
    call(BPF_MAP_CREATE, &mut attributes).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes a hash map, with elements that are taken as they come.
///
/// # Errors
/// Where the kernel refuses it.
pub fn hash(key_size: u32, value_size: u32, entries: u32) -> io::Result<OwnedFd> {
    let (map_type, map_flags) = (HASH, 0);
    let mut attributes =
        MapAttributes { map_type, key_size, value_size, max_entries: entries, map_flags };
    // SAFETY: the kernel has just made this descriptor for us.
    call(BPF_MAP_CREATE, &mut attributes).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes a list of prefixes, as inner map of the map `lists`.
///
/// # Errors
/// Where the kernel refuses it.
pub fn list(entries: u32) -> io::Result<OwnedFd> {
    let mut attributes = MapAttributes {
        map_type: TRIE,
        key_size: size_of::<PrefixKey>() as u32,
        value_size: size_of::<u32>() as u32,
        max_entries: entries,
        map_flags: NO_PREALLOC,
    };
    // SAFETY: the kernel has just made this descriptor for us.
    call(BPF_MAP_CREATE, &mut attributes).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A descriptor as the kernel takes it.
fn raw(descriptor: BorrowedFd<'_>) -> u32 {
    descriptor.as_raw_fd().cast_unsigned()
}

fn call<T>(command: libc::c_long, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: the attributes are the command's member of `union bpf_attr`, or a prefix of it (the
    // kernel takes the rest as zero); what they point to outlives the call and is as long as they
    // say.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>())
    };
    match i32::try_from(result) {
        Ok(value) if value >= 0 => Ok(value),
        _ => Err(io::Error::last_os_error()),
    }
}

const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;

/// The member of `union bpf_attr` for one element.
#[repr(C)]
struct ElementAttributes {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The member `batch` of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct BatchAttributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// Sets an element. The types must be the map's.
///
/// # Errors
/// Where the kernel does not take it.
pub fn update<K: Pod, V: Pod>(map: BorrowedFd<'_>, key: &K, value: &V) -> io::Result<()> {
    let (key, value) = (std::ptr::from_ref(key) as u64, std::ptr::from_ref(value) as u64);
    let mut attributes = ElementAttributes { map: raw(map), padding: 0, key, value, flags: 0 };
    call(BPF_MAP_UPDATE_ELEM, &mut attributes).map(drop)
}

/// Removes an element of a hash map.
///
/// # Errors
/// Where there is none.
pub fn delete<K: Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<()> {
    let key = std::ptr::from_ref(key) as u64;
    let mut attributes = ElementAttributes { map: raw(map), padding: 0, key, value: 0, flags: 0 };
    call(BPF_MAP_DELETE_ELEM, &mut attributes).map(drop)
}

/// All elements of a map of at most `most`, in one call; `cpus` values for each key.
///
/// # Errors
/// Where the kernel has no such call for the map.
pub fn lookup_batch<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
    most: usize,
    cpus: usize,
) -> io::Result<(Vec<K>, Vec<V>)> {
    let (mut keys, mut values) = (Vec::<K>::with_capacity(most), Vec::<V>::new());
    values.reserve_exact(most * cpus);
    let mut position = [0u64; 8];
    let mut attributes = BatchAttributes {
        out_batch: position.as_mut_ptr() as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: most as u32,
        map: raw(map),
        ..BatchAttributes::default()
    };
    match call(BPF_MAP_LOOKUP_BATCH, &mut attributes) {
        // The end of the map.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
        other => drop(other?),
    }
    let count = (attributes.count as usize).min(most);
    // SAFETY: the kernel wrote as many keys, and as many values for each CPU.
    unsafe {
        keys.set_len(count);
        values.set_len(count * cpus);
    }
    Ok((keys, values))
}
