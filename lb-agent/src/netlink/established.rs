//! Connections that clients have open to this machine, with what the kernel tells of their silence (sock_diag(7),
//! `tcp_info` of tcp(7)), and their end.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6};
use netlink_packet_sock_diag::inet::nlas::Nla;
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetResponse, SocketId, StateFlags};

use super::NetlinkError;
use super::sockets::{Question, ask, end, far_end, near_end};

/// A connection, as it was when it was asked for.
#[derive(Clone, Debug)]
pub struct Established {
    /// Of this machine.
    pub near: SocketAddr,
    pub far: SocketAddr,
    /// Names the socket, and never another one (`SO_COOKIE`).
    pub cookie: u64,
    /// Since this side last sent something; since it was opened where it never did. In steps of up to 10 ms, as is
    /// `received`.
    pub sent: Duration,
    /// Since the other side did.
    pub received: Duration,
    /// Bytes that are unsent or not acknowledged.
    pub unacknowledged: u32,
    /// Bytes that the process has not read.
    pub unread: u32,
    /// What passed since it was opened, both ways together: segments, and bytes that arrived.
    pub segments: u64,
    pub bytes: u64,
    family: u8,
    id: SocketId,
}

/// The connections at these addresses, by their local end, that both sides may still write to. Blocks, for about a
/// second with a million sockets.
///
/// # Errors
/// Where the kernel refuses, or has no `tcp_diag`.
pub fn established(at: &HashSet<SocketAddr>) -> Result<Vec<Established>, NetlinkError> {
    let mut found = Vec::new();
    for_each_established(at, |connection| {
        found.push(connection);
        true
    })?;
    Ok(found)
}

/// Hands each of them to `each`, as it is found, until that wants no more. None is kept.
///
/// # Errors
/// As [`established`].
pub fn for_each_established(
    at: &HashSet<SocketAddr>,
    mut each: impl FnMut(Established) -> bool,
) -> Result<(), NetlinkError> {
    let mut wanted = true;
    for (family, mut any) in [(AF_INET, SocketId::new_v4()), (AF_INET6, SocketId::new_v6())] {
        // A socket of IPv6 may have connections of IPv4, but not the other way round.
        if family == AF_INET && !at.iter().any(SocketAddr::is_ipv4) {
            continue;
        }
        // The kernel looks for one port, if it is only one.
        let ports: HashSet<u16> = at.iter().map(SocketAddr::port).collect();
        if let [port] = ports.into_iter().collect::<Vec<_>>()[..] {
            any.source_port = port;
        }
        ask(&question(family, any, true), |response| {
            // The rest of what the kernel says is passed over.
            if wanted
                && at.contains(&near_end(&response.header.socket_id))
                && let Some(connection) = read(family, response)
            {
                wanted = each(connection);
            }
        })?;
    }
    Ok(())
}

impl Established {
    /// The same connection as it is now; nothing where it has ended, or one side has.
    ///
    /// # Errors
    /// As [`established`].
    pub fn again(&self) -> Result<Option<Self>, NetlinkError> {
        let mut now = None;
        let asked = ask(&question(self.family, self.id.clone(), false), |response| {
            // Asked for one socket, the kernel does not look at its state.
            if StateFlags::from_bits_truncate(1 << response.header.state) == StateFlags::ESTABLISHED
            {
                now = read(self.family, response);
            }
        });
        match asked {
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(None),
            asked => asked.map(|()| now),
        }
    }

    /// Ends it: the other side gets a reset, the process on this one an error (ECONNABORTED). Whether it was still
    /// there.
    ///
    /// # Errors
    /// Where the kernel refuses, or has no `INET_DIAG_DESTROY`.
    pub fn end(self) -> Result<bool, NetlinkError> {
        end(self.family, self.id)
    }
}

fn question(family: u8, socket_id: SocketId, all: bool) -> Question {
    let (extensions, states) = (ExtensionFlags::INFO, StateFlags::ESTABLISHED);
    Question { family, socket_id, states, extensions, all }
}

