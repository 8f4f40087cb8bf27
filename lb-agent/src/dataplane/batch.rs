//! Many elements of a map in one system call, which aya 0.14 does not offer: a table of 65,537
//! buckets would take as many calls. Such a table is also made here, since aya's typed maps don't
//! show their descriptor, and so are single elements of maps that another thread has a handle on.

#![expect(unsafe_code, reason = "the bpf system call")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use aya::Pod;
use lb_common::protection::PrefixKey;

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_MAP_LOOKUP_AND_DELETE_ELEM: libc::c_long = 21;
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
    inner_map_fd: u32,
}

/// The member of `union bpf_attr` for one element.
#[repr(C)]
struct ElementAttributes {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// For an element that is not there yet.
const BPF_NOEXIST: u64 = 1;

const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_MAP_TYPE_ARRAY_OF_MAPS: u32 = 12;
const BPF_MAP_TYPE_LPM_TRIE: u32 = 11;
/// Tries have no other way.
const BPF_F_NO_PREALLOC: u32 = 1;

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
        inner_map_fd: 0,
    };
    let map = create(&mut attributes)?;
    let keys: Vec<u32> = (0..values.len() as u32).collect();
    update(&map, &keys, values)?;
    Ok(map)
}

/// Makes a trie of prefixes that is as large as need be.
pub(super) fn trie_of(keys: &[PrefixKey], values: &[u32]) -> io::Result<OwnedFd> {
    let mut attributes = CreateAttributes {
        map_type: BPF_MAP_TYPE_LPM_TRIE,
        key_size: size_of::<PrefixKey>() as u32,
        value_size: size_of::<u32>() as u32,
        max_entries: keys.len().max(1) as u32,
        map_flags: BPF_F_NO_PREALLOC,
        inner_map_fd: 0,
    };
    let map = create(&mut attributes)?;
    update(&map, keys, values)?;
    Ok(map)
}

/// Makes an array of maps with one element, which is `inner`.
pub(super) fn array_of_map(inner: &OwnedFd) -> io::Result<OwnedFd> {
    let mut attributes = CreateAttributes {
        map_type: BPF_MAP_TYPE_ARRAY_OF_MAPS,
        key_size: size_of::<u32>() as u32,
        value_size: size_of::<u32>() as u32,
        max_entries: 1,
        map_flags: 0,
        inner_map_fd: raw(inner),
    };
    let map = create(&mut attributes)?;
    update(&map, &[0], &[raw(inner)])?;
    Ok(map)
}

