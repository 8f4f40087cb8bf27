//! Sends segments from addresses that this node may not hold.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};

use super::Segment;

/// Raw sockets of IP, which take a packet with its header (raw(7)). Belongs to the network namespace of the
/// thread that opened it.
#[derive(Debug)]
pub struct Sender {
    v4: io::Result<Socket>,
    v6: io::Result<Socket>,
}

impl Sender {
    /// A node may have one family alone: what it lacks is said by who sends.
    pub fn open() -> Self {
        let raw = Some(Protocol::from(libc::IPPROTO_RAW));
        let open = |domain| {
            let socket = Socket::new(domain, Type::RAW.nonblocking(), raw)?;
            // It only sends.
            socket.set_recv_buffer_size(0)?;
            Ok(socket)
        };
        Self { v4: open(Domain::IPV4), v6: open(Domain::IPV6) }
    }

    /// Sends it along the node's routes.
    ///
    /// # Errors
    /// Where there is no way, no room, or no such family.
    pub fn send(&self, segment: &Segment) -> io::Result<()> {
        let socket = if segment.destination.is_ipv4() { &self.v4 } else { &self.v6 };
        let socket = socket.as_ref().map_err(|error| io::Error::from(error.kind()))?;
        let unsupported = || io::Error::from(io::ErrorKind::InvalidInput);
        let packet = segment.packet().ok_or_else(unsupported)?;
        // The ports are the packet's.
        let to = SocketAddr::new(segment.destination.ip(), 0);
        socket.send_to(&packet, &to.into()).map(|_| ())
    }
}
