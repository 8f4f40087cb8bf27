//! One check by a connection. Of TCP alone it is a handshake, taken just so far that the kernel at the other end has answered.
//!
//! ```text
//!   here  SYN ------>              <------ SYN, ACK        RST ------>
//! ```
//!
//! The handshake's last ACK is held back (TCP_QUICKACK off) and the socket closed with a reset
//! (SO_LINGER 0) instead. So the server's process is never woken: no log line about a TLS handshake
//! that ended early, which a plain close and a reset after the ACK both cause, no slot of its
//! accept queue, no TIME_WAIT here. haproxy does the same for its TCP checks. Where the agent is
//! kept from running for longer than the kernel delays an ACK (40 ms), the server sees a connection
//! that is reset.
//!
//! What this shows is that something listens, and that its accept queue has room: a process that
//! hangs is noticed when its clients have filled that queue. A check by [`http`](super::http) goes on from
//! there.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::linux::net::TcpStreamExt;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use tokio::net::{TcpSocket, TcpStream as Stream};
use tokio::time::{Instant, timeout_at};

use super::http::{self, Settings};
use super::judge::Outcome;
use crate::config::Check;

/// Checks the server at `address`, for at most `limit`.
pub(super) async fn probe(
    address: SocketAddr,
    check: &Check,
    settings: &Settings,
    limit: Duration,
) -> Outcome {
    let start = Instant::now();
    match attempt(address, check, settings, limit).await {
        Ok(what) => Outcome::Passed(format!("{what} in {}", milliseconds(start.elapsed()))),
        Err(outcome) => outcome,
    }
}

async fn attempt(
    address: SocketAddr,
    check: &Check,
    settings: &Settings,
    limit: Duration,
) -> Result<String, Outcome> {
    let deadline = Instant::now() + limit;
    let missing = |error| Outcome::NotChecked(format!("no socket for a check: {error}"));
    let socket = open(&address).map_err(missing)?;
    let connected = timeout_at(deadline, connect(socket, address)).await;
    let stream =
        connected.map_err(|_| Outcome::Unreachable(format!("no answer within {limit:?}")))??;
    match check {
        // A script is run instead.
        Check::Tcp | Check::Script(_) => Ok("connected".to_owned()),
        Check::Http(check) => http::ask(stream, address, check, settings, deadline).await,
    }
}

/// One decimal place; two below a tenth of a millisecond, as on loopback.
fn milliseconds(took: Duration) -> String {
    let ms = took.as_secs_f64() * 1e3;
    if ms < 0.1 { format!("{ms:.2} ms") } else { format!("{ms:.1} ms") }
}

fn open(address: &SocketAddr) -> io::Result<TcpSocket> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let stream = TcpStream::from(socket(family, SockType::Stream, flags, None)?);
    stream.set_quickack(false)?;
    let socket = TcpSocket::from_std_stream(stream);
    socket.set_zero_linger()?;
    Ok(socket)
}

async fn connect(socket: TcpSocket, address: SocketAddr) -> Result<Stream, Outcome> {
    match socket.connect(address).await {
        Err(error) => Err(blame(&error)),
        // The kernel may choose the very port that is asked for as the source where both
        // addresses are this node's, and TCP then connects the socket to itself (RFC 9293,
        // section 3.5, simultaneous open). Nobody listens there.
        Ok(stream) if stream.local_addr().is_ok_and(|local| local == address) => {
            Err(Outcome::Failed("connection refused".to_owned()))
        }
        Ok(stream) => Ok(stream),
    }
}

/// Whether a failed connection speaks against the target or against this node, and in what words.
fn blame(error: &io::Error) -> Outcome {
    let errno = error.raw_os_error().map(Errno::from_raw);
    match errno {
        Some(Errno::ECONNREFUSED) => Outcome::Failed("connection refused".to_owned()),
        Some(Errno::ECONNRESET) => Outcome::Failed("connection reset".to_owned()),
        Some(Errno::EHOSTUNREACH) => Outcome::Unreachable("host unreachable".to_owned()),
        Some(Errno::ETIMEDOUT) => Outcome::Unreachable("connection timed out".to_owned()),
        // That says something about this node alone.
        Some(Errno::ENETUNREACH) => Outcome::Failed("no route to it from this node".to_owned()),
        // What forbids this node to connect may well forbid it to forward: better down, and said
        // so, than unknown for ever.
        Some(Errno::EPERM | Errno::EACCES) => {
            Outcome::Failed("forbidden by a firewall rule or BPF program of this node".to_owned())
        }
        Some(Errno::EADDRNOTAVAIL) => {
            Outcome::NotChecked("no source address or port left for a check".to_owned())
        }
        Some(errno @ (Errno::ENOBUFS | Errno::ENOMEM | Errno::EMFILE | Errno::ENFILE)) => {
            Outcome::NotChecked(format!("no connection for a check: {}", errno.desc()))
        }
        Some(errno) => Outcome::Failed(errno.desc().to_lowercase()),
        None => Outcome::Failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::tests::{TEST_LIMIT, runtime, test_address};

    #[test]
    fn times_are_told_to_what_can_be_read() {
        let rows = [(52, "0.05 ms"), (430, "0.4 ms"), (12_345, "12.3 ms")];
        for (micros, text) in rows {
            assert_eq!(milliseconds(Duration::from_micros(micros)), text);
        }
    }

    #[test]
    fn what_this_node_lacks_is_not_held_against_the_target() {
        for errno in [Errno::EADDRNOTAVAIL, Errno::EMFILE, Errno::ENOBUFS, Errno::ENOMEM] {
            assert!(matches!(blame(&errno.into()), Outcome::NotChecked(_)), "{errno}");
        }
        for errno in [Errno::ECONNREFUSED, Errno::EPERM, Errno::ENETUNREACH] {
            assert!(matches!(blame(&errno.into()), Outcome::Failed(_)), "{errno}");
        }
        for errno in [Errno::EHOSTUNREACH, Errno::ETIMEDOUT] {
            assert!(matches!(blame(&errno.into()), Outcome::Unreachable(_)), "{errno}");
        }
    }

    #[test]
    fn a_socket_that_connects_to_itself_is_refused() {
        runtime().block_on(async {
            let address = test_address();
            let socket = open(&address).unwrap();
            socket.bind(address).unwrap();
            let refused = Outcome::Failed("connection refused".to_owned());
            assert_eq!(connect(socket, address).await.unwrap_err(), refused);
        });
    }

    #[test]
    fn a_server_does_not_see_the_check() {
        runtime().block_on(async {
            let server = tokio::net::TcpListener::bind(test_address()).await.unwrap();
            let address = server.local_addr().unwrap();
            // A machine that is busy enough lets the ACK's delay pass: one of these is enough.
            for _ in 0..20 {
                let settings = Settings::default();
                let outcome = probe(address, &Check::Tcp, &settings, TEST_LIMIT).await;
                assert!(matches!(outcome, Outcome::Passed(_)), "{outcome:?}");
                let client = tokio::net::TcpStream::connect(address).await.unwrap();
                let mut first = server.accept().await.unwrap().1;
                if first == client.local_addr().unwrap() {
                    return;
                }
                while first != client.local_addr().unwrap() {
                    first = server.accept().await.unwrap().1;
                }
            }
            panic!("the server accepted the connections of 20 checks");
        });
    }
}