fn create(attributes: &mut CreateAttributes) -> io::Result<OwnedFd> {
    let fd = call(BPF_MAP_CREATE, attributes)?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// A descriptor as the kernel takes it.
fn raw(map: impl AsFd) -> u32 {
    map.as_fd().as_raw_fd().cast_unsigned()
}

/// Sets elements of a map, in their order. For an array of maps the values are descriptors, and on
/// return every program that ran before has ended (`maybe_wait_bpf_programs` in the kernel).
pub(super) fn update<K: Pod, V: Pod>(map: impl AsFd, keys: &[K], values: &[V]) -> io::Result<()> {
    debug_assert_eq!(keys.len(), values.len());
    let mut done = 0;
    let values = &values[..values.len().min(keys.len())];
    while done < values.len() {
        let mut attributes = BatchAttributes {
            keys: keys[done..].as_ptr() as u64,
            values: values[done..].as_ptr() as u64,
            count: (values.len() - done) as u32,
            map_fd: raw(&map),
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

/// Reads `count` elements of an array map from `first` on; of a per-CPU one `cpus` values for each.
pub(super) fn read<V: Pod>(
    map: impl AsFd,
    first: u32,
    count: usize,
    cpus: usize,
    empty: V,
) -> io::Result<Vec<V>> {
    let mut keys = vec![0u32; count];
    let mut values = vec![empty; count * cpus];
    let mut done = 0;
    while done < count {
        // The kernel wants the key before the first one.
        let before = (first as usize + done).checked_sub(1).map(|key| key as u32);
        let mut last = 0u32;
        let mut attributes = BatchAttributes {
            in_batch: before.as_ref().map_or(0, |key| std::ptr::from_ref(key) as u64),
            out_batch: std::ptr::from_mut(&mut last) as u64,
            keys: keys[done..].as_mut_ptr() as u64,
            values: values[done * cpus..].as_mut_ptr() as u64,
            count: (count - done) as u32,
            map_fd: raw(&map),
            ..Default::default()
        };
        match call(BPF_MAP_LOOKUP_BATCH, &mut attributes) {
            // The end of the map, with what there was before it.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            other => drop(other?),
        }
        if attributes.count == 0 {
            return Err(io::Error::other("the map ends before the elements that were asked for"));
        }
        done += attributes.count as usize;
    }
    Ok(values)
}

/// The value of a key; none where there is none.
pub(super) fn lookup<K: Pod, V: Pod>(map: impl AsFd, key: &K, empty: V) -> io::Result<Option<V>> {
    value_of(BPF_MAP_LOOKUP_ELEM, map, key, empty)
}

/// Removes a key. Returns the value that went with it (Linux 5.14 for a hash map).
pub(super) fn take<K: Pod, V: Pod>(map: impl AsFd, key: &K, empty: V) -> io::Result<Option<V>> {
    value_of(BPF_MAP_LOOKUP_AND_DELETE_ELEM, map, key, empty)
}

fn value_of<K: Pod, V: Pod>(
    command: libc::c_long,
    map: impl AsFd,
    key: &K,
    empty: V,
) -> io::Result<Option<V>> {
    let mut value = empty;
    let mut attributes = ElementAttributes {
        map_fd: raw(&map),
        padding: 0,
        key: std::ptr::from_ref(key) as u64,
        value: std::ptr::from_mut(&mut value) as u64,
        flags: 0,
    };
    found(call(command, &mut attributes)).map(|found| found.then_some(value))
}

/// Removes a key. Returns whether it was there.
pub(super) fn remove<K: Pod>(map: impl AsFd, key: &K) -> io::Result<bool> {
    let mut attributes = ElementAttributes {
        map_fd: raw(&map),
        padding: 0,
        key: std::ptr::from_ref(key) as u64,
        value: 0,
        flags: 0,
    };
    found(call(BPF_MAP_DELETE_ELEM, &mut attributes))
}

fn found(result: io::Result<libc::c_long>) -> io::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Puts an element into a hash map where there is none under its key. Returns whether it was put: a map that is
/// full takes no more.
pub(super) fn insert<K: Pod, V: Pod>(map: impl AsFd, key: &K, value: &V) -> io::Result<bool> {
    put(map, std::ptr::from_ref(key) as u64, std::ptr::from_ref(value) as u64, true)
}

/// Sets an element of any map by its bytes. With `unless_there` one that is there stays as it is. Returns
/// whether it was set: a hash map that is full takes no more.
pub(super) fn put_bytes(
    map: impl AsFd,
    key: &[u8],
    value: &[u8],
    unless_there: bool,
) -> io::Result<bool> {
    put(map, key.as_ptr() as u64, value.as_ptr() as u64, unless_there)
}

/// The same by the addresses of key and value.
fn put(map: impl AsFd, key: u64, value: u64, unless_there: bool) -> io::Result<bool> {
    let mut attributes = ElementAttributes {
        map_fd: raw(&map),
        padding: 0,
        key,
        value,
        flags: if unless_there { BPF_NOEXIST } else { 0 },
    };
    match call(BPF_MAP_UPDATE_ELEM, &mut attributes) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EEXIST | libc::E2BIG)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Reads any map with keys and values of these sizes, some hundred elements at a time, and hands each to
/// `each`. Elements that come and go meanwhile may or may not be seen.
///
/// # Errors
/// Where the kernel does not read it, or the first one of `each`.
pub(super) fn for_each_bytes(
    map: impl AsFd,
    key_size: usize,
    value_size: usize,
    mut each: impl FnMut(&[u8], &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    read_elements(map, (0u8, key_size), (0u8, value_size), |key, value| {
        each(key, value).map(|()| true)
    })
}

/// Reads a hash map as it is, some hundred elements at a time, and hands each to `each`, until that
/// wants no more.
///
/// Elements that come and go meanwhile may or may not be seen.
pub(super) fn for_each<K: Pod + Default, V: Pod>(
    map: impl AsFd,
    empty: V,
    mut each: impl FnMut(&K, &V) -> bool,
) -> io::Result<()> {
    read_elements(map, (K::default(), 1), (empty, 1), |key, value| Ok(each(&key[0], &value[0])))
}

/// The same for keys and values of so many units each, until `each` says that it wants no more.
fn read_elements<K: Pod, V: Pod>(
    map: impl AsFd,
    (key, key_units): (K, usize),
    (value, value_units): (V, usize),
    mut each: impl FnMut(&[K], &[V]) -> io::Result<bool>,
) -> io::Result<()> {
    let mut size = 1024;
    // Where the kernel is in the map: a bucket's number in a hash map, in others a key.
    let mut position = vec![0u8; (key_units * size_of::<K>()).max(size_of::<u64>())];
    let mut next = position.clone();
    let mut begun = false;
    let mut keys = vec![key; size * key_units];
    let mut values = vec![value; size * value_units];
    loop {
        let mut attributes = BatchAttributes {
            in_batch: if begun { position.as_ptr() as u64 } else { 0 },
            out_batch: next.as_mut_ptr() as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: size as u32,
            map_fd: raw(&map),
            ..Default::default()
        };
        let ended = match call(BPF_MAP_LOOKUP_BATCH, &mut attributes) {
            Ok(_) => false,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            // One hash bucket holds more than there was room for.
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && size < 1 << 20 => {
                size *= 2;
                keys.resize(size * key_units, key);
                values.resize(size * value_units, value);
                continue;
            }
            Err(error) => return Err(error),
        };
        let found = keys.chunks_exact(key_units).zip(values.chunks_exact(value_units));
        for (key, value) in found.take(attributes.count as usize) {
            if !each(key, value)? {
                return Ok(());
            }
        }
        if ended {
            return Ok(());
        }
        std::mem::swap(&mut position, &mut next);
        begun = true;
    }
}
