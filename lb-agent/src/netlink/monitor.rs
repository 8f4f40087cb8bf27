//! Watches the kernel's notices and condenses them into [`Change`]s.
//!
//! There is no queue of ours: notices wait in the socket's buffer, which is bounded, and what
//! overflows it is made good by reading everything anew.

#![expect(unsafe_code, reason = "AsyncFd's constructor is unsafe; std has no async netlink socket")]

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt,
    socket, sockopt,
};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use super::event::Filter;
use super::{Change, NetlinkError};

const GROUPS: [MulticastGroup; 6] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
];

/// No netlink message is longer (kernel commit d35c99ff77ec).
const LONGEST_MESSAGE: usize = 32 * 1024;

/// Datagrams read before other tasks get their turn.
const BATCH: usize = 64;

#[derive(Clone, Copy, Debug)]
pub struct MonitorOptions {
    /// The socket's receive buffer, which the kernel doubles for its own needs and limits to
    /// `net.core.rmem_max`.
    pub receive_buffer_bytes: usize,
    /// Notices are told no more often than this; the first one is told at once.
    pub gap: Duration,
    /// Everything is read anew at least this often, come what may.
    pub resync: Duration,
}

impl Default for MonitorOptions {
    fn default() -> Self {
        Self {
            receive_buffer_bytes: 1 << 20,
            gap: Duration::from_millis(20),
            resync: Duration::from_secs(60),
        }
    }
}

/// The kernel's notices since it was opened. Open it before the first snapshot, so that nothing
/// falls between the two.
#[derive(Debug)]
pub struct Monitor {
    socket: AsyncFd<OwnedFd>,
    inbox: Inbox,
    gap: Duration,
    not_before: Instant,
}

/// What was read and not yet told.
#[derive(Debug)]
struct Inbox {
    filter: Filter,
    pending: Change,
    overruns: u64,
    resync: Duration,
    resync_at: Instant,
    buffer: Vec<u8>,
}

impl Monitor {
    /// Subscribes in the calling thread's network namespace.
    pub fn open(options: MonitorOptions) -> Result<Self, NetlinkError> {
        let open = || -> io::Result<AsyncFd<OwnedFd>> {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let protocol = SockProtocol::NetlinkRoute;
            let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
            setsockopt(&fd, sockopt::RcvBuf, &options.receive_buffer_bytes)?;
            let groups = GROUPS.iter().fold(0, |mask, &group| mask | 1 << (group as u32 - 1));
            bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
            // SAFETY: the `AsyncFd` owns the descriptor, which nobody closes before it is dropped:
            // `Monitor` never gives out a mutable reference, and takes only shared ones itself.
            unsafe { Ok(AsyncFd::register(fd)?) }
        };
        let now = Instant::now();
        let inbox = Inbox {
            filter: Filter::default(),
            pending: Change::ALL,
            overruns: 0,
            resync: options.resync,
            resync_at: now + options.resync,
            buffer: vec![0; LONGEST_MESSAGE],
        };
        let socket = open().map_err(NetlinkError::Open)?;
        Ok(Self { socket, inbox, gap: options.gap, not_before: now })
    }

    /// The VIPs whose refreshes are this agent's own and wake nobody.
    pub fn set_own(&mut self, vips: BTreeSet<IpAddr>) {
        self.inbox.filter.set_own(vips);
    }

    /// How often the kernel had more to tell than the buffer holds.
    pub fn overruns(&self) -> u64 {
        self.inbox.overruns
    }

    /// Waits until something changed. The first call returns [`Change::ALL`] at once. May be
    /// dropped and called again without losing a change.
    pub async fn changed(&mut self) -> Change {
        loop {
            let due = !self.inbox.pending.is_none();
            tokio::select! {
                ready = self.socket.readable() => match ready {
                    Ok(mut guard) => {
                        if self.inbox.drain(guard.get_inner()) {
                            guard.clear_ready();
                        }
                    }
                    // The reactor is gone; only the timers are left.
                    Err(_) => tokio::time::sleep(self.gap).await,
                },
                () = tokio::time::sleep_until(self.not_before), if due => {
                    self.not_before = Instant::now() + self.gap;
                    return std::mem::take(&mut self.inbox.pending);
                }
                () = tokio::time::sleep_until(self.inbox.resync_at) => self.inbox.read_anew(),
            }
        }
    }
}

impl Inbox {
    fn read_anew(&mut self) {
        self.pending = Change::ALL;
        self.filter.forget();
        self.resync_at = Instant::now() + self.resync;
    }

    /// Reads what waits, up to a batch. Returns whether nothing is left.
    fn drain(&mut self, socket: &OwnedFd) -> bool {
        for _ in 0..BATCH {
            match recv(socket.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => self.read_messages(length),
                Err(Errno::EAGAIN) => return true,
                Err(Errno::EINTR) => {}
                Err(error) => {
                    // ENOBUFS: the kernel dropped notices. Any other error can have lost some.
                    self.overruns += 1;
                    tracing::warn!(%error, overruns = self.overruns,
                        "netlink notices were lost; reading the whole configuration anew");
                    self.read_anew();
                    if error != Errno::ENOBUFS {
                        return true;
                    }
                }
            }
        }
        false
    }

    /// A datagram may hold several messages.
    fn read_messages(&mut self, length: usize) {
        let mut rest = &self.buffer[..length.min(LONGEST_MESSAGE)];
        while !rest.is_empty() {
            let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest) else {
                // A newer kernel's attribute that the decoder refuses still means a change.
                self.pending = Change::ALL;
                return;
            };
            if let NetlinkPayload::InnerMessage(inner) = &message.payload {
                self.pending |= self.filter.classify(inner);
            }
            // Messages are aligned to 4 bytes; the last one may go without its padding.
            let length = (message.header.length as usize).next_multiple_of(4);
            rest = rest.get(length.max(4)..).unwrap_or_default();
        }
    }
}
