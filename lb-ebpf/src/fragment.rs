//! Fragments: the following ones go where the first one went, which alone has ports.
//!
//! What became of the first is read off the frame as it went on, whatever that was: carried,
//! translated, or left to the stack, which puts the packet together.

use lb_common::Address;
use lb_common::backend::NO_BACKEND;
use lb_common::checksum::Difference;
use lb_common::counter::{Outcome, Verdict};
use lb_common::fragment::{FRAGMENT_NS, Fragment, FragmentKey, LEAVING, STEERED};

use crate::carry::address;
use crate::deep::{Uncovered, key};
use crate::environment::{Frame, Node};
use crate::nat::{difference, readdress};
use crate::parse::{Header, Packet, addresses};
use crate::steer::{Steered, addressed_to_us};
use crate::wire::*;

/// Notes what became of the first fragment, which went on as `frame` is now.
#[inline(always)]
pub fn first<F: Frame, N: Node>(
    frame: &F,
    node: &N,
    packet: &Packet,
    id: u32,
    steered: Steered,
) -> Option<()> {
    let sent = match steered.verdict.outcome() {
        Outcome::Forward => true,
        Outcome::Drop => {
            // The others will not be put together, wherever they go.
            node.fragment_forget(&key(packet, id, STEERED));
            return None;
        }
        _ if steered.verdict as u32 == Verdict::OtherHost as u32 => return None,
        _ => false,
    };
    let [to, from] = frame.load::<[Mac; 2]>(0)?;
    let how = Fragment {
        backend: steered.backend,
        ifindex: steered.interface,
        mac: to.bytes(),
        source_mac: from.bytes(),
        ttl: ttl(frame, packet.network, packet.v4)?,
        sent: sent as u8,
        protocol: packet.flow.protocol,
        ..Fragment::EMPTY
    };
    remember(frame, node, packet, &key(packet, id, STEERED), how)
}

/// Notes how a first fragment leaves, if it was rewritten for that; else nothing that an older one with
/// its key left.
#[inline(always)]
pub fn note<F: Frame, N: Node>(
    frame: &F,
    node: &N,
    packet: &Packet,
    key: &FragmentKey,
    rewritten: bool,
) {
    if !rewritten || remember(frame, node, packet, key, Fragment::EMPTY).is_none() {
        node.fragment_forget(key);
    }
}

/// Rewrites a following fragment as the first was that [`note`] saw; nothing where that is not known.
#[inline(always)]
pub fn leave<F: Frame, N: Node>(frame: &mut F, node: &N, piece: &Uncovered) -> Option<()> {
    let first = recall(node, &piece.key(LEAVING))?;
    let header = &piece.header;
    translate(frame, header, &first.source, &first.destination, header.ttl)
}

/// Gives a following fragment of a datagram that steering left here the address of its server. By steering's
/// note: one of delivery's own would come too late for a fragment that another CPU has in hand.
#[inline(always)]
pub fn deliver<F: Frame, N: Node>(frame: &mut F, node: &N, piece: &Uncovered) -> Option<()> {
    let first = recall(node, &piece.key(STEERED))?;
    if first.sent != 0 || first.protocol != PROTOCOL_UDP || first.backend == NO_BACKEND {
        return None;
    }
    let backend = node.backend(first.backend)?;
    let header = &piece.header;
    translate(frame, header, &first.source, &backend.address, header.ttl)
}

#[inline(always)]
fn remember<F: Frame, N: Node>(
    frame: &F,
    node: &N,
    packet: &Packet,
    key: &FragmentKey,
    how: Fragment,
) -> Option<()> {
    let (source, destination) = addresses(frame, packet.network, packet.v4)?;
    let note = Fragment { source, destination, seen_ns: node.now_ns(), ..how };
    node.fragment_remember(key, &note);
    Some(())
}

#[inline(always)]
fn ttl<F: Frame>(frame: &F, network: usize, v4: bool) -> Option<u8> {
    let offset =
        if v4 { core::mem::offset_of!(Ipv4, ttl) } else { core::mem::offset_of!(Ipv6, hop_limit) };
    frame.load(network + offset)
}

/// What became of the first one, if that was lately.
#[inline(always)]
fn recall<'a, N: Node>(node: &'a N, key: &FragmentKey) -> Option<&'a Fragment> {
    node.fragment(key).filter(|first| node.now_ns().wrapping_sub(first.seen_ns) < FRAGMENT_NS)
}

/// Steers a following fragment.
#[inline(always)]
pub fn following<F: Frame, N: Node>(frame: &mut F, node: &N, piece: &Uncovered) -> Steered {
    let Some(ethernet) = frame.load::<Ethernet>(0) else { return Steered::here(Verdict::NotIp) };
    if !addressed_to_us(frame, node, &ethernet) {
        return Steered::here(Verdict::OtherHost);
    }
    let Some(first) = recall(node, &piece.key(STEERED)) else {
        return Steered::here(Verdict::Fragment);
    };
    let header = &piece.header;
    if first.sent == 0 {
        count(frame, node, first);
        return Steered::here(Verdict::FragmentLocal);
    }
    if header.ttl <= 1 {
        return Steered::here(Verdict::TtlExceeded);
    }
    count(frame, node, first);
    let ttl = if header.ttl <= first.ttl { header.ttl - 1 } else { first.ttl };
    let done = translate(frame, header, &first.source, &first.destination, ttl).and_then(|()| {
        address(frame, Mac::from_bytes(first.mac), Mac::from_bytes(first.source_mac))
    });
    match done {
        Some(()) => Steered { interface: first.ifindex, ..Steered::here(Verdict::FragmentForward) },
        None => Steered::here(Verdict::Truncated),
    }
}

#[inline(always)]
fn count<F: Frame, N: Node>(frame: &F, node: &N, first: &Fragment) {
    if first.backend != NO_BACKEND {
        node.count_backend(first.backend, frame.length(), false);
    }
}

/// Gives a following fragment the addresses of the first. The packet's checksum stands in that one, and
/// was corrected there.
#[inline(always)]
fn translate<F: Frame>(
    frame: &mut F,
    header: &Header,
    source: &Address,
    destination: &Address,
    ttl: u8,
) -> Option<()> {
    let change = difference(
        difference(Difference::ZERO, &header.source, source),
        &header.destination,
        destination,
    );
    readdress(frame, header.network, header.v4, source, destination, ttl, change)
}
