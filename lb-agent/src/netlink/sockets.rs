//! This machine's TCP connections, as the kernel lists them (sock_diag(7)).

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;

use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{
    ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags,
};
use netlink_packet_sock_diag::{SOCK_DESTROY, SockDiagMessage};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};

use super::NetlinkError;

const OPERATION: &str = "list TCP connections";

/// What the kernel fills at once.
const BUFFER: usize = 32 << 10;

/// How many connections are open at each of these addresses, by their local end. Open are those that one side
/// may still write to. Blocks, for about a second with a million sockets.
///
/// # Errors
/// Where the kernel refuses, or has no `tcp_diag`.
pub fn open_connections(
    at: &HashSet<SocketAddr>,
) -> Result<HashMap<SocketAddr, u64>, NetlinkError> {
    let mut counts = HashMap::new();
    // A socket of IPv6 may have connections of IPv4.
    for (family, any) in [(AF_INET, SocketId::new_v4()), (AF_INET6, SocketId::new_v6())] {
        ask(&open(family, any), |response| {
            let local = near_end(&response.header.socket_id);
            if at.contains(&local) {
                *counts.entry(local).or_insert(0) += 1;
            }
        })?;
    }
    Ok(counts)
}

/// Ends the connections to these addresses that belong to one of the sockets with these cookies: whoever waits on
/// one gets an error (ECONNABORTED). Returns how many. Blocks as [`open_connections`] does.
///
/// # Errors
/// Where the kernel refuses, or has no `INET_DIAG_DESTROY`.
pub fn end_connections(
    to: &HashSet<SocketAddr>,
    cookies: &HashSet<u64>,
) -> Result<u64, NetlinkError> {
    let mut ended = 0;
    for (family, any) in [(AF_INET, SocketId::new_v4()), (AF_INET6, SocketId::new_v6())] {
        let mut found = Vec::new();
        ask(&open(family, any), |response| {
            let id = &response.header.socket_id;
            if to.contains(&far_end(id)) && cookies.contains(&u64::from_ne_bytes(id.cookie)) {
                found.push(id.clone());
            }
        })?;
        for id in found {
            ended += u64::from(end(family, id)?);
        }
    }
    Ok(ended)
}

/// Whether it was still there.
pub(super) fn end(family: u8, id: SocketId) -> Result<bool, NetlinkError> {
    const OPERATION: &str = "end a TCP connection";
    let socket = opened()?;
    let mut bytes = request(&open(family, id), NLM_F_REQUEST | NLM_F_ACK);
    // The library knows requests of one kind; this one differs in its type alone (linux/sock_diag.h).
    bytes[4..6].copy_from_slice(&SOCK_DESTROY.to_ne_bytes());
    let failed = |error: io::Error| {
        NetlinkError::refused(OPERATION.to_owned(), error.raw_os_error().unwrap_or(libc::EIO))
    };
    socket.send(&bytes, 0).map_err(failed)?;
    let mut buffer = Vec::with_capacity(BUFFER);
    socket.recv(&mut buffer, 0).map_err(failed)?;
    // A header, then the error (netlink(7)).
    let code = buffer.get(16..20).and_then(|code| code.try_into().ok()).map(i32::from_ne_bytes);
    match code.map(i32::wrapping_neg) {
        Some(0) => Ok(true),
        Some(libc::ENOENT) => Ok(false),
        code => Err(NetlinkError::refused(OPERATION.to_owned(), code.unwrap_or(libc::EBADMSG))),
    }
}

pub(super) fn near_end(id: &SocketId) -> SocketAddr {
    SocketAddr::new(id.source_address.to_canonical(), id.source_port)
}

pub(super) fn far_end(id: &SocketId) -> SocketAddr {
    SocketAddr::new(id.destination_address.to_canonical(), id.destination_port)
}

fn opened() -> Result<Socket, NetlinkError> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG).map_err(NetlinkError::Open)?;
    socket.bind_auto().map_err(NetlinkError::Open)?;
    Ok(socket)
}

/// Which sockets the kernel is asked for.
pub(super) struct Question {
    pub(super) family: u8,
    pub(super) socket_id: SocketId,
    pub(super) states: StateFlags,
    pub(super) extensions: ExtensionFlags,
    /// All that fit, rather than that very one.
    pub(super) all: bool,
}

/// Those that one side may still write to.
fn open(family: u8, socket_id: SocketId) -> Question {
    let states = StateFlags::SYN_RECV
        | StateFlags::ESTABLISHED
        | StateFlags::FIN_WAIT1
        | StateFlags::FIN_WAIT2
        | StateFlags::CLOSE_WAIT;
    Question { family, socket_id, states, extensions: ExtensionFlags::empty(), all: true }
}

