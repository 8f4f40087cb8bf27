//! Changed fields of a frame, and the checksums that follow from them.
//!
//! A checksum is computed from the whole, before and after: it leaves as right or as wrong as it
//! came. So a frame with the right ones leaves with the right ones, and an error is not repaired.

use lb_common::Address;
use lb_common::service::UDP;

use super::parse::{Family, Ip, Packet};
use super::state::Mac;

pub(super) fn macs(frame: &mut [u8], to: Mac, from: Mac) {
    frame[0..6].copy_from_slice(&to);
    frame[6..12].copy_from_slice(&from);
}

pub(super) fn ttl(frame: &mut [u8], ip: &Ip, ttl: u8) {
    match ip.family {
        Family::V4 => with_header_checksum(frame, ip, |frame| frame[ip.at + 8] = ttl),
        Family::V6 => frame[ip.at + 7] = ttl,
    }
}

/// Replaces the source of a TCP or UDP packet.
pub(super) fn source(frame: &mut [u8], packet: &Packet, address: &Address, port_be: u16) {
    let at = packet.ip.at + if packet.ip.family == Family::V4 { 12 } else { 8 };
    endpoint(frame, packet, at, address, packet.transport, port_be);
}

/// Replaces the destination of a TCP or UDP packet.
pub(super) fn destination(frame: &mut [u8], packet: &Packet, address: &Address, port_be: u16) {
    let at = packet.ip.at + if packet.ip.family == Family::V4 { 16 } else { 24 };
    endpoint(frame, packet, at, address, packet.transport + 2, port_be);
}

/// Changes what an ICMP error quotes, and the error's checksum.
pub(super) fn error(frame: &mut [u8], packet: &Packet, change: impl FnOnce(&mut [u8])) {
    let (message, at) = (packet.transport, packet.transport + 2);
    let before = sum_without(&frame[message..], 2);
    change(frame);
    let new = moved(field(frame, at), before, sum_without(&frame[message..], 2));
    frame[at..at + 2].copy_from_slice(&new.to_be_bytes());
}

/// Replaces a fragment's addresses. The packet's checksum, if it has one, stands in the first.
pub(super) fn addresses(frame: &mut [u8], ip: &Ip, from: &Address, to: &Address) {
    let octets = [from.octets(), to.octets()];
    match ip.family {
        Family::V4 => with_header_checksum(frame, ip, |frame| {
            frame[ip.at + 12..ip.at + 16].copy_from_slice(&octets[0][12..]);
            frame[ip.at + 16..ip.at + 20].copy_from_slice(&octets[1][12..]);
        }),
        Family::V6 => {
            frame[ip.at + 8..ip.at + 24].copy_from_slice(&octets[0]);
            frame[ip.at + 24..ip.at + 40].copy_from_slice(&octets[1]);
        }
    }
}

/// Replaces an ICMP error's own addresses. ICMPv6 has them in its checksum (RFC 4443, 2.3).
pub(super) fn error_addresses(frame: &mut [u8], packet: &Packet, from: &Address, to: &Address) {
    let (ip, at) = (&packet.ip, packet.transport + 2);
    let covered = ip.at + 8..ip.at + 40;
    let sum = |frame: &[u8]| match ip.family {
        Family::V4 => 0,
        Family::V6 => sum_without(&frame[covered.clone()], usize::MAX),
    };
    let before = sum(frame);
    addresses(frame, ip, from, to);
    let new = moved(field(frame, at), before, sum(frame));
    if ip.family == Family::V6 {
        frame[at..at + 2].copy_from_slice(&new.to_be_bytes());
    }
}

fn endpoint(
    frame: &mut [u8],
    packet: &Packet,
    address_at: usize,
    address: &Address,
    port_at: usize,
    port_be: u16,
) {
    with_transport_checksum(frame, packet, |frame| {
        let octets = address.octets();
        let replaced = |frame: &mut [u8]| match packet.ip.family {
            Family::V4 => frame[address_at..address_at + 4].copy_from_slice(&octets[12..]),
            Family::V6 => frame[address_at..address_at + 16].copy_from_slice(&octets),
        };
        match packet.ip.family {
            Family::V4 => with_header_checksum(frame, &packet.ip, replaced),
            Family::V6 => replaced(frame),
        }
        frame[port_at..port_at + 2].copy_from_slice(&port_be.to_ne_bytes());
    });
}

/// Changes an IPv4 header and its checksum.
fn with_header_checksum(frame: &mut [u8], ip: &Ip, change: impl FnOnce(&mut [u8])) {
    let end = ip.at + usize::from(frame[ip.at] & 0x0f) * 4;
    let at = ip.at + 10;
    let sum = |frame: &[u8]| sum_without(&frame[ip.at..end], 10);
    let before = sum(frame);
    change(frame);
    let field = moved(field(frame, at), before, sum(frame));
    frame[at..at + 2].copy_from_slice(&field.to_be_bytes());
}

/// Changes a TCP or UDP packet and its checksum. "A UDP checksum of zero stays zero", and none
/// becomes zero (RFC 768).
fn with_transport_checksum(frame: &mut [u8], packet: &Packet, change: impl FnOnce(&mut [u8])) {
    let udp = packet.ip.protocol == UDP;
    let at = packet.transport + if udp { 6 } else { 16 };
    // The pseudo-header's length and protocol are the same before and after, and the ports lie in the
    // frame also where the rest of the packet does not.
    let addresses = match packet.ip.family {
        Family::V4 => packet.ip.at + 12..packet.ip.at + 20,
        Family::V6 => packet.ip.at + 8..packet.ip.at + 40,
    };
    let sum = |frame: &[u8]| {
        let body = sum_without(&frame[packet.transport..], at - packet.transport);
        fold(u64::from(body) + u64::from(sum_without(&frame[addresses.clone()], usize::MAX)))
    };
    // A quotation may end before its checksum.
    if at + 2 > frame.len() {
        return change(frame);
    }
    let before = sum(frame);
    let old = field(frame, at);
    change(frame);
    if udp && old == 0 {
        return;
    }
    let mut new = moved(old, before, sum(frame));
    if udp && new == 0 {
        new = 0xffff;
    }
    frame[at..at + 2].copy_from_slice(&new.to_be_bytes());
}

fn field(frame: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([frame[at], frame[at + 1]])
}

/// The checksum after the sum of what it covers went from `before` to `after`: the sum of both stays
/// what it was, all ones where it was right (RFC 1071).
fn moved(checksum: u16, before: u16, after: u16) -> u16 {
    let total = fold(u64::from(checksum) + u64::from(before));
    // Of the two zeros of one's complement the one that a sender computes.
    match fold(u64::from(total) + u64::from(!after)) {
        0xffff => 0,
        field => field,
    }
}

/// The one's-complement sum of the bytes but for the two at `hole`.
fn sum_without(bytes: &[u8], hole: usize) -> u16 {
    let pairs = bytes.chunks(2).enumerate().filter(|(at, _)| at * 2 != hole);
    fold(pairs.map(|(_, pair)| word(pair)).sum())
}

fn word(pair: &[u8]) -> u64 {
    u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
