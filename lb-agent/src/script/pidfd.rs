//! A process as a file that is readable once it has ended, and before anybody has waited for it: so
//! long its number, and that of its group, is nobody else's.

#![expect(unsafe_code, reason = "pidfd_open, which neither nix nor std offers")]

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Waits until a process has ended, without reaping it.
///
/// # Errors
///
/// Where the kernel gives no descriptor for it; ESRCH where it is no more.
pub(crate) async fn ended(pid: u32) -> io::Result<()> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: pidfd_open(2) takes two integers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    let pidfd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: the descriptor is owned by what it watches for, and is neither closed nor replaced.
    let watched = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }?;
    watched.readable().await.map(drop)
}
