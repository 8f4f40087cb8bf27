//! Putting another program into a pinned link, for every kind of link. aya 0.14 cannot do it for
//! cgroup links, and lets an unpinned one detach when it fails for the others. And pinning what is
//! pinned already in a second place, whatever it is.

#![expect(unsafe_code, reason = "the bpf system call")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_LINK_UPDATE: libc::c_long = 29;

/// The member of `union bpf_attr` for `BPF_OBJ_GET` and `BPF_OBJ_PIN`.
#[repr(C)]
struct ObjectAttributes {
    path: u64,
    fd: u32,
    flags: u32,
}

/// The member of `union bpf_attr` for `BPF_LINK_UPDATE`.
#[repr(C)]
struct UpdateAttributes {
    link_fd: u32,
    new_program_fd: u32,
    flags: u32,
    old_program_fd: u32,
}

fn call<T>(command: libc::c_long, attributes: &T) -> io::Result<libc::c_long> {
    // SAFETY: `attributes` is the command's member of `union bpf_attr`, and what it points to
    // outlives the call.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Opens what is pinned there, a map or a link.
pub(super) fn open(pin: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let object = ObjectAttributes { path: path.as_ptr() as u64, fd: 0, flags: 0 };
    let fd = call(BPF_OBJ_GET, &object)?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Pins it there, too.
pub(super) fn pin(object: &OwnedFd, at: &Path) -> io::Result<()> {
    let path = CString::new(at.as_os_str().as_bytes())?;
    let fd = object.as_raw_fd() as u32;
    let object = ObjectAttributes { path: path.as_ptr() as u64, fd, flags: 0 };
    call(BPF_OBJ_PIN, &object).map(|_| ())
}

/// Replaces the program of the link that is pinned at `pin`. No packet passes in between.
pub(super) fn replace(pin: &Path, program: impl AsFd) -> io::Result<()> {
    let link = open(pin)?;
    let update = UpdateAttributes {
        link_fd: link.as_raw_fd() as u32,
        new_program_fd: program.as_fd().as_raw_fd() as u32,
        flags: 0,
        old_program_fd: 0,
    };
    call(BPF_LINK_UPDATE, &update).map(|_| ())
}