/// Nothing where the kernel said nothing of the connection itself.
fn read(family: u8, response: &InetResponse) -> Option<Established> {
    let info = response.nlas.iter().find_map(|nla| match nla {
        Nla::TcpInfo(info) => Some(&info[..]),
        _ => None,
    })?;
    // linux/tcp.h: eight bytes, then words, of which these are `tcpi_last_data_sent` and `tcpi_last_data_recv`.
    let millis = |at: usize| {
        let word = info.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)?;
        Some(Duration::from_millis(u64::from(word)))
    };
    // Further on, where older kernels say nothing: `tcpi_bytes_acked`, `tcpi_bytes_received`, `tcpi_segs_out`, `_in`.
    let long = |at: usize| {
        let bytes = info.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u64::from_ne_bytes)
    };
    let word = |at: usize| {
        let bytes = info.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, |bytes| u64::from(u32::from_ne_bytes(bytes)))
    };
    let header = &response.header;
    Some(Established {
        near: near_end(&header.socket_id),
        far: far_end(&header.socket_id),
        cookie: u64::from_ne_bytes(header.socket_id.cookie),
        sent: millis(44)?,
        received: millis(52)?,
        unacknowledged: header.send_queue,
        unread: header.recv_queue,
        segments: word(136) + word(140),
        bytes: long(120) + long(128),
        family,
        id: header.socket_id.clone(),
    })
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read as _, Write as _};
    use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, TcpListener, TcpStream};

    use super::*;

    fn connected(listener: &TcpListener, to: SocketAddr) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(to).unwrap();
        (client, listener.accept().unwrap().0)
    }

    fn only(at: SocketAddr) -> Established {
        let found = established(&HashSet::from([at])).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        found.into_iter().next().unwrap()
    }

    #[test]
    fn a_connection_is_found_by_its_local_end_until_one_side_is_done() {
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, listener.local_addr().unwrap().port()));
        let (client, _server) = connected(&listener, at);
        let found = only(at);
        assert_eq!((found.near, found.far), (at, client.local_addr().unwrap()));
        assert_eq!(found.again().unwrap().unwrap().cookie, found.cookie);
        client.shutdown(Shutdown::Write).unwrap();
        assert!(established(&HashSet::from([at])).unwrap().is_empty());
        assert!(found.again().unwrap().is_none(), "half closed");
    }

    #[test]
    fn what_was_said_last_and_not_read_is_told() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let at = listener.local_addr().unwrap();
        let (mut client, mut server) = connected(&listener, at);
        // The kernel's clock has steps.
        let step = Duration::from_millis(50);
        std::thread::sleep(4 * step);
        server.write_all(b"said").unwrap();
        client.read_exact(&mut [0; 4]).unwrap();
        let spoken = only(at);
        assert!(spoken.sent + step < spoken.received, "{spoken:?}");
        assert!(spoken.received >= 3 * step, "{spoken:?}");
        assert_eq!(spoken.unread, 0);
        std::thread::sleep(4 * step);
        client.write_all(b"asked").unwrap();
        let asked = spoken.again().unwrap().unwrap();
        assert!(asked.received + step < asked.sent, "{asked:?}");
        assert_eq!(asked.unread, 5);
        server.read_exact(&mut [0; 5]).unwrap();
        assert_eq!(asked.again().unwrap().unwrap().unread, 0);
    }

    #[test]
    fn an_end_is_an_error_here_and_a_reset_there() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let at = listener.local_addr().unwrap();
        let (mut client, mut server) = connected(&listener, at);
        let found = only(at);
        match found.clone().end() {
            Ok(there) => assert!(there),
            // It takes CAP_NET_ADMIN.
            Err(error) => return assert!(error.to_string().contains("permitted"), "{error}"),
        }
        let mut read = [0; 1];
        assert_eq!(server.read(&mut read).unwrap_err().kind(), ErrorKind::ConnectionAborted);
        assert_eq!(client.read(&mut read).unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert!(found.again().unwrap().is_none());
        assert!(!found.end().unwrap(), "once");
    }
}