fn request(question: &Question, flags: u16) -> Vec<u8> {
    let request = InetRequest {
        family: question.family,
        protocol: IPPROTO_TCP,
        extensions: question.extensions.clone(),
        states: question.states.clone(),
        socket_id: question.socket_id.clone(),
    };
    let mut message = NetlinkMessage::from(SockDiagMessage::InetRequest(request));
    message.header.flags = flags;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// Tells of each socket that the question is about.
pub(super) fn ask(
    question: &Question,
    mut each: impl FnMut(&InetResponse),
) -> Result<(), NetlinkError> {
    let socket = opened()?;
    let kind = if question.all { NLM_F_DUMP } else { 0 };
    let bytes = request(question, NLM_F_REQUEST | kind);
    let failed = |error: io::Error| {
        NetlinkError::refused(OPERATION.to_owned(), error.raw_os_error().unwrap_or(libc::EIO))
    };
    socket.send(&bytes, 0).map_err(failed)?;
    let mut buffer = Vec::with_capacity(BUFFER);
    loop {
        buffer.clear();
        socket.recv(&mut buffer, 0).map_err(failed)?;
        // Of one socket there is one answer, with nothing behind it.
        if read(&buffer, &mut each)? || !question.all {
            return Ok(());
        }
    }
}

/// Reads what came at once; whether it was the last.
fn read(mut bytes: &[u8], each: &mut impl FnMut(&InetResponse)) -> Result<bool, NetlinkError> {
    let unread = || NetlinkError::refused(OPERATION.to_owned(), libc::EBADMSG);
    while !bytes.is_empty() {
        let message =
            NetlinkMessage::<SockDiagMessage>::deserialize(bytes).map_err(|_| unread())?;
        match message.payload {
            NetlinkPayload::Done(_) => return Ok(true),
            NetlinkPayload::Error(error) => {
                return Err(NetlinkError::refused(OPERATION.to_owned(), error.raw_code().abs()));
            }
            NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                each(&response);
            }
            _ => {}
        }
        // Messages begin at multiples of four.
        let length = message.header.length as usize;
        if length == 0 {
            return Err(unread());
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};

    use socket2::SockRef;

    use super::*;

    /// Connections to a listener, which are accepted.
    fn connected(
        listener: &TcpListener,
        to: SocketAddr,
        count: usize,
    ) -> Vec<(TcpStream, TcpStream)> {
        let pair = |_| {
            let client = TcpStream::connect(to).unwrap();
            (client, listener.accept().unwrap().0)
        };
        (0..count).map(pair).collect()
    }

    #[test]
    fn connections_are_counted_while_either_side_may_write() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let at = listener.local_addr().unwrap();
        let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let _apart = connected(&other, other.local_addr().unwrap(), 2);
        let count = || open_connections(&HashSet::from([at])).unwrap();
        assert_eq!(count(), HashMap::new(), "a listener is no connection");
        let mut pairs = connected(&listener, at, 3);
        assert_eq!(count(), HashMap::from([(at, 3)]));
        // The server may still answer.
        pairs[0].0.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(count(), HashMap::from([(at, 3)]));
        let (client, server) = pairs.remove(1);
        drop(client);
        drop(server);
        assert_eq!(count(), HashMap::from([(at, 2)]));
    }

    #[test]
    fn connections_are_ended_by_where_they_lead_and_whose_they_are() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let at = listener.local_addr().unwrap();
        let mut pairs = connected(&listener, at, 2);
        let cookie = |pair: &(TcpStream, TcpStream)| SockRef::from(&pair.0).cookie().unwrap();
        let (mine, theirs) = (cookie(&pairs[0]), cookie(&pairs[1]));
        assert_ne!(mine, theirs);
        let elsewhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let ended = |to, cookies: &[u64]| {
            end_connections(&HashSet::from([to]), &cookies.iter().copied().collect())
        };
        assert_eq!(ended(elsewhere, &[mine, theirs]).unwrap(), 0);
        assert_eq!(ended(at, &[]).unwrap(), 0);
        match ended(at, &[mine]) {
            Ok(count) => assert_eq!(count, 1),
            // It takes CAP_NET_ADMIN.
            Err(error) => return assert!(error.to_string().contains("permitted"), "{error}"),
        }
        let read = Read::read(&mut pairs[0].0, &mut [0; 1]);
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!(open_connections(&HashSet::from([at])).unwrap()[&at], 1, "the other one stays");
    }

    #[test]
    fn a_listener_of_both_families_is_counted_by_the_address_that_was_asked_for() {
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
        let _four = connected(&listener, v4, 2);
        let _six = connected(&listener, v6, 1);
        let counts = open_connections(&HashSet::from([v4, v6])).unwrap();
        assert_eq!(counts, HashMap::from([(v4, 2), (v6, 1)]));
    }
}
