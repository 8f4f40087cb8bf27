//! Which frames a receiving socket wants, said to the kernel.
//!
//! A packet socket bound to one protocol stands in line with the IP stack behind tc ingress. The
//! kernel then hands the stack a clone of each frame, and a clone loses the socket that tc assigned
//! to it (`skb_clone` clears `skb->sk`): for as long as such a socket is open on IPv4 or IPv6, new
//! connections to this node's backends are reset. A socket for all protocols is served before tc
//! and does no harm, so the question about an IPv6 VIP uses one, with a filter.

use std::io;
use std::os::fd::AsFd;

use socket2::{SockFilter, SockRef};

use super::frame::ETHERTYPE_IPV6;
use crate::packet_socket::{JUMP_EQUAL, LOAD_BYTE, LOAD_HALF, RETURN};

const ICMPV6: u32 = 58;
const SOLICITATION: u32 = 135;
const ADVERTISEMENT: u32 = 136;

/// Neighbour solicitations and advertisements, by ethertype, next header and type.
const NEIGHBOUR_DISCOVERY: [SockFilter; 9] = [
    SockFilter::new(LOAD_HALF, 0, 0, 12),
    SockFilter::new(JUMP_EQUAL, 0, 5, ETHERTYPE_IPV6 as u32),
    SockFilter::new(LOAD_BYTE, 0, 0, 14 + 6),
    SockFilter::new(JUMP_EQUAL, 0, 3, ICMPV6),
    SockFilter::new(LOAD_BYTE, 0, 0, 14 + 40),
    SockFilter::new(JUMP_EQUAL, 2, 0, ADVERTISEMENT),
    SockFilter::new(JUMP_EQUAL, 1, 0, SOLICITATION),
    SockFilter::new(RETURN, 0, 0, 0),
    SockFilter::new(RETURN, 0, 0, u32::MAX),
];

/// Lets only neighbour discovery into a packet socket.
pub(super) fn only_neighbour_discovery(socket: impl AsFd) -> io::Result<()> {
    SockRef::from(&socket).attach_filter(&NEIGHBOUR_DISCOVERY)
}
