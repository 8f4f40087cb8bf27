//! Waits for any of some sockets, or until a moment to the microsecond. By epoll: for a thread that sleeps
//! a hundred times a second, that the sockets are waited for once and not again each time is a part of what
//! it costs.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

/// Of one wait. Where there are as many, there may be more.
const EVENTS: usize = 32;
/// Stands for the commands; every other number is a socket's.
const COMMANDS: u64 = u64::MAX;

/// What there is to read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum What {
    Packets,
    Commands,
}

/// What a wait ended with.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Woken {
    /// There may be commands.
    pub(super) commands: bool,
    /// Every socket may have packets.
    everywhere: bool,
    sockets: Vec<u64>,
}

impl Woken {
    /// As if there were something everywhere.
    pub(super) const fn by_all() -> Self {
        Self { commands: true, everywhere: true, sockets: Vec::new() }
    }

    /// Whether this socket may have packets. One that took the number of another one that was closed may be thought
    /// to have some.
    pub(super) fn has_packets(&self, socket: impl AsFd) -> bool {
        self.everywhere || self.sockets.contains(&number(socket))
    }
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
        let data = EventData::new_u64(match what {
            What::Packets => number(&socket),
            What::Commands => COMMANDS,
        });
        Ok(epoll::add(&self.epoll, socket, data, EventFlags::IN)?)
    }

    /// Waits until something can be read, but no longer than that. What arrived until the time was over counts:
    /// the kernel looks once more then. Where it is interrupted or fails there is nothing; the next wait goes on.
    pub(super) fn wait(&self, timeout: Duration) -> Woken {
        let timeout = Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        let mut events =
            [epoll::Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; EVENTS];
        let count = epoll::wait(&self.epoll, &mut events, Some(&timeout)).unwrap_or(0);
        if count == EVENTS {
            return Woken::by_all();
        }
        let data: Vec<u64> = events.iter().take(count).map(|event| event.data.u64()).collect();
        Woken { commands: data.contains(&COMMANDS), everywhere: false, sockets: data }
    }
}

fn number(socket: impl AsFd) -> u64 {
    u64::from(socket.as_fd().as_raw_fd().unsigned_abs())
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
    fn it_tells_of_commands_and_of_whose_packets_there_are() {
        let waiter = Waiter::new().unwrap();
        let [(mut commands, mut sender), (packets, mut network)] =
            [(); 2].map(|()| UnixStream::pair().unwrap());
        waiter.add(&commands, What::Commands).unwrap();
        waiter.add(&packets, What::Packets).unwrap();
        sender.write_all(&[1]).unwrap();
        let woken = waiter.wait(LONG);
        assert!(woken.commands && !woken.has_packets(&packets));
        commands.read_exact(&mut [0]).unwrap();
        network.write_all(&[1]).unwrap();
        let woken = waiter.wait(LONG);
        assert!(!woken.commands && woken.has_packets(&packets) && !woken.has_packets(&commands));
        // One that is closed wakes nobody any more.
        drop(packets);
        let begun = Instant::now();
        assert_eq!(waiter.wait(SHORT), Woken::default());
        assert!(begun.elapsed() >= SHORT);
        // And whoever commanded it is gone.
        drop(sender);
        assert!(waiter.wait(LONG).commands);
    }

    #[test]
    fn what_arrived_while_nobody_waited_counts_although_the_time_is_over() {
        let waiter = Waiter::new().unwrap();
        let (packets, mut network) = UnixStream::pair().unwrap();
        waiter.add(&packets, What::Packets).unwrap();
        network.write_all(&[1]).unwrap();
        assert!(waiter.wait(Duration::ZERO).has_packets(&packets));
    }

    #[test]
    fn where_more_has_come_than_is_told_it_may_be_anybodys() {
        let waiter = Waiter::new().unwrap();
        let mut pairs = Vec::new();
        for _ in 0..=EVENTS {
            let (packets, mut network) = UnixStream::pair().unwrap();
            waiter.add(&packets, What::Packets).unwrap();
            network.write_all(&[1]).unwrap();
            pairs.push((packets, network));
        }
        let woken = waiter.wait(LONG);
        assert!(woken.commands && pairs.iter().all(|(packets, _)| woken.has_packets(packets)));
    }
}
