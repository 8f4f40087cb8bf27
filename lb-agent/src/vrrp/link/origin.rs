//! Which machine sends: the MAC behind a sender's address, taken from the frames. A raw socket of
//! IP does not tell it, and the neighbour table tells who answers for an address, which is not who
//! forged it.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd as _;

use nix::sys::socket::{LinkAddr, recvfrom};
use socket2::{Domain, SockFilter, Socket, Type};

use crate::netlink::Mac;
use crate::packet_socket::{JUMP_EQUAL, LOAD_BYTE, LOAD_HALF, RETURN, bind, ignore_outgoing};
use crate::vrrp::packet::PROTOCOL;

/// Senders that are remembered; where they are forged, the first ones.
const SENDERS_MAX: usize = 256;
/// Frames that one look takes.
const FRAMES_PER_LOOK: usize = 128;
/// A header of IPv6, the longer one.
const HEADER_BYTES: usize = 40;

/// Where a filter reads the protocol of a frame (`SKF_AD_OFF + SKF_AD_PROTOCOL`, linux/filter.h).
const FRAME_PROTOCOL: u32 = (-0x1000_i32).cast_unsigned();

/// VRRP's frames, and so many bytes of each. It begins at the header of IP (packet(7), `SOCK_DGRAM`).
const fn vrrp(bytes: u32) -> [SockFilter; 9] {
    [
        SockFilter::new(LOAD_HALF, 0, 0, FRAME_PROTOCOL),
        SockFilter::new(JUMP_EQUAL, 0, 2, libc::ETH_P_IP.cast_unsigned()),
        SockFilter::new(LOAD_BYTE, 0, 0, 9),
        SockFilter::new(JUMP_EQUAL, 3, 4, PROTOCOL as u32),
        SockFilter::new(JUMP_EQUAL, 0, 3, libc::ETH_P_IPV6.cast_unsigned()),
        SockFilter::new(LOAD_BYTE, 0, 0, 6),
        SockFilter::new(JUMP_EQUAL, 0, 1, PROTOCOL as u32),
        SockFilter::new(RETURN, 0, 0, bytes),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

/// A socket that sees VRRP as it comes by the wire, before any firewall, and not what this node sends; of each
/// packet so many bytes from the header of IP on. The link's multicast is for others to join.
///
/// # Errors
///
/// Where the system lets the process have no packet socket.
pub(crate) fn tap(ifindex: u32, bytes: u32) -> io::Result<Socket> {
    // Protocol 0: nothing comes before the filter is there.
    let socket = Socket::new(Domain::PACKET, Type::DGRAM.nonblocking(), None)?;
    socket.attach_filter(&vrrp(bytes))?;
    ignore_outgoing(&socket)?;
    bind(&socket, ifindex)?;
    Ok(socket)
}

/// The senders of VRRP on an interface, and where their frames came from last.
#[derive(Debug)]
pub(super) struct Origins {
    socket: Socket,
    seen: HashMap<IpAddr, Mac>,
}

impl Origins {
    /// Fails where the system lets the process have no packet socket: then no MAC is known.
    pub(super) fn open(ifindex: u32) -> io::Result<Self> {
        let socket = tap(ifindex, HEADER_BYTES as u32)?;
        Ok(Self { socket, seen: HashMap::new() })
    }

    /// Where the last frame of this sender came from. The frame is seen before its packet is heard.
    pub(super) fn of(&mut self, sender: IpAddr) -> Option<Mac> {
        self.look();
        self.seen.get(&sender).copied()
    }

    /// The same, and forgets it: the next answer is about later frames.
    pub(super) fn take(&mut self, sender: IpAddr) -> Option<Mac> {
        self.look();
        self.seen.remove(&sender)
    }

    /// Takes what has come, so that there is room for what comes.
    fn look(&mut self) {
        let mut header = [0; HEADER_BYTES];
        for _ in 0..FRAMES_PER_LOOK {
            let fd = self.socket.as_raw_fd();
            let Ok((length, Some(from))) = recvfrom::<LinkAddr>(fd, &mut header) else { return };
            let (Some(sender), Some(mac)) = (sender(&header[..length]), from.addr()) else {
                continue;
            };
            if self.seen.len() < SENDERS_MAX || self.seen.contains_key(&sender) {
                self.seen.insert(sender, mac);
            }
        }
    }
}

/// The source in a header of either family.
fn sender(header: &[u8]) -> Option<IpAddr> {
    match header.first()? >> 4 {
        4 => Some(Ipv4Addr::from(*header.get(12..)?.first_chunk()?).into()),
        6 => Some(Ipv6Addr::from(*header.get(8..)?.first_chunk()?).into()),
        _ => None,
    }
}
