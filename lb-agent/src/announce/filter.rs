//! Which frames a receiving socket wants, said to the kernel.
//!
//! A packet socket bound to one protocol stands in line with the IP stack behind tc ingress. The
//! kernel then hands the stack a clone of each frame, and a clone loses the socket that tc assigned
//! to it (`skb_clone` clears `skb->sk`): for as long as such a socket is open on IPv4 or IPv6, new
//! connections to this node's backends are reset. A socket for all protocols is served before tc
//! and does no harm, so the question about an IPv6 VIP uses one, with a filter.

#![expect(unsafe_code, reason = "SO_ATTACH_FILTER has no safe wrapper")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use super::frame::ETHERTYPE_IPV6;

/// `ETH_P_ALL` (include/uapi/linux/if_ether.h).
pub(super) const ALL_PROTOCOLS: u16 = 3;

const ICMPV6: u32 = 58;
const SOLICITATION: u32 = 135;
const ADVERTISEMENT: u32 = 136;

// Opcodes of classic BPF (include/uapi/linux/bpf_common.h).
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const JUMP_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

const fn op(code: u16, if_equal: u8, otherwise: u8, value: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt: if_equal, jf: otherwise, k: value }
}

/// Neighbour solicitations and advertisements, by ethertype, next header and type.
const NEIGHBOUR_DISCOVERY: [libc::sock_filter; 8] = [
    op(LOAD_HALF, 0, 0, 12),
    op(JUMP_EQUAL, 0, 5, ETHERTYPE_IPV6 as u32),
    op(LOAD_BYTE, 0, 0, 14 + 6),
    op(JUMP_EQUAL, 0, 3, ICMPV6),
    op(LOAD_BYTE, 0, 0, 14 + 40),
    op(JUMP_EQUAL, 2, 0, ADVERTISEMENT),
    op(JUMP_EQUAL, 1, 0, SOLICITATION),
    op(RETURN, 0, 0, 0),
];

/// Lets only neighbour discovery into a packet socket.
pub(super) fn only_neighbour_discovery(socket: impl AsFd) -> io::Result<()> {
    let mut program: Vec<libc::sock_filter> = NEIGHBOUR_DISCOVERY.to_vec();
    program.push(op(RETURN, 0, 0, u32::MAX));
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the kernel copies the program, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
