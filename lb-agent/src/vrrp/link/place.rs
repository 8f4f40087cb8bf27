//! Where a link is: what its sockets have in common, and what their failures mean.

use std::io;
use std::net::IpAddr;

use nix::net::if_::if_nametoindex;
use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};

use super::LinkError;
use crate::vrrp::packet::PROTOCOL;

/// Some hundred packets of any size that VRRP has: more than come in the time that the agent may
/// be busy.
const RECEIVE_BUFFER_BYTES: usize = 256 * 1024;

/// TC_PRIO_CONTROL (linux/pkt_sched.h): the first band of the default queue.
pub(super) const QUEUE_PRIORITY: u32 = 6;

/// CS6, internetwork control (RFC 4594, 3.1), as a TOS or a traffic class.
pub(super) const TRAFFIC_CLASS: u32 = 0xc0;

/// An interface, and this node's address on it.
#[derive(Debug)]
pub(super) struct Place {
    interface: String,
    pub(super) ifindex: u32,
    source: IpAddr,
}

impl Place {
    /// Fails where the name and the index are not, or no longer, of one interface: the name says
    /// what is heard, and the index where to send and which group to join.
    pub(super) fn find(interface: &str, ifindex: u32, source: IpAddr) -> Result<Self, LinkError> {
        let place = Self { interface: interface.to_owned(), ifindex, source };
        match if_nametoindex(interface) {
            Ok(index) if index == ifindex => Ok(place),
            _ => Err(place.missing()),
        }
    }

    pub(super) const fn source(&self) -> IpAddr {
        self.source
    }

    /// A raw socket that hears this interface alone.
    pub(super) fn socket(&self, domain: Domain) -> Result<Socket, LinkError> {
        let protocol = Protocol::from(i32::from(PROTOCOL));
        let socket = Socket::new(domain, Type::RAW.nonblocking(), Some(protocol))
            .map_err(|source| self.refused("open a raw socket", source))?;
        let bound = socket.bind_device(Some(self.interface.as_bytes()));
        self.done("bind to the interface", bound)?;
        let room = socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
        self.done("set the size of the receive buffer", room)?;
        Ok(socket)
    }

    /// Has a socket hear nothing, so that what nobody reads does not fill its buffer.
    pub(super) fn deafen(&self, socket: &Socket) -> Result<(), LinkError> {
        /// Classic BPF: return 0, no byte of the packet (linux/bpf_common.h).
        const NOTHING: [SockFilter; 1] = [SockFilter::new(0x06, 0, 0, 0)];
        self.done("hear nothing", socket.attach_filter(&NOTHING))
    }

    /// Binds a socket to what it is to hear, having made sure that the interface is still there and
    /// the source is this node's.
    ///
    /// A raw socket may be bound again, and to a group. It then hears what is sent there only.
    pub(super) fn bind(
        &self,
        socket: &Socket,
        source: &SockAddr,
        heard_at: &SockAddr,
    ) -> Result<(), LinkError> {
        self.done("look at the interface", socket.device().map(drop))?;
        self.done("bind to the source", socket.bind(source))?;
        self.done("bind to what is to be heard", socket.bind(heard_at))
    }

    pub(super) fn done(
        &self,
        operation: &'static str,
        result: io::Result<()>,
    ) -> Result<(), LinkError> {
        result.map_err(|source| self.refused(operation, source))
    }

    /// What it means that something else than a send failed.
    pub(super) fn refused(&self, operation: &'static str, source: io::Error) -> LinkError {
        let interface = self.interface.clone();
        match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => LinkError::NotPermitted { operation, interface },
            Some(libc::ENODEV | libc::ENXIO) => self.missing(),
            Some(libc::EADDRNOTAVAIL) => self.sourceless(),
            _ => LinkError::Refused { operation, interface, source },
        }
    }

    /// What it means that a send failed, where the place is as it was.
    pub(super) fn not_sent(&self, destination: IpAddr, source: io::Error) -> LinkError {
        let interface = self.interface.clone();
        // An output hook of netfilter that drops.
        if source.raw_os_error() == Some(libc::EPERM) {
            return LinkError::Filtered { interface, destination };
        }
        LinkError::NotSent { interface, source_address: self.source, destination, source }
    }

    pub(super) fn unreadable(&self) -> LinkError {
        LinkError::Unreadable { interface: self.interface.clone() }
    }

    fn missing(&self) -> LinkError {
        LinkError::NoSuchInterface { interface: self.interface.clone(), ifindex: self.ifindex }
    }

    fn sourceless(&self) -> LinkError {
        let interface = self.interface.clone();
        LinkError::NoSuchSource { interface, source_address: self.source }
    }
}
