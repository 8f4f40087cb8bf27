//! A SYN that goes the way of clients' SYNs, what may come of it, and what ends it. Pure.

use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, SocketAddr};

use lb_common::bucket::RANKS;
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
/// With these a segment that nobody owns is carried on by a node's program: with the first to one other node, whose
/// stack resets it; with the second, where there is no other node, back (docs/packet-path.md, Choosing).
const CARRIED_ON: [u8; 2] = [2, RANKS as u8 + 1];

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
    /// A reset: by a bare stack, or since nobody takes new connections whose turn it is from that node on.
    Refused,
    /// A reset of a segment that tells these two apart. By another node than it was sent to, it was carried on.
    Ownerless,
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

    /// Where it was refused by a node whose backends drain: segments that belong to no connection and begin none, not even a translation. A bare stack
    /// resets them, a program carries at least one of them on.
    pub fn second_question(&self) -> impl Iterator<Item = Vec<u8>> {
        let of = |ttl| {
            let segment = Segment {
                source: self.from,
                destination: self.service,
                sequence: self.sequence,
                acknowledgement: !self.sequence,
                flags: TcpFlags::SYN | TcpFlags::ACK,
                has_byte: false,
                ttl,
            };
            segment.packet()
        };
        CARRIED_ON.into_iter().filter_map(of)
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

    /// The probes that this may be about, and what it says of them. At most one of them was made.
    pub fn about(&self) -> impl Iterator<Item = (Probe, Answer)> {
        const TAKEN: u8 = TcpFlags::SYN | TcpFlags::ACK;
        const REFUSED: u8 = TcpFlags::RST | TcpFlags::ACK;
        let answer = match self.flags {
            TAKEN => Some((Answer::Taken, self.acknowledgement.wrapping_sub(1))),
            REFUSED => Some((Answer::Refused, self.acknowledgement.wrapping_sub(1))),
            TcpFlags::RST => Some((Answer::Ownerless, !self.sequence)),
            _ => None,
        };
        // One that was sent and not carried has all its hops.
        let all_hops = if self.flags == TcpFlags::SYN { TTL } else { CARRIED_ON[1] };
        let back = self.flags & !TcpFlags::ACK == TcpFlags::SYN && self.ttl < all_hops;
        let (there, here) = (self.source, self.destination);
        let answer = answer
            .map(|(answer, sequence)| (Probe { service: there, from: here, sequence }, answer));
        let back = back.then_some((
            Probe { service: here, from: there, sequence: self.sequence },
            Answer::CarriedBack,
        ));
        answer.into_iter().chain(back)
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
    fn heard(segment: Segment) -> Vec<(Probe, Answer)> {
        heard_of(&segment.packet().unwrap())
    }

    fn heard_of(packet: &[u8]) -> Vec<(Probe, Answer)> {
        Heard::decode(packet).unwrap().about().collect()
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
            assert_eq!(heard(taken), [(probe, Answer::Taken)]);
            assert_eq!(heard(answer(&probe, RST | ACK)), [(probe, Answer::Refused)]);
            let other = Segment { acknowledgement: probe.sequence, ..taken };
            assert!(heard(other).iter().all(|(about, _)| *about != probe), "another number");
            for flags in [ACK, SYN | ACK | RST, 0] {
                assert_eq!(heard(answer(&probe, flags)), [], "{flags}");
            }
        }
    }

    #[test]
    fn a_syn_that_comes_back_is_one_that_was_carried() {
        for probe in probes() {
            let mut syn = probe.packet().unwrap();
            assert_eq!(heard_of(&syn), [], "as it was sent");
            let ttl = if probe.service.is_ipv4() { 8 } else { 7 };
            assert_eq!(syn[ttl], TTL);
            syn[ttl] = TTL - 2;
            assert_eq!(heard_of(&syn), [(probe, Answer::CarriedBack)]);
        }
    }

    #[test]
    fn what_comes_of_the_second_question_names_it_too() {
        for probe in probes() {
            // What the stack makes of a segment that it has no socket for (RFC 9293, 3.10.7.1).
            let asked = Segment { sequence: !probe.sequence, ..answer(&probe, TcpFlags::RST) };
            assert_eq!(heard(asked), [(probe, Answer::Ownerless)]);
            let [short, mut long] = probe.second_question().collect::<Vec<_>>().try_into().unwrap();
            let ttl = if probe.service.is_ipv4() { 8 } else { 7 };
            assert_eq!((short[ttl], long[ttl]), (2, 9));
            let is_back = |packet: &[u8]| heard_of(packet).contains(&(probe, Answer::CarriedBack));
            assert!(!is_back(&long), "as it was sent");
            long[ttl] = 2;
            assert!(is_back(&long));
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
            let _ = Heard::decode(&bytes).map(|heard| heard.about().count());
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
            let _ = Heard::decode(&packet).map(|heard| heard.about().count());
        }
    }
}
