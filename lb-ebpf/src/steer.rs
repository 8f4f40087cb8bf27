//! A frame's way from the interface to its verdict. One body for XDP and tc ingress.

use lb_common::backend::NO_BACKEND;
use lb_common::bucket::slot;
use lb_common::counter::Verdict;
use lb_common::hash::{client_hash_v4, client_hash_v6};
use lb_common::layout::stage;
use lb_common::service::{HAS_NAT, HASH_PORT, PROTECTED, STAYS, Service, ServiceKey};
use lb_common::settings::{DROP_UNKNOWN_PORTS, Settings, peer_bit};

use crate::answer::too_large;
use crate::carry::carry;
use crate::choose::{self, Choice};
use crate::environment::{Frame, Node};
use crate::parse::{Packet, Parsed, parse};
use crate::wire::*;
use crate::{nat, neighbour, note, passive, protect, virtual_mac};

/// What became of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Steered {
    /// Its outcome says whether the frame is passed, dropped or sent.
    pub verdict: Verdict,
    /// Where it leaves, if it is sent; the MTU there, if it is too large for that.
    pub interface: u32,
    /// The backend that it counts for, or [`NO_BACKEND`].
    pub backend: u32,
}

/// From here on what stands instead of an interface is the stage of another program, counted down.
const ANOTHER_PROGRAM: u32 = u32::MAX - 7;

impl Steered {
    #[inline(always)]
    pub const fn here(verdict: Verdict) -> Self {
        Self { verdict, interface: 0, backend: NO_BACKEND }
    }

    /// The program of this [stage] decides; this is the verdict where it is not there.
    #[inline(always)]
    const fn by(stage: u32, verdict: Verdict) -> Self {
        Self { verdict, interface: u32::MAX - stage, backend: NO_BACKEND }
    }

    /// Whether its sender is to be told, and if so the MTU, or 0 where no hop is left.
    #[inline(always)]
    pub const fn answered(&self) -> Option<u32> {
        match self.verdict {
            Verdict::TtlExceeded => Some(0),
            Verdict::TooBig => Some(self.interface),
            _ => None,
        }
    }

    /// The stage of the program that decides, where it is another one.
    #[inline(always)]
    pub const fn stage(&self) -> Option<u32> {
        if self.interface >= ANOTHER_PROGRAM { Some(u32::MAX - self.interface) } else { None }
    }
}

/// Decides on a frame and rewrites it where it goes elsewhere.
#[inline(always)]
pub fn steer<F: Frame, N: Node>(frame: &mut F, node: &N) -> Steered {
    let steered = decide(frame, node);
    // At the end, where nothing else is remembered: the stack has no room for it before.
    settle(frame, node, steered)
}

/// What some verdicts still come to: the agent's synthetic packet is dropped where its way ends, and a SYN for
/// a listener here may be one of a flood.
#[inline(always)]
pub(crate) fn settle<F: Frame, N: Node>(frame: &F, node: &N, steered: Steered) -> Steered {
    match steered.verdict {
        Verdict::TtlExceeded | Verdict::Nobody if is_trial(frame) => Steered::here(Verdict::Trial),
        Verdict::LocalNew => new_here(frame, node, steered.backend),
        _ => steered,
    }
}

/// A SYN for the listener of the backend at this index.
#[inline(always)]
fn new_here<F: Frame, N: Node>(frame: &F, node: &N, index: u32) -> Steered {
    if protect::may_answer(node, index) {
        return Steered::by(stage::COOKIE, Verdict::LocalNew);
    }
    node.count_backend(index, frame.length(), true);
    Steered { backend: index, ..Steered::here(Verdict::LocalNew) }
}

/// The agent's synthetic packet is the one from this node to itself: on the wire there is none.
#[inline(always)]
fn is_trial<F: Frame>(frame: &F) -> bool {
    frame.load::<Ethernet>(0).is_some_and(|ethernet| ethernet.source.same(ethernet.destination))
}

#[inline(always)]
fn decide<F: Frame, N: Node>(frame: &mut F, node: &N) -> Steered {
    if let Some(verdict) = virtual_mac::arrive(frame, node) {
        return Steered::here(verdict);
    }
    let verdict = match parse(frame, |address| node.may_be_ours(address)) {
        Parsed::Packet(packet) => return packet_to_us(frame, node, &packet),
        Parsed::Error(_) | Parsed::Deep(_) => {
            return Steered::by(stage::RARE, Verdict::Inconsistent);
        }
        Parsed::NotOurs => Verdict::NotOurs,
        Parsed::Arp(offset) => neighbour::arp(frame, node, offset),
        Parsed::Nd { transport, .. } => neighbour::nd(frame, node, transport),
        Parsed::NotIp => Verdict::NotIp,
        Parsed::Truncated => Verdict::Truncated,
        Parsed::OtherProtocol => Verdict::OtherProtocol,
        Parsed::OtherIcmp => Verdict::IcmpOther,
    };
    Steered::here(verdict)
}

