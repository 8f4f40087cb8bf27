//! How large packets get to the other nodes and back: echoes of several sizes that nobody may cut (ICMP, with the
//! kernel's own memory of paths left out).

#![expect(unsafe_code, reason = "setsockopt(2) for IP_MTU_DISCOVER, which socket2 does not have")]

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// For the answers; asked once more at half of it.
const WAIT: Duration = Duration::from_millis(600);
/// Sizes of packets that links are known to have.
const SIZES: [u32; 8] = [9000, 1500, 1492, 1450, 1400, 1280, 1000, 576];
/// Of an echo, its headers aside.
const ICMP_HEADER: usize = 8;

/// The sizes of packets to an address that came back, of those that an interface with this MTU sends. Blocks.
pub(in crate::doctor) fn sizes(to: IpAddr, interface: &str, mtu: u32) -> Result<Vec<u32>, String> {
    ask(to, interface, mtu).map_err(|error| {
        format!("no echoes by {interface}: {error} (it takes root or CAP_NET_RAW)")
    })
}

fn ask(to: IpAddr, interface: &str, mtu: u32) -> io::Result<Vec<u32>> {
    let socket = open(to, interface)?;
    let mut sizes: Vec<u32> =
        std::iter::once(mtu).chain(SIZES).filter(|size| *size <= mtu).collect();
    sizes.dedup();
    let own = (std::process::id() & 0xffff) as u16;
    let (begin, mut asked) = (Instant::now(), 0);
    let mut answered: Vec<u32> = Vec::new();
    while begin.elapsed() < WAIT && !sizes.iter().all(|size| answered.contains(size)) {
        if asked < 2 && begin.elapsed() >= WAIT / 2 * asked {
            for (sequence, size) in sizes.iter().enumerate() {
                // One that does not even leave does not come back.
                let _ = socket.send_to(
                    &echo(to, own, sequence as u16, *size),
                    &SockAddr::from(SocketAddr::new(to, 0)),
                );
            }
            asked += 1;
        }
        if let Some(size) = receive(&socket, to, own)?.and_then(|at| sizes.get(usize::from(at))) {
            answered.push(*size);
        }
    }
    Ok(answered)
}

fn open(to: IpAddr, interface: &str) -> io::Result<Socket> {
    let (domain, protocol) = match to {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.set_read_timeout(Some(Duration::from_millis(20)))?;
    let (level, option) = match to {
        IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER),
        IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER),
    };
    // The same number for both families (linux/in.h and in6.h).
    let probe: libc::c_int = libc::IP_PMTUDISC_PROBE;
    // SAFETY: the kernel reads an int of this length, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const probe).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(socket) } else { Err(io::Error::last_os_error()) }
}

/// An echo request that makes a packet of so many bytes. The kernel makes the checksum of ICMPv6.
fn echo(to: IpAddr, own: u16, sequence: u16, size: u32) -> Vec<u8> {
    let (kind, header) = if to.is_ipv4() { (8, 20) } else { (128, 40) };
    let length = (size as usize).saturating_sub(header).max(ICMP_HEADER);
    let mut message = vec![0; length];
    message[0] = kind;
    message[4..6].copy_from_slice(&own.to_be_bytes());
    message[6..8].copy_from_slice(&sequence.to_be_bytes());
    if to.is_ipv4() {
        let checksum = pnet::util::checksum(&message, 1);
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
    }
    message
}

/// The number of an answer of ours; none of other packets, and where none came.
fn receive(socket: &Socket, to: IpAddr, own: u16) -> io::Result<Option<u16>> {
    let mut buffer = [MaybeUninit::uninit(); 128];
    let (length, from) = match socket.recv_from(&mut buffer) {
        Ok(received) => received,
        Err(error) => {
            return match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
                _ => Err(error),
            };
        }
    };
    if from.as_socket().is_none_or(|from| from.ip() != to) {
        return Ok(None);
    }
    // SAFETY: the kernel has written this many bytes.
    let bytes: Vec<u8> =
        buffer[..length].iter().map(|byte| unsafe { byte.assume_init() }).collect();
    Ok(answer(&bytes, to.is_ipv4(), own))
}

/// Raw sockets of IPv4 bring its header, those of IPv6 do not.
fn answer(bytes: &[u8], v4: bool, own: u16) -> Option<u16> {
    let (kind, header) = if v4 { (0, usize::from(bytes.first()? & 0x0f) * 4) } else { (129, 0) };
    let message = bytes.get(header..)?.first_chunk::<ICMP_HEADER>()?;
    let word = |at: usize| u16::from_be_bytes([message[at], message[at + 1]]);
    (message[0] == kind && word(4) == own).then(|| word(6))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_is_as_large_as_it_is_to_be() {
        let v4 = IpAddr::from([192, 0, 2, 1]);
        let message = echo(v4, 7, 2, 1500);
        assert_eq!(message.len(), 1480);
        assert_eq!(pnet::util::checksum(&message, usize::MAX), 0, "it sums to zero");
        assert_eq!(echo("2001:db8::1".parse().unwrap(), 7, 2, 1500).len(), 1460);
    }

    #[test]
    fn only_answers_of_our_own_count() {
        let mut packet = vec![0; 28];
        packet[0] = 0x45;
        packet[24..28].copy_from_slice(&[0, 7, 0, 2]);
        assert_eq!(answer(&packet, true, 7), Some(2));
        assert_eq!(answer(&packet, true, 8), None);
        packet[20] = 8;
        assert_eq!(answer(&packet, true, 7), None, "a question");
        assert_eq!(answer(&packet[..20], true, 7), None);
    }
}
