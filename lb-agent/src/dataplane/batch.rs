//! Many elements of a map in one system call, which aya 0.14 does not offer: a table of 65,537
//! buckets would take as many calls. Such a table is also made here, since aya's typed maps don't
//! show their descriptor.

#![expect(unsafe_code, reason = "the bpf system call")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use aya::Pod;

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_MAP_UPDATE_BATCH: libc::c_long = 26;

/// The member `batch` of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct BatchAttributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    element_flags: u64,
    flags: u64,
}

/// The first members for `BPF_MAP_CREATE`.
#[repr(C)]
struct CreateAttributes {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
}

const BPF_MAP_TYPE_ARRAY: u32 = 2;

fn call<T>(command: libc::c_long, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: `attributes` is the command's member of `union bpf_attr`; pointers in it are valid
    // for as many elements as it says.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Makes an array map with these elements.
pub(super) fn array_of<V: Pod>(values: &[V], flags: u32) -> io::Result<OwnedFd> {
    let mut attributes = CreateAttributes {
        map_type: BPF_MAP_TYPE_ARRAY,
        key_size: size_of::<u32>() as u32,
        value_size: size_of::<V>() as u32,
        max_entries: values.len() as u32,
        map_flags: flags,
    };
    let fd = call(BPF_MAP_CREATE, &mut attributes)?;
    // SAFETY: a new descriptor that nobody else owns.
    let map = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    fill_array(&map, values)?;
    Ok(map)
}

/// Sets the elements `0..values.len()` of an array map.
fn fill_array<V: Pod>(map: impl AsFd, values: &[V]) -> io::Result<()> {
    let keys: Vec<u32> = (0..values.len() as u32).collect();
    let mut done = 0;
    while done < values.len() {
        let mut attributes = BatchAttributes {
            keys: keys[done..].as_ptr() as u64,
            values: values[done..].as_ptr() as u64,
            count: (values.len() - done) as u32,
            map_fd: map.as_fd().as_raw_fd() as u32,
            ..Default::default()
        };
        call(BPF_MAP_UPDATE_BATCH, &mut attributes)?;
        if attributes.count == 0 {
            return Err(io::Error::other("the kernel took no element of a batch"));
        }
        done += attributes.count as usize;
    }
    Ok(())
}

/// Reads a hash map as it is, some hundred elements at a time, and hands each to `each`.
///
/// Elements that come and go meanwhile may or may not be seen.
pub(super) fn for_each<K: Pod + Default, V: Pod>(
    map: impl AsFd,
    empty: V,
    mut each: impl FnMut(&K, &V),
) -> io::Result<()> {
    let mut size = 1024;
    let mut position = [0u32; 2];
    let mut begun = false;
    loop {
        let mut keys = vec![K::default(); size];
        let mut values = vec![empty; size];
        let mut next = [0u32; 2];
        let mut attributes = BatchAttributes {
            in_batch: if begun { position.as_ptr() as u64 } else { 0 },
            out_batch: next.as_mut_ptr() as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: size as u32,
            map_fd: map.as_fd().as_raw_fd() as u32,
            ..Default::default()
        };
        let result = call(BPF_MAP_LOOKUP_BATCH, &mut attributes);
        let ended = match result {
            Ok(_) => false,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            // One hash bucket holds more than there was room for.
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && size < 1 << 20 => {
                size *= 2;
                continue;
            }
            Err(error) => return Err(error),
        };
        for i in 0..attributes.count as usize {
            each(&keys[i], &values[i]);
        }
        if ended {
            return Ok(());
        }
        position = next;
        begun = true;
    }
}