#[inline(always)]
pub(crate) fn packet_to_us<F: Frame, N: Node>(frame: &mut F, node: &N, packet: &Packet) -> Steered {
    let Some(settings) = node.settings() else { return Steered::here(Verdict::NotReady) };
    let Some(ethernet) = frame.load::<Ethernet>(0) else { return Steered::here(Verdict::NotIp) };
    if !addressed_to_us(frame, node, &ethernet) {
        return Steered::here(Verdict::OtherHost);
    }
    if in_nat_range(settings, packet) {
        return nat_reply(frame, node, packet);
    }
    let Some(service) = node.service(&service_key(packet)) else {
        return Steered::here(unknown_port(node, settings, packet));
    };
    if service.flags & PROTECTED != 0
        && !is_from_peer(node, settings, &ethernet)
        && let Some(verdict) = protect::refuse(node, settings, service, packet)
    {
        return Steered::here(verdict);
    }
    if service.flags & STAYS != 0 && packet.is_udp() {
        return Steered::by(stage::STAY, Verdict::Inconsistent);
    }
    if note::is_noted(service, packet) && !is_from_peer(node, settings, &ethernet) {
        note::note(frame, node, service, packet);
    }
    if service.flags & HAS_NAT != 0
        && let Some(steered) = nat::known(frame, node, packet)
    {
        return steered;
    }
    to_service(frame, node, settings, service, packet, &ethernet)
}

/// A flooded frame, or one that a promiscuous card picked up, belongs to another machine.
#[inline(always)]
pub(crate) fn addressed_to_us<F: Frame, N: Node>(frame: &F, node: &N, ethernet: &Ethernet) -> bool {
    node.interface(frame.interface_index())
        .is_some_and(|interface| Mac::from_bytes(interface.mac).same(ethernet.destination))
}

#[inline(always)]
const fn in_nat_range(settings: &Settings, packet: &Packet) -> bool {
    let port = u16::from_be(packet.flow.destination_port_be);
    port.wrapping_sub(settings.nat_port_first) < settings.nat_port_count
}

/// Replies of backends come to the VIP on a port of the NAT range.
#[inline(always)]
fn nat_reply<F: Frame, N: Node>(frame: &mut F, node: &N, packet: &Packet) -> Steered {
    if let Some(steered) = nat::known(frame, node, packet) {
        return steered;
    }
    match node.vip(&packet.flow.destination) {
        // The stack would answer with a reset and end a connection that another node knows.
        Some(_) => Steered::here(Verdict::NatUnknown),
        None => Steered::here(Verdict::NotOurs),
    }
}

#[inline(always)]
pub const fn service_key(packet: &Packet) -> ServiceKey {
    ServiceKey {
        address: packet.flow.destination,
        port_be: packet.flow.destination_port_be,
        protocol: packet.flow.protocol,
        padding: 0,
    }
}

#[inline(always)]
fn unknown_port<N: Node>(node: &N, settings: &Settings, packet: &Packet) -> Verdict {
    if node.vip(&packet.flow.destination).is_none() {
        return Verdict::NotOurs;
    }
    if settings.flags & DROP_UNKNOWN_PORTS != 0 {
        return Verdict::NoServiceDropped;
    }
    Verdict::NoService
}

/// The hash of the packet's client, as the service wants it.
#[inline(always)]
pub const fn hash(service: &Service, packet: &Packet) -> u64 {
    let port = if service.flags & HASH_PORT != 0 { packet.flow.source_port_be } else { 0 };
    if packet.v4 {
        client_hash_v4(service.seed, &packet.flow.source, port)
    } else {
        client_hash_v6(service.seed, &packet.flow.source, port)
    }
}

/// Whether a packet has the tags of its link, and is to leave by another. It cannot be sent on as it is:
/// the interface of its VLAN would give it the tag once more, and one without a VLAN a tag that nobody there
/// knows. The stack takes the tags off, and the VLAN's own interface steers it.
#[inline(always)]
pub(crate) fn leaves_its_vlan<F: Frame>(frame: &F, network: usize, interface: u32) -> bool {
    let tagged = network != size_of::<Ethernet>() || frame.has_tag_aside();
    tagged && interface != frame.interface_index()
}

#[inline(always)]
pub(crate) fn is_from_peer<N: Node>(node: &N, settings: &Settings, ethernet: &Ethernet) -> bool {
    settings.peers & peer_bit(&ethernet.source.bytes()) != 0 && node.is_peer(ethernet.source)
}

