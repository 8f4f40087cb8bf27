//! Listening to VRRP on an interface: by a tap, which sees what comes by the wire, and by sockets behind the
//! firewall, as a router has them. Says nothing itself, but that it is a member of VRRP's groups.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};

use crate::doctor::judge::advertisement::{Heard, Listening};
use crate::packet_socket;
use crate::vrrp::link::{read_packet, tap};
use crate::vrrp::packet::{self, PROTOCOL};

pub(in crate::doctor) const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
pub(in crate::doctor) const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);
/// The longest advertisement behind the longest header.
const PACKET_BYTES: usize = 60 + 8 + 255 * 16;
/// Packets that are kept: a hundred a second for longer than anybody listens.
const PACKETS_MAX: usize = 8192;

/// From the wire to a socket, on a machine that is busy.
const BEHIND: Duration = Duration::from_millis(20);

/// Listens for so long. Blocks.
pub(in crate::doctor) fn listen(
    interface: &str,
    ifindex: u32,
    lasts: Duration,
) -> Result<Listening, String> {
    let ears = Ears::open(interface, ifindex).map_err(|error| {
        format!("no sockets for VRRP on {interface}: {error} (it takes root or CAP_NET_RAW)")
    })?;
    let mut listening =
        Listening { interface: interface.to_owned(), lasted: lasts, ..Listening::default() };
    let begin = Instant::now();
    while let Some(left) = lasts.checked_sub(begin.elapsed()).filter(|left| !left.is_zero()) {
        ears.wait(left).map_err(|error| format!("waiting for VRRP: {error}"))?;
        ears.take(&mut listening, begin);
    }
    // The sockets get a packet a little later than the tap, perhaps from another CPU.
    std::thread::sleep(BEHIND);
    ears.take_behind(&mut listening);
    Ok(listening)
}

struct Ears {
    tap: Socket,
    v4: Socket,
    /// None where there is no IPv6.
    v6: Option<Socket>,
}

impl Ears {
    fn open(interface: &str, ifindex: u32) -> io::Result<Self> {
        let v4 = raw(Domain::IPV4, interface)?;
        v4.join_multicast_v4_n(&GROUP_V4, &InterfaceIndexOrAddress::Index(ifindex))?;
        let v6 = raw(Domain::IPV6, interface).ok();
        let v6 = v6.filter(|socket| socket.join_multicast_v6(&GROUP_V6, ifindex).is_ok());
        // The last one: what it hears, the others can.
        Ok(Self { tap: tap(ifindex, PACKET_BYTES as u32)?, v4, v6 })
    }

    fn wait(&self, left: Duration) -> io::Result<()> {
        let all = [Some(&self.tap), Some(&self.v4), self.v6.as_ref()];
        let mut waiting: Vec<PollFd<'_>> =
            all.into_iter().flatten().map(|s| PollFd::new(s.as_fd(), PollFlags::POLLIN)).collect();
        let limit = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut waiting, limit) {
            Ok(_) | Err(nix::Error::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn take(&self, listening: &mut Listening, begin: Instant) {
        let mut buffer = vec![0; PACKET_BYTES];
        while let Ok((length, mac)) = packet_socket::receive(&self.tap, &mut buffer) {
            let Some(packet) = buffer.get(..length).and_then(read_packet) else { continue };
            if listening.packets.len() >= PACKETS_MAX {
                continue;
            }
            let envelope = packet.envelope;
            if self.v6.is_none() && envelope.source.is_ipv6() {
                // Nobody knows.
                listening.through.insert(envelope.source);
            }
            listening.packets.push(Heard {
                at: begin.elapsed(),
                source: envelope.source,
                mac,
                multicast: envelope.destination.is_multicast(),
                ttl: envelope.ttl,
                said: packet::parse(&envelope, &packet.payload).map_err(|e| e.to_string()),
            });
        }
        self.take_behind(listening);
    }

    /// What came through the firewall.
    fn take_behind(&self, listening: &mut Listening) {
        for socket in [Some(&self.v4), self.v6.as_ref()].into_iter().flatten() {
            drain(socket, &mut listening.through);
        }
    }
}

fn raw(domain: Domain, interface: &str) -> io::Result<Socket> {
    let protocol = Some(Protocol::from(i32::from(PROTOCOL)));
    let socket = Socket::new(domain, Type::RAW.nonblocking(), protocol)?;
    socket.bind_device(Some(interface.as_bytes()))?;
    Ok(socket)
}

/// Whose packets came.
fn drain(socket: &Socket, senders: &mut BTreeSet<IpAddr>) {
    let mut buffer = [std::mem::MaybeUninit::uninit(); 64];
    while let Ok((_, from)) = socket.recv_from(&mut buffer) {
        // Forged senders are no more than the tap's packets.
        if let Some(from) = from.as_socket()
            && senders.len() < PACKETS_MAX
        {
            senders.insert(from.ip());
        }
    }
}
