//! Asks another node for a sign of life in the way that clients' segments go to it: a segment that belongs to
//! no connection, to the service's address, by the node's MAC, and with a TTL that lets it go no further. The
//! program there passes it to the stack, and that answers with a reset.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use pnet::packet::Packet as _;
use pnet::packet::ip::IpNextHeaderProtocols::Tcp;
use pnet::packet::ipv4::Ipv4Packet;
use pnet::packet::ipv6::Ipv6Packet;
use pnet::packet::tcp::{TcpFlags, TcpPacket};
use socket2::{Domain, SockFilter, Socket, Type};

use super::Segment;
use crate::netlink::Mac;
use crate::packet_socket::{
    AND, JUMP_EQUAL, LOAD_BYTE, LOAD_WORD, RETURN, bind, ignore_outgoing, send_to,
};

/// How often it is asked, and how long each time.
const TRIES: u32 = 3;
const WAIT: Duration = Duration::from_millis(50);

/// It goes to the node and no further.
const TTL: u8 = 1;

/// Whom to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// The interface that leads to it, and its MAC there.
    pub ifindex: u32,
    pub mac: Mac,
    /// This node's address on that interface.
    pub from: IpAddr,
    /// A service for which it is a backend.
    pub service: SocketAddr,
}

/// Segments of TCP between these ports, behind a header of IP without options, at which they begin (packet(7),
/// `SOCK_DGRAM`).
fn filter(v4: bool, ports: u32) -> [SockFilter; 9] {
    // Of the first byte of IPv6 the lower half is the traffic class.
    let (mask, first, protocol, header) =
        if v4 { (0xff, 0x45, 9, 20) } else { (0xf0, 0x60, 6, 40) };
    [
        SockFilter::new(LOAD_BYTE, 0, 0, 0),
        SockFilter::new(AND, 0, 0, mask),
        SockFilter::new(JUMP_EQUAL, 0, 5, first),
        SockFilter::new(LOAD_BYTE, 0, 0, protocol),
        SockFilter::new(JUMP_EQUAL, 0, 3, 6),
        SockFilter::new(LOAD_WORD, 0, 0, header),
        SockFilter::new(JUMP_EQUAL, 0, 1, ports),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

/// Whether the node gives a sign of life. Blocks for 150 ms where it does not.
///
/// # Errors
/// Where this node cannot ask: without rights, or with the interface gone or down.
pub fn is_there(question: &Question) -> io::Result<bool> {
    let segment = Segment {
        source: SocketAddr::new(question.from, any_port()),
        destination: question.service,
        sequence: any() as u32,
        acknowledgement: any() as u32,
        flags: TcpFlags::ACK,
        has_byte: false,
        ttl: TTL,
    };
    let mixed = || io::Error::from(io::ErrorKind::InvalidInput);
    let packet = segment.packet().ok_or_else(mixed)?;
    let socket = listen(question, segment.source.port())?;
    for _ in 0..TRIES {
        send_to(&socket, &packet, question.ifindex, question.mac)?;
        if is_answered(&socket, &segment)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A socket that gets the answers. The stack would not let them up: they come from an address that is this
/// node's as well (a "martian source").
fn listen(question: &Question, port: u16) -> io::Result<Socket> {
    // Protocol 0: nothing comes before the filter is there.
    let socket = Socket::new(Domain::PACKET, Type::DGRAM, None)?;
    let ports = u32::from(question.service.port()) << 16 | u32::from(port);
    socket.attach_filter(&filter(question.from.is_ipv4(), ports))?;
    ignore_outgoing(&socket)?;
    bind(&socket, question.ifindex)?;
    Ok(socket)
}

fn is_answered(mut socket: &Socket, segment: &Segment) -> io::Result<bool> {
    let until = Instant::now() + WAIT;
    let mut buffer = [0; 128];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        socket.set_read_timeout(Some(left))?;
        match io::Read::read(&mut socket, &mut buffer) {
            Ok(length) if answers(&buffer[..length], segment) => return Ok(true),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

/// Whether a packet is the reset that the segment asked for, which repeats its number (RFC 9293, 3.10.7.1).
fn answers(packet: &[u8], segment: &Segment) -> bool {
    let Some(((source, destination), payload)) = taken_apart(packet) else { return false };
    let Some(reset) = TcpPacket::new(&payload) else { return false };
    SocketAddr::new(source, reset.get_source()) == segment.destination
        && SocketAddr::new(destination, reset.get_destination()) == segment.source
        && reset.get_flags() & TcpFlags::RST != 0
        && reset.get_sequence() == segment.acknowledgement
}

/// The ends of a packet of TCP, and what lies behind its header of IP.
fn taken_apart(packet: &[u8]) -> Option<((IpAddr, IpAddr), Vec<u8>)> {
    let (ends, next, payload) = match packet.first()? >> 4 {
        4 => {
            let ip = Ipv4Packet::new(packet)?;
            let ends = (ip.get_source().into(), ip.get_destination().into());
            (ends, ip.get_next_level_protocol(), ip.payload().to_vec())
        }
        6 => {
            let ip = Ipv6Packet::new(packet)?;
            let ends = (ip.get_source().into(), ip.get_destination().into());
            (ends, ip.get_next_header(), ip.payload().to_vec())
        }
        _ => return None,
    };
    (next == Tcp).then_some((ends, payload))
}

/// Numbers that nobody guesses: std seeds each hasher anew.
fn any() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// A port of those that are nobody's in particular (RFC 6335). Answers come to nobody who has it.
fn any_port() -> u16 {
    49_152 | (any() as u16 & 0x3fff)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(source: &str, destination: &str) -> Segment {
        Segment {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            sequence: 7,
            acknowledgement: 0x0102_0304,
            flags: TcpFlags::ACK,
            has_byte: false,
            ttl: TTL,
        }
    }

    /// What the stack makes of a segment that it has no socket for.
    fn reset(to: &Segment) -> Vec<u8> {
        let back = Segment {
            source: to.destination,
            destination: to.source,
            sequence: to.acknowledgement,
            acknowledgement: 0,
            flags: TcpFlags::RST,
            has_byte: false,
            ttl: 64,
        };
        back.packet().unwrap()
    }

    #[test]
    fn only_the_reset_that_was_asked_for_is_an_answer() {
        for (source, destination) in
            [("192.0.2.1:50000", "192.0.2.9:8443"), ("[2001:db8::1]:50000", "[2001:db8::9]:8443")]
        {
            let asked = segment(source, destination);
            assert!(answers(&reset(&asked), &asked), "{source}");
            let other = Segment { acknowledgement: 9, ..asked };
            assert!(!answers(&reset(&other), &asked), "another number");
            let mut bare = reset(&asked);
            let flags = bare.len() - 7;
            bare[flags] = TcpFlags::ACK;
            assert!(!answers(&bare, &asked), "no reset");
            let whole = reset(&asked);
            for length in 0..whole.len() {
                assert!(!answers(&whole[..length], &asked), "cut at {length}");
            }
        }
    }

    #[test]
    fn numbers_differ_each_time() {
        let numbers: std::collections::HashSet<u64> = (0..64).map(|_| any()).collect();
        assert!(numbers.len() > 60);
        assert!((0..64).all(|_| any_port() >= 49_152));
    }
}
