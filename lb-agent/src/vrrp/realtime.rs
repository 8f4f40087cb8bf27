//! Real-time priority for the thread that calls, so that a busy machine does not delay it.

#![expect(unsafe_code, reason = "sched_setscheduler(2) has no safe wrapper here")]

use std::io;

/// The advertisements': above ordinary threads, below the kernel's own.
pub const PRIORITY: i32 = 20;

/// Asks for `SCHED_FIFO`; where that is refused (no CAP_SYS_NICE, a limit of the cgroup) the thread
/// goes on as it was.
///
/// # Errors
/// What the kernel says against it.
pub fn request(priority: i32) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: 0 is the calling thread; the parameters live as long as the call. New threads of this
    // one do not inherit the policy.
    let result = unsafe {
        libc::sched_setscheduler(
            0,
            libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK,
            &raw const parameters,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
