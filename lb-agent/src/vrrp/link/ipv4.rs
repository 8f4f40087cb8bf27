//! VRRP over IPv4. A raw socket brings the IP header, and sends without it.

use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, recv, sendmsg};
use pnet::packet::Packet as _;
use pnet::packet::ipv4::Ipv4Packet;
use socket2::{Domain, InterfaceIndexOrAddress, SockAddr, Socket};

use super::ends::Ends;
use super::place::{Place, QUEUE_PRIORITY, TRAFFIC_CLASS};
use super::{BUFFER_BYTES, LinkError, Received, TTL};
use crate::vrrp::packet::Envelope;

/// The least that a header counts, in words of four bytes (RFC 791, 3.1).
const HEADER_WORDS: u8 = 5;

#[derive(Debug)]
pub(super) struct Wire {
    socket: Socket,
    ifindex: u32,
    ends: Ends<Ipv4Addr>,
    /// What is heard. Kept, since most looks find nothing, and a fresh one would have to be cleared.
    buffer: Vec<u8>,
}

impl Wire {
    pub(super) fn open(place: &Place, ends: Ends<Ipv4Addr>) -> Result<Self, LinkError> {
        let socket = Self::socket(place)?;
        if let Some(group) = ends.group {
            let interface = InterfaceIndexOrAddress::Index(place.ifindex);
            place.done("join 224.0.0.18", socket.join_multicast_v4_n(&group, &interface))?;
        }
        let buffer = vec![0; BUFFER_BYTES];
        let wire = Self { socket, ifindex: place.ifindex, ends, buffer };
        wire.bind(place)?;
        Ok(wire)
    }

    /// One that only sends, from an address that another interface has.
    pub(super) fn outlet(place: &Place, ends: Ends<Ipv4Addr>) -> Result<Self, LinkError> {
        let socket = Self::socket(place)?;
        place.deafen(&socket)?;
        Ok(Self { socket, ifindex: place.ifindex, ends, buffer: Vec::new() })
    }

    fn socket(place: &Place) -> Result<Socket, LinkError> {
        let socket = place.socket(Domain::IPV4)?;
        place.done("set the TTL", socket.set_ttl_v4(TTL.into()))?;
        place.done("set the TTL", socket.set_multicast_ttl_v4(TTL.into()))?;
        place.done("set the TOS", socket.set_tos_v4(TRAFFIC_CLASS))?;
        // After the TOS, which sets it too.
        place.done("set the priority", socket.set_priority(QUEUE_PRIORITY))?;
        place.done("turn the loop off", socket.set_multicast_loop_v4(false))?;
        Ok(socket)
    }

    /// Fails where the interface or the source is not there. May be done again, to learn that.
    pub(super) fn bind(&self, place: &Place) -> Result<(), LinkError> {
        let at = |address| SockAddr::from(SocketAddrV4::new(address, 0));
        place.bind(&self.socket, &at(self.ends.source), &at(self.ends.heard_at()))
    }

    pub(super) fn destinations(&self) -> &[Ipv4Addr] {
        &self.ends.destinations
    }

    pub(super) fn send(&self, destination: Ipv4Addr, payload: &[u8]) -> nix::Result<()> {
        let from = libc::in_pktinfo {
            ipi_ifindex: self.ifindex.cast_signed(),
            ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(self.ends.source.octets()) },
            ipi_addr: libc::in_addr { s_addr: 0 },
        };
        let to = SockaddrIn::from(SocketAddrV4::new(destination, 0));
        sendmsg(
            self.socket.as_raw_fd(),
            &[IoSlice::new(payload)],
            &[ControlMessage::Ipv4PacketInfo(&from)],
            MsgFlags::empty(),
            Some(&to),
        )?;
        Ok(())
    }

    /// The next packet, or EAGAIN; `None` for one that cannot be read.
    pub(super) fn receive(&mut self) -> nix::Result<Option<Received>> {
        let length = recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty())?;
        Ok(self.buffer.get(..length).and_then(read))
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What is in an IPv4 packet, with any options skipped. Takes any bytes.
pub(super) fn read(bytes: &[u8]) -> Option<Received> {
    let packet = Ipv4Packet::new(bytes)?;
    let words = packet.get_header_length();
    if packet.get_version() != 4 || words < HEADER_WORDS || usize::from(words) * 4 > bytes.len() {
        return None;
    }
    let envelope = Envelope {
        source: packet.get_source().into(),
        destination: packet.get_destination().into(),
        ttl: packet.get_ttl(),
    };
    Some(Received { envelope, payload: packet.payload().to_vec() })
}
