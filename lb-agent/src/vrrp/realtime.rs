//! Real-time priority for the thread that calls, so that a busy machine does not delay it.

#![expect(unsafe_code, reason = "sched_setscheduler(2) has no safe wrapper here")]

use std::io;

/// Above ordinary threads, below the kernel's own.
const PRIORITY: i32 = 20;

/// Asks for it; where that is refused (no CAP_SYS_NICE, a limit of the cgroup) the thread goes on
/// as it was.
pub(super) fn request() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: PRIORITY };
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
