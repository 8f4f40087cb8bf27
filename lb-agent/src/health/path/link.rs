//! Sends probes by one interface, and hears what comes of them.

#![expect(unsafe_code, reason = "AsyncFd's constructor is unsafe")]

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use socket2::{Domain, SockFilter, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::{Heard, Ports};
use crate::netlink::Mac;
use crate::packet_socket::{
    AND, JUMP_EQUAL, LOAD_BYTE, LOAD_HALF, RETURN, bind, ignore_outgoing, receive, send_to,
};

/// More than the headers of a packet that passes the filter, with options of IP and TCP.
const LONGEST: usize = 128;

/// Who sent what, by which interface.
pub(super) struct Received {
    pub(super) ifindex: u32,
    pub(super) mac: Mac,
    pub(super) heard: Heard,
}

/// Belongs to the network namespace of the thread that opened it.
#[derive(Debug)]
pub(super) struct Link {
    ifindex: u32,
    socket: Arc<AsyncFd<Socket>>,
    reader: AbortHandle,
    broken: Arc<AtomicBool>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Link {
    pub(super) fn open(
        ifindex: u32,
        ports: &Ports,
        received: mpsc::Sender<Received>,
    ) -> io::Result<Self> {
        // Protocol 0: nothing comes before the filter is there.
        let socket = Socket::new(Domain::PACKET, Type::DGRAM.nonblocking(), None)?;
        socket.attach_filter(&filter(ports))?;
        ignore_outgoing(&socket)?;
        bind(&socket, ifindex)?;
        // SAFETY: the `AsyncFd` owns the descriptor, and gives out shared references alone.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        let (socket, broken) = (Arc::new(socket), Arc::new(AtomicBool::new(false)));
        let reading = read(ifindex, Arc::clone(&socket), received, Arc::clone(&broken));
        Ok(Self { ifindex, socket, reader: tokio::spawn(reading).abort_handle(), broken })
    }

    /// Nothing is heard any more, as where the interface was down.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    pub(super) fn send(&self, packet: &[u8], mac: Mac) -> io::Result<()> {
        send_to(self.socket.get_ref(), packet, self.ifindex, mac)
    }
}

async fn read(
    ifindex: u32,
    socket: Arc<AsyncFd<Socket>>,
    received: mpsc::Sender<Received>,
    broken: Arc<AtomicBool>,
) {
    let mut buffer = [0; LONGEST];
    while let Ok(mut ready) = socket.readable().await {
        match ready.try_io(|socket| receive(socket.get_ref(), &mut buffer)) {
            Ok(Ok((length, mac))) => {
                // What passes the filter and is nothing of ours is no more than that.
                let Some(heard) = Heard::decode(&buffer[..length]) else { continue };
                if received.send(Received { ifindex, mac, heard }).await.is_err() {
                    return;
                }
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(Err(_)) => break,
            Err(_nothing_more) => {}
        }
    }
    broken.store(true, Ordering::Relaxed);
}

/// Segments of TCP with SYN or RST from or to one of the ports, behind headers of IP without options, at which they
/// begin (packet(7), `SOCK_DGRAM`). Other packets cost these few instructions.
fn filter(ports: &Ports) -> Vec<SockFilter> {
    let (v4, v6) = (of_family(true, ports.first()), of_family(false, ports.first()));
    let beginning = [
        SockFilter::new(LOAD_BYTE, 0, 0, 0),
        SockFilter::new(AND, 0, 0, 0xf0),
        SockFilter::new(JUMP_EQUAL, 0, v4.len() as u8, 0x40),
    ];
    beginning.into_iter().chain(v4).chain(v6).collect()
}

fn of_family(v4: bool, first_port: u16) -> [SockFilter; 16] {
    // Of the first byte of IPv6 the lower half is the traffic class.
    let (mask, first, protocol, header) =
        if v4 { (0xff, 0x45, 9, 20) } else { (0xf0, 0x60, 6, 40) };
    let ports = !u32::from(Ports::COUNT - 1) & 0xffff;
    let first_port = u32::from(first_port);
    // SYN and RST.
    let opens_or_refuses = 0x06;
    [
        SockFilter::new(LOAD_BYTE, 0, 0, 0),
        SockFilter::new(AND, 0, 0, mask),
        SockFilter::new(JUMP_EQUAL, 0, 11, first),
        SockFilter::new(LOAD_BYTE, 0, 0, protocol),
        SockFilter::new(JUMP_EQUAL, 0, 9, 6),
        SockFilter::new(LOAD_BYTE, 0, 0, header + 13),
        SockFilter::new(AND, 0, 0, opens_or_refuses),
        SockFilter::new(JUMP_EQUAL, 6, 0, 0),
        SockFilter::new(LOAD_HALF, 0, 0, header + 2),
        SockFilter::new(AND, 0, 0, ports),
        SockFilter::new(JUMP_EQUAL, 4, 0, first_port),
        SockFilter::new(LOAD_HALF, 0, 0, header),
        SockFilter::new(AND, 0, 0, ports),
        SockFilter::new(JUMP_EQUAL, 1, 0, first_port),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, LONGEST as u32),
    ]
}
