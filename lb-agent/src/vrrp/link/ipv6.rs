//! VRRP over IPv6. A raw socket brings what is behind the headers, and the rest as control messages
//! (RFC 3542, 6).

use std::io::{IoSlice, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use nix::cmsg_space;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, sendmsg, setsockopt,
    sockopt,
};
use socket2::{Domain, SockAddr, Socket};

use super::ends::Ends;
use super::place::{Place, QUEUE_PRIORITY, TRAFFIC_CLASS};
use super::{BUFFER_BYTES, LinkError, Received, TTL};
use crate::vrrp::packet::Envelope;

#[derive(Debug)]
pub(super) struct Wire {
    socket: Socket,
    ifindex: u32,
    ends: Ends<Ipv6Addr>,
    /// What is heard. Kept, since most looks find nothing, and fresh ones would have to be cleared.
    buffer: Vec<u8>,
    control: Vec<u8>,
}

impl Wire {
    pub(super) fn open(place: &Place, ends: Ends<Ipv6Addr>) -> Result<Self, LinkError> {
        let socket = Self::socket(place)?;
        // Otherwise, unlike one of IPv4, it hears every group that anybody on this node joined,
        // although it is bound to another address.
        place.done("leave others' groups", socket.set_multicast_all_v6(false))?;
        place.done("ask for hop limits", socket.set_recv_hoplimit_v6(true))?;
        let asked = setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true);
        place.done("ask for destinations", asked.map_err(Into::into))?;
        if let Some(group) = ends.group {
            place.done("join ff02::12", socket.join_multicast_v6(&group, place.ifindex))?;
        }
        let (buffer, control) =
            (vec![0; BUFFER_BYTES], cmsg_space!(libc::in6_pktinfo, libc::c_int));
        let wire = Self { socket, ifindex: place.ifindex, ends, buffer, control };
        wire.bind(place)?;
        Ok(wire)
    }

    /// One that only sends, from an address that another interface has.
    pub(super) fn outlet(place: &Place, ends: Ends<Ipv6Addr>) -> Result<Self, LinkError> {
        let socket = Self::socket(place)?;
        place.deafen(&socket)?;
        place.done("send from another's address", socket.set_freebind_v6(true))?;
        let (buffer, control) = (Vec::new(), Vec::new());
        Ok(Self { socket, ifindex: place.ifindex, ends, buffer, control })
    }

    fn socket(place: &Place) -> Result<Socket, LinkError> {
        let socket = place.socket(Domain::IPV6)?;
        place.done("set the hop limit", socket.set_unicast_hops_v6(TTL.into()))?;
        place.done("set the hop limit", socket.set_multicast_hops_v6(TTL.into()))?;
        place.done("set the traffic class", socket.set_tclass_v6(TRAFFIC_CLASS))?;
        place.done("set the priority", socket.set_priority(QUEUE_PRIORITY))?;
        place.done("turn the loop off", socket.set_multicast_loop_v6(false))?;
        Ok(socket)
    }

    /// Fails where the interface or the source is not there. May be done again, to learn that.
    pub(super) fn bind(&self, place: &Place) -> Result<(), LinkError> {
        let at = |address| SockAddr::from(SocketAddrV6::new(address, 0, 0, self.ifindex));
        place.bind(&self.socket, &at(self.ends.source), &at(self.ends.heard_at()))
    }

    pub(super) fn destinations(&self) -> &[Ipv6Addr] {
        &self.ends.destinations
    }

    pub(super) fn send(&self, destination: Ipv6Addr, payload: &[u8]) -> nix::Result<()> {
        let from = libc::in6_pktinfo {
            ipi6_addr: libc::in6_addr { s6_addr: self.ends.source.octets() },
            ipi6_ifindex: self.ifindex,
        };
        let to = SockaddrIn6::from(SocketAddrV6::new(destination, 0, 0, self.ifindex));
        sendmsg(
            self.socket.as_raw_fd(),
            &[IoSlice::new(payload)],
            &[ControlMessage::Ipv6PacketInfo(&from)],
            MsgFlags::empty(),
            Some(&to),
        )?;
        Ok(())
    }

    /// The next packet, or EAGAIN; `None` for one whose control messages are not there.
    pub(super) fn receive(&mut self) -> nix::Result<Option<Received>> {
        let mut parts = [IoSliceMut::new(&mut self.buffer)];
        let (fd, control) = (self.socket.as_raw_fd(), Some(&mut self.control[..]));
        let message = recvmsg::<SockaddrIn6>(fd, &mut parts, control, MsgFlags::empty())?;
        let (mut destination, mut hop_limit) = (None, None);
        for control in message.cmsgs()? {
            match control {
                ControlMessageOwned::Ipv6PacketInfo(info) => {
                    destination = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr));
                }
                ControlMessageOwned::Ipv6HopLimit(limit) => hop_limit = u8::try_from(limit).ok(),
                _ => {}
            }
        }
        let (source, length) = (message.address, message.bytes);
        let envelope =
            source.zip(destination).zip(hop_limit).map(|((source, destination), ttl)| Envelope {
                source: source.ip().into(),
                destination: destination.into(),
                ttl,
            });
        let payload = self.buffer.get(..length);
        Ok(envelope
            .zip(payload)
            .map(|(envelope, payload)| Received { envelope, payload: payload.to_vec() }))
    }
}

/// What is in an IPv6 packet without extension headers. Takes any bytes.
pub(super) fn read(bytes: &[u8]) -> Option<Received> {
    let (header, behind) = bytes.split_first_chunk::<40>()?;
    let address = |at: usize| Some(Ipv6Addr::from(*header.get(at..)?.first_chunk::<16>()?));
    let envelope =
        Envelope { source: address(8)?.into(), destination: address(24)?.into(), ttl: header[7] };
    // What follows is the frame's padding.
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    Some(Received { envelope, payload: behind.get(..length)?.to_vec() })
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
