//! Waits for any of some sockets, or until a moment to the microsecond. By epoll: for a thread that sleeps
//! a hundred times a second, that the sockets are waited for once and not again each time is a part of what
//! it costs.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

/// Of one wait. What more there is comes with the next.
const EVENTS: usize = 16;

/// What there is to read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum What {
    Packets,
    Commands,
}

#[derive(Debug)]
pub(super) struct Waiter {
    epoll: OwnedFd,
}

impl Waiter {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)? })
    }

    /// It waits for this socket, too, from now on until that is closed.
    pub(super) fn add(&self, socket: impl AsFd, what: What) -> io::Result<()> {
        let data = EventData::new_u64(what as u64);
        Ok(epoll::add(&self.epoll, socket, data, EventFlags::IN)?)
    }

    /// Waits until something can be read, but no longer than that. Returns whether there may be commands.
    /// Where it is interrupted or fails there are none; the next wait goes on.
    pub(super) fn wait(&self, timeout: Duration) -> bool {
        let timeout = Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        let mut events =
            [epoll::Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; EVENTS];
        let count = epoll::wait(&self.epoll, &mut events, Some(&timeout)).unwrap_or(0);
        events.iter().take(count).any(|event| event.data.u64() == What::Commands as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;
    use std::time::Instant;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_micros(200);

    #[test]
    fn it_tells_of_commands_and_wakes_for_packets() {
        let waiter = Waiter::new().unwrap();
        let [(mut commands, mut sender), (packets, mut network)] =
            [(); 2].map(|()| UnixStream::pair().unwrap());
        waiter.add(&commands, What::Commands).unwrap();
        waiter.add(&packets, What::Packets).unwrap();
        sender.write_all(&[1]).unwrap();
        assert!(waiter.wait(LONG));
        commands.read_exact(&mut [0]).unwrap();
        network.write_all(&[1]).unwrap();
        assert!(!waiter.wait(LONG));
        // One that is closed wakes nobody any more.
        drop(packets);
        let begun = Instant::now();
        assert!(!waiter.wait(SHORT) && begun.elapsed() >= SHORT);
        // And whoever commanded it is gone.
        drop(sender);
        assert!(waiter.wait(LONG));
    }
}
