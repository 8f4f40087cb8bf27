//! Segments of many clients, and what is in those that come out: read, and judged, by etherparse.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail};
use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};

use crate::lab::Mac;
use crate::packet::checksum;

/// Of what begins a connection, goes on with it, and ends it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Segment {
    Syn,
    Data,
    Reset,
}

pub(super) const TTL: u8 = 64;

/// What stands in a segment, as far as somebody may change it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Seen {
    pub(super) from_mac: Mac,
    pub(super) to_mac: Mac,
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) ttl: u8,
}

/// A TCP segment with valid checksums.
pub(super) fn build(seen: &Seen, segment: Segment) -> Result<Vec<u8>> {
    let packet = PacketBuilder::ethernet2(seen.from_mac, seen.to_mac);
    let packet = match (seen.from, seen.to) {
        (SocketAddr::V4(from), SocketAddr::V4(to)) => {
            packet.ipv4(from.ip().octets(), to.ip().octets(), seen.ttl)
        }
        (SocketAddr::V6(from), SocketAddr::V6(to)) => {
            packet.ipv6(from.ip().octets(), to.ip().octets(), seen.ttl)
        }
        (from, to) => bail!("{from} and {to} are of two families"),
    };
    let packet = packet.tcp(seen.from.port(), seen.to.port(), 1000, 64_000);
    let (packet, payload): (_, &[u8]) = match segment {
        Segment::Syn => (packet.syn(), b""),
        Segment::Data => (packet.ack(1).psh(), b"eleven bytes"),
        Segment::Reset => (packet.ack(1).rst(), b""),
    };
    let mut frame = Vec::with_capacity(packet.size(payload.len()));
    packet.write(&mut frame, payload).context("building a frame")?;
    Ok(frame)
}

/// Reads a segment, and judges its checksums.
///
/// # Errors
/// Where a checksum is wrong, or it is no segment.
pub(super) fn look(frame: &[u8]) -> Result<Seen> {
    checksum::verify(frame)?;
    read(frame)
}

/// Reads a segment.
///
/// # Errors
/// Where it is none.
pub(super) fn read(frame: &[u8]) -> Result<Seen> {
    let packet = SlicedPacket::from_ethernet(frame).context("etherparse cannot read the frame")?;
    let Some(TransportSlice::Tcp(tcp)) = &packet.transport else { bail!("no TCP") };
    let (from, to, ttl) = match &packet.net {
        Some(NetSlice::Ipv4(ip)) => {
            let ip = ip.header();
            (ip.source_addr().into(), ip.destination_addr().into(), ip.ttl())
        }
        Some(NetSlice::Ipv6(ip)) => {
            let ip = ip.header();
            (ip.source_addr().into(), ip.destination_addr().into(), ip.hop_limit())
        }
        _ => bail!("no IP"),
    };
    let mac = |at: usize| frame[at..at + 6].try_into().context("no Ethernet header");
    Ok(Seen {
        to_mac: mac(0)?,
        from_mac: mac(6)?,
        from: SocketAddr::new(from, tcp.source_port()),
        to: SocketAddr::new(to, tcp.destination_port()),
        ttl,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_is_what_is_seen() {
        for [from, to] in [["10.0.0.1:1", "10.0.0.2:2"], ["[fd00::1]:1", "[fd00::2]:2"]] {
            let seen = Seen {
                from_mac: [2, 0, 0, 0, 0, 1],
                to_mac: [2, 0, 0, 0, 0, 2],
                from: from.parse().unwrap(),
                to: to.parse().unwrap(),
                ttl: 9,
            };
            for segment in [Segment::Syn, Segment::Data, Segment::Reset] {
                let mut frame = build(&seen, segment).unwrap();
                assert_eq!(look(&frame).unwrap(), seen);
                *frame.last_mut().unwrap() ^= 1;
                assert!(look(&frame).is_err(), "a wrong checksum is noticed");
            }
        }
    }
}
