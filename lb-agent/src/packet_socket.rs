//! What packet(7) offers without a safe wrapper, and the words of its filters.

#![expect(unsafe_code, reason = "the system calls of packet(7)")]

use std::io;
use std::os::fd::AsRawFd as _;

use socket2::Socket;

use crate::netlink::Mac;

/// `ETH_P_ALL` (linux/if_ether.h). A socket for one protocol alone would take the IP stack its frames' assigned
/// sockets (see `announce::filter`).
pub(crate) const ALL_PROTOCOLS: u16 = 3;

// Opcodes of classic BPF (linux/bpf_common.h).
pub(crate) const LOAD_WORD: u16 = 0x20;
pub(crate) const LOAD_HALF: u16 = 0x28;
pub(crate) const LOAD_BYTE: u16 = 0x30;
pub(crate) const AND: u16 = 0x54;
pub(crate) const JUMP_EQUAL: u16 = 0x15;
pub(crate) const RETURN: u16 = 0x06;

/// Else the kernel would copy each packet that leaves the interface, to find it filtered out.
pub(crate) fn ignore_outgoing(socket: &Socket) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the kernel reads an int of this length, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_IGNORE_OUTGOING,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Has the socket receive what comes by this interface.
pub(crate) fn bind(socket: &Socket, ifindex: u32) -> io::Result<()> {
    let place = place(ifindex, ALL_PROTOCOLS.to_be(), [0; 6]);
    // SAFETY: the kernel reads a `sockaddr_ll`, whose length this is and which outlives the call.
    let result = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const place).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What came, up to the buffer's length, and the MAC that sent it. Does not wait where the socket does not.
pub(crate) fn receive(socket: &Socket, buffer: &mut [u8]) -> io::Result<(usize, Mac)> {
    let mut place = place(0, 0, [0; 6]);
    let mut length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the kernel writes at most these lengths to the buffer and to a `sockaddr_ll`.
    let received = unsafe {
        libc::recvfrom(
            socket.as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            0,
            (&raw mut place).cast(),
            &raw mut length,
        )
    };
    let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    let [a, b, c, d, e, f, ..] = place.sll_addr;
    Ok((received, [a, b, c, d, e, f]))
}

/// Sends a packet of IP to a MAC, from the interface's own; the socket makes the link's header
/// (`SOCK_DGRAM`).
pub(crate) fn send_to(socket: &Socket, packet: &[u8], ifindex: u32, mac: Mac) -> io::Result<()> {
    let v4 = packet.first().is_some_and(|first| first >> 4 == 4);
    let protocol = if v4 { libc::ETH_P_IP } else { libc::ETH_P_IPV6 };
    let place = place(ifindex, (protocol as u16).to_be(), mac);
    // SAFETY: the kernel reads the packet and a `sockaddr_ll`, whose lengths these are.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            packet.as_ptr().cast(),
            packet.len(),
            0,
            (&raw const place).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if sent >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn place(ifindex: u32, protocol_be: u16, mac: Mac) -> libc::sockaddr_ll {
    let mut address = [0; 8];
    address[..6].copy_from_slice(&mac);
    libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: protocol_be,
        sll_ifindex: ifindex.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: address,
    }
}
