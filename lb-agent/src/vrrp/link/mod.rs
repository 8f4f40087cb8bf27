//! Advertisements on their way: raw sockets for IP protocol 112, each on one interface and of one
//! family. Carries bytes and says where they came from. What they mean is [`packet`](super::packet)'s
//! to say, whether to believe them (TTL, password) is for who knows the settings, and when to send
//! is the state machine's.

mod ends;
mod error;
mod ipv4;
mod ipv6;
mod origin;
mod place;

#[cfg(test)]
mod tests;

pub use error::LinkError;
pub(crate) use origin::tap;

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use super::packet::Envelope;
use super::waiter::{Waiter, What};
use crate::netlink::Mac;
use ends::Ends;
use origin::Origins;
use place::Place;

/// The TTL of what is sent: who hears less knows that a router forwarded it (RFC 9568, 5.1.1.3).
const TTL: u8 = 255;

/// The most that is read of a packet, without IPv6's header: the longest header of IPv4, the longest
/// advertisement, and a byte more, so that a packet cut here is still too long to be taken for one.
const BUFFER_BYTES: usize = 60 + (8 + 255 * 16) + 1;

/// Bound of what a socket may hold from before it was told what to listen to. The kernel's default
/// buffer has room for some 300 packets.
const EARLY_PACKETS: usize = 1024;

/// How advertisements travel, and which ones are heard: a link hears what was sent in its own way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reach {
    /// To all VRRP routers of the link: 224.0.0.18 or ff02::12 (RFC 9568, 5.1).
    Multicast,
    /// To each of these, all of the family of the source. Heard is what comes to the source, from
    /// whomever.
    Unicast(Vec<IpAddr>),
}

/// A packet as it was heard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Received {
    pub envelope: Envelope,
    /// What is behind the IP header. Cut off behind a length that no advertisement has.
    pub payload: Vec<u8>,
}

/// What is in a packet of IP, from its header on, as [`tap`] brings it. Takes any bytes.
pub(crate) fn read_packet(bytes: &[u8]) -> Option<Received> {
    match bytes.first()? >> 4 {
        4 => ipv4::read(bytes),
        6 => ipv6::read(bytes),
        _ => None,
    }
}

/// Sends and hears VRRP on one interface, in one family. It does not hear what it sends.
///
/// Belongs to the network namespace of the thread that opened it. It outlives that the interface
/// goes down and up, but not that it is deleted and made again ([`LinkError::NoSuchInterface`]).
#[derive(Debug)]
pub struct Link {
    place: Place,
    wire: Wire,
    /// What sends, where that is another interface.
    outlet: Option<Wire>,
    /// None where the system lets the process have no packet socket.
    origins: Option<Origins>,
}

#[derive(Debug)]
enum Wire {
    V4(ipv4::Wire),
    V6(ipv6::Wire),
}

impl Link {
    /// Opens a link. `source` is this node's own address on the interface, for multicast over IPv6 a
    /// link-local one (RFC 9568, 5.1.2.1), and must be there already: an IPv6 one also checked for
    /// duplicates. May be tried again after any failure.
    pub fn open(
        interface: &str,
        ifindex: u32,
        source: IpAddr,
        reach: &Reach,
    ) -> Result<Self, LinkError> {
        let place = Place::find(interface, ifindex, source)?;
        let wire = match source {
            IpAddr::V4(source) => Wire::V4(ipv4::Wire::open(&place, Ends::v4(source, reach)?)?),
            IpAddr::V6(source) => Wire::V6(ipv6::Wire::open(&place, Ends::v6(source, reach)?)?),
        };
        let mut link = Self { place, wire, outlet: None, origins: Origins::open(ifindex).ok() };
        link.discard_early()?;
        Ok(link)
    }

    /// The same link, whose advertisements leave by another interface on the same wire, which has the
    /// virtual router's MAC (RFC 9568, 7.2). The source stays this node's own, which need not be there.
    pub fn send_from(
        self,
        interface: &str,
        ifindex: u32,
        source: IpAddr,
        reach: &Reach,
    ) -> Result<Self, LinkError> {
        let place = Place::find(interface, ifindex, source)?;
        let outlet = match source {
            IpAddr::V4(source) => Wire::V4(ipv4::Wire::outlet(&place, Ends::v4(source, reach)?)?),
            IpAddr::V6(source) => Wire::V6(ipv6::Wire::outlet(&place, Ends::v6(source, reach)?)?),
        };
        Ok(Self { outlet: Some(outlet), ..self })
    }

