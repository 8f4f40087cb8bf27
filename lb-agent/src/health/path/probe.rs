//! A SYN that goes the way of clients' SYNs, what may come of it, and what ends it. Pure.

use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, SocketAddr};

use pnet::packet::Packet as _;
use pnet::packet::ip::IpNextHeaderProtocols::Tcp;
use pnet::packet::ipv4::Ipv4Packet;
use pnet::packet::ipv6::Ipv6Packet;
use pnet::packet::tcp::{TcpFlags, TcpPacket};

use super::Way;
use crate::absence::Segment;

/// As clients' have it, so that the node may carry it on.
const TTL: u8 = 64;
/// What ends a connection goes no further than to whom it is sent.
const LAST_HOP: u8 = 1;

/// The ports that probes come from, so that each is forgotten everywhere before its port is used again.
#[derive(Clone, Debug)]
pub struct Ports {
    /// A multiple of [`Ports::COUNT`], of those that are nobody's in particular (RFC 6335).
    first: u16,
    /// By which nobody guesses sequence numbers: std seeds each anew.
    key: RandomState,
}

impl Ports {
    pub const COUNT: u16 = 16;

    /// Others in each process.
    pub fn choose() -> Self {
        let key = RandomState::new();
        let drawn = key.hash_one("the ports of probes") as u16;
        Self { first: 49_152 | (drawn & 0x3fff & !(Self::COUNT - 1)), key }
    }

    pub const fn first(&self) -> u16 {
        self.first
    }

    /// The probe of a way that is made in a round, as it was and will be at any time.
    pub fn probe(&self, way: Way, from: IpAddr, round: u64) -> Probe {
        let port = self.first + (round % u64::from(Self::COUNT)) as u16;
        let sequence = self.key.hash_one((way, from, round)) as u32;
        Probe { service: way.service, from: SocketAddr::new(from, port), sequence }
    }
}

/// What is asked. No two that are under way are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Probe {
    pub service: SocketAddr,
    pub from: SocketAddr,
    pub sequence: u32,
}

/// What came of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Somebody takes the connection, and waits for its end.
    Taken,
    /// The SYN itself: the node carried it on, and this one has its turn. So its program runs.
    CarriedBack,
    /// A reset.
    Refused,
}

impl Probe {
    /// The SYN; nothing where its ends are of two families.
    pub fn packet(&self) -> Option<Vec<u8>> {
        let syn = Segment {
            source: self.from,
            destination: self.service,
            sequence: self.sequence,
            acknowledgement: 0,
            flags: TcpFlags::SYN,
            has_byte: false,
            ttl: TTL,
        };
        syn.packet()
    }

    /// What ends a connection that was taken.
    pub fn end(&self) -> Option<Vec<u8>> {
        let reset = Segment {
            source: self.from,
            destination: self.service,
            sequence: self.sequence.wrapping_add(1),
            acknowledgement: 0,
            flags: TcpFlags::RST,
            has_byte: false,
            ttl: LAST_HOP,
        };
        reset.packet()
    }
}

/// A segment that opens, takes or refuses a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    source: SocketAddr,
    destination: SocketAddr,
    flags: u8,
    sequence: u32,
    acknowledgement: u32,
    ttl: u8,
}