#[inline(always)]
fn to_service<F: Frame, N: Node>(
    frame: &mut F,
    node: &N,
    settings: &Settings,
    service: &Service,
    packet: &Packet,
    ethernet: &Ethernet,
) -> Steered {
    let from_peer = is_from_peer(node, settings, ethernet);
    let hash = hash(service, packet);
    let Some(bucket) = node.bucket(service.table, slot(hash, service.slots)) else {
        return Steered::here(Verdict::Inconsistent);
    };
    let choice = if packet.is_new() {
        choose::for_new(node, packet, service, bucket, hash, ethernet.source, from_peer)
    } else {
        let may_be_cookie = packet.tcp_flags & (TCP_ACK | TCP_SYN | TCP_RST) == TCP_ACK;
        choose::for_owner(node, packet, service, bucket, ethernet.source, from_peer, may_be_cookie)
    };
    let new = packet.is_new();
    carry_out(frame, node, settings, packet, ethernet, choice, from_peer, new)
}

/// Sends a packet to whom it was chosen for; a `new` one counts as a connection there.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "inlined; a struct would only be taken apart again")]
pub(crate) fn carry_out<F: Frame, N: Node>(
    frame: &mut F,
    node: &N,
    settings: &Settings,
    packet: &Packet,
    ethernet: &Ethernet,
    choice: Choice,
    from_peer: bool,
    new: bool,
) -> Steered {
    match choice {
        Choice::Pass(verdict) => Steered::here(verdict),
        // `new_here` goes on, and counts.
        Choice::Here { index, verdict: Verdict::LocalNew } => {
            if !from_peer {
                passive::sent(frame, node, packet, index);
            }
            Steered { backend: index, ..Steered::here(Verdict::LocalNew) }
        }
        Choice::Here { index, verdict } => {
            node.count_backend(index, frame.length(), new);
            if let Verdict::LocalCookie = verdict {
                node.note_cookie();
            }
            Steered { backend: index, ..Steered::here(verdict) }
        }
        Choice::Direct { index, verdict, ttl } => {
            let verdict = if packet.is_udp() && from_peer { Verdict::DirectNext } else { verdict };
            forward(frame, node, packet, index, verdict, ttl, from_peer, new)
        }
        Choice::Nat { .. } if protect::is_syn_of_flood(node, settings, packet) => {
            Steered::here(Verdict::SynDropped)
        }
        Choice::Nat { index } => translate_new(frame, node, packet, ethernet, index),
    }
}

#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "inlined; a struct would only be taken apart again")]
pub(crate) fn forward<F: Frame, N: Node>(
    frame: &mut F,
    node: &N,
    packet: &Packet,
    index: u32,
    verdict: Verdict,
    ttl: u8,
    from_peer: bool,
    new: bool,
) -> Steered {
    let Some(backend) = node.backend(index) else { return Steered::here(Verdict::Inconsistent) };
    if packet.ttl <= 1 {
        // A peer's last round ends here, and the stack's reset tells the client; any other frame
        // has run out of hops.
        let verdict = if from_peer { Verdict::Nobody } else { Verdict::TtlExceeded };
        return Steered::here(verdict);
    }
    if leaves_its_vlan(frame, packet.network, backend.ifindex) {
        return Steered::here(Verdict::OtherVlan);
    }
    if let Some(mtu) = too_large(frame, node, packet, backend.ifindex) {
        return Steered { interface: mtu as u32, ..Steered::here(Verdict::TooBig) };
    }
    node.count_backend(index, frame.length(), new);
    if new && !from_peer && !packet.is_udp() {
        passive::sent(frame, node, packet, index);
    }
    match carry(frame, packet, backend, ttl) {
        Some(()) => Steered { verdict, interface: backend.ifindex, backend: index },
        None => Steered::here(Verdict::Truncated),
    }
}

#[inline(always)]
fn translate_new<F: Frame, N: Node>(
    frame: &mut F,
    node: &N,
    packet: &Packet,
    ethernet: &Ethernet,
    index: u32,
) -> Steered {
    let Some(backend) = node.backend(index) else { return Steered::here(Verdict::Inconsistent) };
    if packet.ttl <= 1 {
        // Before it takes a port for nothing.
        return Steered::here(Verdict::TtlExceeded);
    }
    if leaves_its_vlan(frame, packet.network, backend.ifindex) {
        return Steered::here(Verdict::OtherVlan);
    }
    if let Err(verdict) = nat::open(node, packet, ethernet, frame.interface_index(), index, backend)
    {
        return Steered::here(verdict);
    }
    let Some(entry) = node.nat_entry(&packet.flow) else {
        return Steered::here(Verdict::Inconsistent);
    };
    node.count_backend(index, frame.length(), packet.is_new());
    if packet.is_new() && !packet.is_udp() {
        passive::sent(frame, node, packet, index);
    }
    nat::translate(frame, node, packet, entry, Verdict::NatNew)
}