    /// Has its packets waited for, too.
    pub(in crate::vrrp) fn wake(&self, waiter: &Waiter) -> Result<(), LinkError> {
        self.place.done("wait for packets", waiter.add(self, What::Packets))
    }

    /// Sends to the group, or to each peer. `payload` makes the bytes for a destination, which is a
    /// part of what version 3's checksum covers.
    ///
    /// Tries every destination, whatever the others did, and fails with the first failure.
    pub fn send(&self, mut payload: impl FnMut(IpAddr) -> Vec<u8>) -> Result<(), LinkError> {
        match self.outlet.as_ref().unwrap_or(&self.wire) {
            Wire::V4(wire) => self.each(wire.destinations(), |destination| {
                wire.send(destination, &payload(destination.into()))
            }),
            Wire::V6(wire) => self.each(wire.destinations(), |destination| {
                wire.send(destination, &payload(destination.into()))
            }),
        }
    }

    /// The next packet, without waiting: `None` where there is none. After a failure there may be more
    /// packets.
    pub fn receive(&mut self) -> Result<Option<Received>, LinkError> {
        match self.receive_raw() {
            Ok(Some(packet)) => packet.map(Some).ok_or_else(|| self.place.unreadable()),
            Ok(None) => Ok(None),
            Err(errno) => Err(self.place.refused("receive", errno.into())),
        }
    }

    /// The MAC of the machine that the last packet from this address came from, if that was seen.
    pub fn origin(&mut self, source: IpAddr) -> Option<Mac> {
        self.origins.as_mut()?.of(source)
    }

    /// The MAC of a machine that has sent in this node's name since the last call. The kernel throws
    /// such packets away before they can be heard. To be called now and then: it also makes room for
    /// what [`origin`](Self::origin) is to know.
    pub fn take_impostor(&mut self) -> Option<Mac> {
        self.origins.as_mut()?.take(self.place.source())
    }

    fn each<A: Copy + Into<IpAddr>>(
        &self,
        destinations: &[A],
        mut send: impl FnMut(A) -> nix::Result<()>,
    ) -> Result<(), LinkError> {
        let mut outcome = Ok(());
        for &destination in destinations {
            let sent = send(destination);
            outcome = outcome.and(sent.map_err(|errno| self.diagnose(destination.into(), errno)));
        }
        outcome
    }

    /// Why a send failed. For a source or an interface that went, the kernel has error numbers that
    /// mean other things too (ENETUNREACH, EINVAL), so whether they are there is asked, by binding
    /// again. For the microseconds of that, it hears the source instead of the group.
    fn diagnose(&self, destination: IpAddr, errno: nix::Error) -> LinkError {
        let there = match &self.wire {
            Wire::V4(wire) => wire.bind(&self.place),
            Wire::V6(wire) => wire.bind(&self.place),
        };
        there.err().unwrap_or_else(|| self.place.not_sent(destination, errno.into()))
    }

    /// The next packet, if there is one, and if it can be read.
    fn receive_raw(&mut self) -> nix::Result<Option<Option<Received>>> {
        let received = match &mut self.wire {
            Wire::V4(wire) => wire.receive(),
            Wire::V6(wire) => wire.receive(),
        };
        match received {
            Ok(packet) => Ok(Some(packet)),
            Err(nix::Error::EAGAIN) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Throws away what the socket got before it was bound: it may be of another interface.
    fn discard_early(&mut self) -> Result<(), LinkError> {
        for _ in 0..EARLY_PACKETS {
            match self.receive_raw() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(errno) => return Err(self.place.refused("receive", errno.into())),
            }
        }
        Ok(())
    }
}

/// Readable when there is a packet.
impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.wire {
            Wire::V4(wire) => wire.as_fd(),
            Wire::V6(wire) => wire.as_fd(),
        }
    }
}