impl Heard {
    /// From a packet of IP, of which the end may be missing.
    pub fn decode(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => {
                let ip = Ipv4Packet::new(packet)?;
                let whole = ip.get_fragment_offset() == 0;
                let tcp = ip.get_next_level_protocol() == Tcp && whole;
                let header = usize::from(ip.get_header_length()) * 4;
                let segment = packet.get(header..).filter(|_| tcp && header >= 20)?;
                let ends = (ip.get_source().into(), ip.get_destination().into());
                Self::of(ends, ip.get_ttl(), segment)
            }
            6 => {
                let ip = Ipv6Packet::new(packet)?;
                let segment = packet.get(40..).filter(|_| ip.get_next_header() == Tcp)?;
                let ends = (ip.get_source().into(), ip.get_destination().into());
                Self::of(ends, ip.get_hop_limit(), segment)
            }
            _ => None,
        }
    }

    fn of((source, destination): (IpAddr, IpAddr), ttl: u8, segment: &[u8]) -> Option<Self> {
        let tcp = TcpPacket::new(segment)?;
        Some(Self {
            source: SocketAddr::new(source, tcp.get_source()),
            destination: SocketAddr::new(destination, tcp.get_destination()),
            flags: tcp.packet()[13] & (TcpFlags::SYN | TcpFlags::ACK | TcpFlags::RST),
            sequence: tcp.get_sequence(),
            acknowledgement: tcp.get_acknowledgement(),
            ttl,
        })
    }

    /// The probe that this is about, if it is about one at all, and what it says of it.
    pub fn about(&self) -> Option<(Probe, Answer)> {
        const TAKEN: u8 = TcpFlags::SYN | TcpFlags::ACK;
        const REFUSED: u8 = TcpFlags::RST | TcpFlags::ACK;
        let answer = match self.flags {
            TAKEN => Answer::Taken,
            REFUSED => Answer::Refused,
            // One that was sent and not carried has all its hops.
            TcpFlags::SYN if self.ttl < TTL => Answer::CarriedBack,
            _ => return None,
        };
        let probe = match answer {
            Answer::CarriedBack => {
                Probe { service: self.destination, from: self.source, sequence: self.sequence }
            }
            Answer::Taken | Answer::Refused => Probe {
                service: self.source,
                from: self.destination,
                sequence: self.acknowledgement.wrapping_sub(1),
            },
        };
        Some((probe, answer))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn way(service: &str, node: &str) -> Way {
        Way { service: service.parse().unwrap(), node: node.parse().unwrap() }
    }

    fn probes() -> [Probe; 2] {
        let ports = Ports::choose();
        let v4 = ports.probe(way("192.0.2.9:8443", "192.0.2.2"), "192.0.2.1".parse().unwrap(), 5);
        let v6 = way("[2001:db8::9]:8443", "2001:db8::2");
        [v4, ports.probe(v6, "2001:db8::1".parse().unwrap(), 5)]
    }

    /// What the other end sends, or what this one sent, as it arrives.
    fn heard(segment: Segment) -> Option<(Probe, Answer)> {
        Heard::decode(&segment.packet().unwrap())?.about()
    }

    fn answer(probe: &Probe, flags: u8) -> Segment {
        Segment {
            source: probe.service,
            destination: probe.from,
            sequence: 77,
            acknowledgement: probe.sequence.wrapping_add(1),
            flags,
            has_byte: false,
            ttl: 64,
        }
    }

    #[test]
    fn what_comes_of_a_probe_names_it() {
        use TcpFlags::{ACK, RST, SYN};
        for probe in probes() {
            let taken = answer(&probe, SYN | ACK);
            assert_eq!(heard(taken), Some((probe, Answer::Taken)));
            assert_eq!(heard(answer(&probe, RST | ACK)), Some((probe, Answer::Refused)));
            let other = Segment { acknowledgement: probe.sequence, ..taken };
            assert!(heard(other).is_some_and(|(about, _)| about != probe), "another number");
            for flags in [ACK, SYN | ACK | RST, 0] {
                assert_eq!(heard(answer(&probe, flags)), None, "{flags}");
            }
        }
    }

    #[test]
    fn a_syn_that_comes_back_is_one_that_was_carried() {
        for probe in probes() {
            let mut syn = probe.packet().unwrap();
            assert_eq!(Heard::decode(&syn).and_then(|heard| heard.about()), None, "as it was sent");
            let ttl = if probe.service.is_ipv4() { 8 } else { 7 };
            assert_eq!(syn[ttl], TTL);
            syn[ttl] = TTL - 2;
            let heard = Heard::decode(&syn).and_then(|heard| heard.about());
            assert_eq!(heard, Some((probe, Answer::CarriedBack)));
        }
    }

    #[test]
    fn what_ends_it_is_what_its_other_end_expects_next() {
        for probe in probes() {
            let end = Heard::decode(&probe.end().unwrap()).unwrap();
            assert_eq!((end.source, end.destination), (probe.from, probe.service));
            assert_eq!((end.flags, end.ttl), (TcpFlags::RST, LAST_HOP));
            assert_eq!(end.sequence, probe.sequence.wrapping_add(1));
        }
    }

    #[test]
    fn no_two_probes_under_way_are_alike() {
        let ports = Ports::choose();
        let (from, ways) = ("192.0.2.1".parse().unwrap(), ["192.0.2.2", "192.0.2.3"]);
        let ways = ways.map(|node| way("192.0.2.9:8443", node));
        let rounds = (0..64).flat_map(|round| ways.map(|way| ports.probe(way, from, round)));
        let all: std::collections::HashSet<Probe> = rounds.collect();
        assert_eq!(all.len(), 128);
        let used: std::collections::HashSet<u16> = all.iter().map(|it| it.from.port()).collect();
        let range = ports.first()..=ports.first() + (Ports::COUNT - 1);
        assert!(used.len() == 16 && used.iter().all(|port| range.contains(port)), "{used:?}");
        assert!(ports.first() >= 49_152 && ports.first().is_multiple_of(Ports::COUNT));
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_not(bytes in prop::collection::vec(any::<u8>(), 0..96)) {
            let _ = Heard::decode(&bytes).and_then(|heard| heard.about());
        }

        #[test]
        fn a_packet_that_is_cut_or_changed_is_decoded_or_not(
            v4 in any::<bool>(), at in 0usize..60, byte in any::<u8>(), length in 0usize..61,
        ) {
            let probe = probes()[usize::from(!v4)];
            let mut packet = answer(&probe, TcpFlags::SYN | TcpFlags::ACK).packet().unwrap();
            if let Some(place) = packet.get_mut(at) {
                *place = byte;
            }
            packet.truncate(length);
            let _ = Heard::decode(&packet).and_then(|heard| heard.about());
        }
    }
}
