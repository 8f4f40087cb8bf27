//! Nodes that disagree: about who is alive, and about the table while a change is rolled out. A
//! segment of an established connection finds its owner all the same.
//!
//! The real steering runs on frames of bytes that go from node to node by their MACs; only maps
//! and sockets are plain values here.

#![expect(unsafe_code, reason = "a frame reads and writes headers as bytes")]

use std::ptr;

use lb_common::Address;
use lb_common::affinity::Affinity;
use lb_common::backend::{ACCEPTS, ALIVE, Backend, Delivery};
use lb_common::bucket::{Bucket, NONE, RANKS};
use lb_common::checksum::Difference;
use lb_common::connection::Connection;
use lb_common::counter::{Outcome, Verdict};
use lb_common::flow::{Endpoint, FlowKey};
use lb_common::fragment::{Fragment, FragmentKey};
use lb_common::interface::Interface;
use lb_common::nat::NatEntry;
use lb_common::protection::{Protection, SourceKey};
use lb_common::quic::ServerId;
use lb_common::service::{HAS_LOCAL, Service, ServiceKey};
use lb_common::settings::{Settings, peer_bit};
use lb_common::vip::Vip;
use lb_ebpf::environment::{Frame, InsertError, Node, Owner};
use lb_ebpf::parse::Packet;
use lb_ebpf::steer::steer;
use lb_ebpf::wire::Mac;

/// Nodes are numbered from 1. Number 0 is the client's router.
const ROUTER: u8 = 0;
const NODES: [u8; 3] = [1, 2, 3];
const INTERFACE: u32 = 7;

const fn mac(node: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, node]
}

fn address(last: u8) -> Address {
    Address::from(std::net::IpAddr::from([192, 168, 139, last]))
}

struct Bytes(Vec<u8>);

impl Bytes {
    /// A bare ACK of a client for VIP:8443.
    fn ack(to: u8) -> Self {
        let mut frame = Vec::new();
        frame.extend(mac(to));
        frame.extend(mac(ROUTER));
        frame.extend([0x08, 0x00]);
        frame.extend([
            0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 192, 168, 139, 20, 192, 168, 139, 150,
        ]);
        frame
            .extend([0x9c, 0x40, 0x20, 0xfb, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0, 0, 0, 0, 0, 0]);
        Self(frame)
    }

    fn destination(&self) -> u8 {
        self.0[5]
    }
}

impl Frame for Bytes {
    fn load<T: Copy>(&self, offset: usize) -> Option<T> {
        let bytes = self.0.get(offset..offset + size_of::<T>())?;
        // SAFETY: as many bytes as T has; the trait demands that any bytes are a valid T.
        Some(unsafe { ptr::read_unaligned(bytes.as_ptr().cast()) })
    }

    fn store<T: Copy>(&mut self, offset: usize, value: T) -> Option<()> {
        let bytes = self.0.get_mut(offset..offset + size_of::<T>())?;
        // SAFETY: as many bytes as T has.
        unsafe { ptr::write_unaligned(bytes.as_mut_ptr().cast(), value) };
        Some(())
    }

    fn correct_checksum(&mut self, _: usize, _: Difference, _: Difference, _: bool) -> Option<()> {
        unreachable!("nothing is translated here")
    }

    fn grow(&mut self, _: usize) -> Option<()> {
        None
    }

    fn end_at(&mut self, _: usize) -> Option<()> {
        None
    }

    fn length(&self) -> u32 {
        self.0.len() as u32
    }

    fn interface_index(&self) -> u32 {
        INTERFACE
    }
}

/// What one node knows.
struct Knows {
    settings: Settings,
    interface: Interface,
    peers: Vec<Mac>,
    service: Service,
    bucket: Bucket,
    backends: Vec<Backend>,
    owns: bool,
}

impl Knows {
    /// `table`: nodes by rank. `alive`: what this node thinks of a node.
    fn new(me: u8, all: &[u8], table: &[u8], alive: impl Fn(u8) -> bool, owns: bool) -> Self {
        let others: Vec<u8> = all.iter().copied().filter(|&node| node != me).collect();
        let mut bucket = Bucket { ranks: [NONE; RANKS] };
        let mut backends = Vec::new();
        for (rank, &node) in table.iter().enumerate() {
            bucket.ranks[rank] = rank as u16;
            let local = node == me;
            backends.push(Backend {
                address: address(132 + node),
                mac: if local { [0; 6] } else { mac(node) },
                source_mac: mac(me),
                ifindex: INTERFACE,
                delivery: if local { Delivery::Local } else { Delivery::Direct } as u8,
                state: if alive(node) { ALIVE | ACCEPTS } else { 0 },
                ..Backend::EMPTY
            });
        }
        Self {
            settings: Settings {
                peers: others.iter().fold(0, |bits, &node| bits | peer_bit(&mac(node))),
                ..Settings::default()
            },
            interface: Interface { ifindex: INTERFACE, mac: mac(me), ..Interface::default() },
            peers: others.iter().map(|&node| Mac::from_bytes(mac(node))).collect(),
            service: Service {
                seed: 0,
                table: 0,
                slots: 1,
                backends: 0,
                flags: if table.contains(&me) { HAS_LOCAL } else { 0 },
                backend_count: table.len() as u32,
                protection: 0,
            },
            bucket,
            backends,
            owns,
        }
    }
}

impl Node for Knows {
    fn settings(&self) -> Option<&Settings> {
        Some(&self.settings)
    }
    fn may_be_ours(&self, asked: &Address) -> bool {
        *asked == address(150)
    }
    fn interface(&self, _: u32) -> Option<&Interface> {
        Some(&self.interface)
    }
    fn vip(&self, _: &Address) -> Option<&Vip> {
        None
    }
    fn is_peer(&self, mac: Mac) -> bool {
        self.peers.contains(&mac)
    }
    fn service(&self, _: &ServiceKey) -> Option<&Service> {
        Some(&self.service)
    }
    fn bucket(&self, _: u32, _: u32) -> Option<&Bucket> {
        Some(&self.bucket)
    }
    fn backend(&self, index: u32) -> Option<&Backend> {
        self.backends.get(index as usize)
    }
    fn protection(&self, _: u32) -> Option<&Protection> {
        None
    }
    fn listed(&self, _: u32, _: &Address) -> u32 {
        unreachable!("nothing is protected here")
    }
    fn spend(&self, _: &SourceKey, _: impl Fn(u64) -> Option<u64>) -> bool {
        unreachable!("nothing is protected here")
    }
    fn connection(&self, _: &FlowKey) -> Option<&Connection> {
        unreachable!("nothing is protected here")
    }
    fn connection_begin(&self, _: &FlowKey, _: &Connection) {}
    fn connection_touch(&self, _: &FlowKey, _: &Connection, _: u32) {}
    fn connection_close(&self, _: &FlowKey, _: &Connection) {}
    fn connection_forget(&self, _: &FlowKey) {}
    fn open_connections(&self, _: [u32; 2]) -> u64 {
        unreachable!("nothing is protected here")
    }
    fn syn_flood(&self, _: u32) -> bool {
        false
    }
    fn leave_syn(&self, _: u32) -> bool {
        false
    }
    fn note_refused(&self, _: u32) {}
    fn note_unanswered(&self, _: u32) {}
    fn syn_again(&self, _: u64) -> bool {
        false
    }
    fn tcp_owner(&self, _: &Packet) -> Owner {
        if self.owns { Owner::Connection } else { Owner::Nobody }
    }
    fn tcp_listener(&self, _: &Packet, _: &Backend) -> bool {
        true
    }
    fn tcp_cookie(&self, _: &Packet, _: &Backend) -> bool {
        false
    }
    fn udp_socket(&self, _: &Packet, _: &Backend) -> bool {
        false
    }
    fn nat_entry(&self, _: &FlowKey) -> Option<&NatEntry> {
        None
    }
    fn nat_insert(&self, _: &FlowKey, _: &NatEntry) -> Result<(), InsertError> {
        unreachable!("nothing is translated here")
    }
    fn nat_remove(&self, _: &FlowKey) {}
    fn nat_touch(&self, _: &FlowKey, _: &NatEntry, _: u8, _: u64, _: bool) {}
    fn affinity(&self, _: &FlowKey) -> Option<&Affinity> {
        None
    }
    fn affinity_note(&self, _: &FlowKey, _: &Affinity) {}
    fn affinity_touch(&self, _: &FlowKey, _: &Affinity) {}
    fn flow_touch(&self, _: &FlowKey, _: u32, _: u32) -> bool {
        false
    }
    fn flow_add(&self, _: &FlowKey, _: u32, _: u32, _: u32) {}
    fn flow_forget(&self, _: &FlowKey) {}
    fn server(&self, _: &ServerId) -> Option<u32> {
        None
    }

    fn udp_reply(&self, _: &FlowKey) -> Option<&Endpoint> {
        None
    }
    fn udp_remember(&self, _: &FlowKey, _: &Endpoint) {}
    fn fragment(&self, _: &FragmentKey) -> Option<&Fragment> {
        None
    }
    fn fragment_remember(&self, _: &FragmentKey, _: &Fragment) {}
    fn fragment_forget(&self, _: &FragmentKey) {}
    fn may_answer(&self) -> bool {
        false
    }
    fn note_cookie(&self) {}
    fn cookies_about(&self) -> bool {
        false
    }
    fn now_ns(&self) -> u64 {
        0
    }
    fn count(&self, _: Verdict) {}
    fn count_backend(&self, _: u32, _: u32, _: bool) {}
}

/// Sends an ACK to `start` and follows it from node to node: where it ended, how, and the way.
fn follow(nodes: &[Knows], start: u8, dead: Option<u8>) -> (Option<Verdict>, Vec<u8>) {
    follow_while(start, dead, |_| nodes)
}

/// The same, where what the nodes know depends on how far it has come.
fn follow_while<'n>(
    start: u8,
    dead: Option<u8>,
    nodes_at: impl Fn(usize) -> &'n [Knows],
) -> (Option<Verdict>, Vec<u8>) {
    let mut frame = Bytes::ack(start);
    let mut way = Vec::new();
    loop {
        let nodes = nodes_at(way.len());
        let at = frame.destination();
        way.push(at);
        if dead == Some(at) {
            return (None, way);
        }
        assert!(way.len() <= 70, "the TTL bounds every way: {way:?}");
        let verdict = steer(&mut frame, &nodes[usize::from(at) - 1]).verdict;
        if verdict.outcome() != Outcome::Forward {
            return (Some(verdict), way);
        }
    }
}

/// It ended at the owner's socket.
fn assert_found((end, way): (Option<Verdict>, Vec<u8>), owner: u8, told: std::fmt::Arguments<'_>) {
    assert_eq!(end, Some(Verdict::LocalEstablished), "{told}, by {way:?}");
    assert_eq!(way.last(), Some(&owner), "{told}, by {way:?}");
}

fn permutations(of: &[u8]) -> Vec<Vec<u8>> {
    if of.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for &first in of {
        let rest: Vec<u8> = of.iter().copied().filter(|&node| node != first).collect();
        for mut tail in permutations(&rest) {
            tail.insert(0, first);
            all.push(tail);
        }
    }
    all
}

/// Which nodes think which dead, as bits: bit `3 * (who - 1) + (whom - 1)`.
fn thinks_alive(opinion: u32, who: u8, whom: u8) -> bool {
    who == whom || opinion & (1 << (3 * (who - 1) + (whom - 1))) == 0
}

/// Every opinion in which no node doubts itself.
fn opinions() -> impl Iterator<Item = u32> {
    (0..1 << 9).filter(|opinion| opinion & 0b100_010_001 == 0)
}

/// The tables of three nodes, each of which has one of two: the other where its bit is set.
fn mixed<'t>(one: &'t [u8], other: &'t [u8], mix: u32) -> [&'t [u8]; 3] {
    [0, 1, 2].map(|bit| if mix >> bit & 1 == 0 { one } else { other })
}

fn three(tables: [&[u8]; 3], opinion: u32, owner: Option<u8>) -> Vec<Knows> {
    let nodes = NODES.iter().zip(tables);
    nodes
        .map(|(&me, table)| {
            let alive = |whom| thinks_alive(opinion, me, whom);
            Knows::new(me, &NODES, table, alive, owner == Some(me))
        })
        .collect()
}

#[test]
fn three_nodes_find_the_owner_whoever_they_think_dead() {
    for table in permutations(&NODES) {
        for opinion in opinions() {
            for owner in NODES {
                for start in NODES {
                    let nodes = three([&table; 3], opinion, Some(owner));
                    let told = format_args!("{table:?}, opinion {opinion:#b}");
                    assert_found(follow(&nodes, start, None), owner, told);
                }
            }
        }
    }
}

#[test]
fn three_nodes_find_the_owner_while_a_backend_leaves_or_joins() {
    for changing in NODES {
        let remaining: Vec<u8> = NODES.into_iter().filter(|&node| node != changing).collect();
        for whole in permutations(&NODES) {
            for smaller in permutations(&remaining) {
                for mix in 0..8 {
                    let tables = mixed(&whole, &smaller, mix);
                    for opinion in opinions() {
                        for &owner in &remaining {
                            for start in NODES {
                                let nodes = three(tables, opinion, Some(owner));
                                let told = format_args!("{tables:?}, opinion {opinion:#b}");
                                assert_found(follow(&nodes, start, None), owner, told);
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_dead_node_stands_in_nobodys_way_once_all_know_of_it() {
    for table in permutations(&NODES) {
        for dead in NODES {
            let opinion = NODES
                .into_iter()
                .filter(|&who| who != dead)
                .fold(0, |opinion, who| opinion | 1 << (3 * (who - 1) + (dead - 1)));
            let living = || NODES.into_iter().filter(|&node| node != dead);
            for owner in living() {
                for start in living() {
                    let nodes = three([&table; 3], opinion, Some(owner));
                    let (end, way) = follow(&nodes, start, Some(dead));
                    assert_eq!(end, Some(Verdict::LocalEstablished), "{table:?} by {way:?}");
                    assert_eq!(way.last(), Some(&owner));
                }
            }
        }
    }
}

/// A node whose checks all fail, because it has no time for them or its link is bad, suspects all
/// the others at once. With as many nodes as a bucket ranks, too, that breaks nothing.
#[test]
fn one_node_that_suspects_all_others_breaks_nothing() {
    let all: Vec<u8> = (1..=RANKS as u8).collect();
    for shift in 0..all.len() {
        for stride in [1, 3, 5, 7] {
            let table: Vec<u8> =
                (0..all.len()).map(|rank| all[(shift + rank * stride) % all.len()]).collect();
            for &gone in &all {
                let smaller: Vec<u8> = table.iter().copied().filter(|&n| n != gone).collect();
                for &sick in &all {
                    for &start in &all {
                        for mixed in [false, true] {
                            let owner = if table[0] == gone { smaller[0] } else { table[0] };
                            let nodes: Vec<Knows> = all
                                .iter()
                                .map(|&me| {
                                    let newer = mixed && (me == gone || me % 2 == 0);
                                    let table = if newer { &smaller } else { &table };
                                    let alive = |whom| me != sick || whom == me;
                                    Knows::new(me, &all, table, alive, me == owner)
                                })
                                .collect();
                            let (end, way) = follow(&nodes, start, None);
                            let seen = format!("{table:?} without {gone}, sick {sick}, {way:?}");
                            assert_eq!(end, Some(Verdict::LocalEstablished), "{seen}");
                            assert_eq!(way.last(), Some(&owner), "{seen}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn what_nobody_owns_is_refused_after_two_rounds_at_most() {
    for table in permutations(&NODES) {
        for opinion in opinions() {
            for start in NODES {
                let nodes = three([&table; 3], opinion, None);
                let (end, way) = follow(&nodes, start, None);
                assert_eq!(end, Some(Verdict::Nobody), "{table:?}, {opinion:#b}, by {way:?}");
                // Once round, and once more with a TTL of three; the first is the client's own.
                assert!(way.len() <= 1 + 3 + 3, "{table:?}, {opinion:#b}, by {way:?}");
            }
        }
    }
}

/// Another table size or another hash: every node has every backend, and ranks it elsewhere.
#[test]
fn three_nodes_find_the_owner_while_their_ranks_change() {
    for one in permutations(&NODES) {
        for other in permutations(&NODES) {
            for mix in 0..8 {
                let tables = mixed(&one, &other, mix);
                for opinion in opinions() {
                    for owner in NODES {
                        for start in NODES {
                            let nodes = three(tables, opinion, Some(owner));
                            let told = format_args!("{tables:?}, opinion {opinion:#b}");
                            assert_found(follow(&nodes, start, None), owner, told);
                        }
                    }
                }
            }
        }
    }
}

/// A node gets its new table while the segment is on its way.
#[test]
fn three_nodes_find_the_owner_when_ranks_change_under_way() {
    for one in permutations(&NODES) {
        for other in permutations(&NODES) {
            for mix in 0..8u32 {
                for changed in 0..3u32 {
                    let tables = |mix| mixed(&one, &other, mix);
                    for owner in NODES {
                        let before = three(tables(mix), 0, Some(owner));
                        let after = three(tables(mix ^ 1 << changed), 0, Some(owner));
                        for start in NODES {
                            for when in 1..8 {
                                let nodes_at =
                                    |hop| if hop < when { &before[..] } else { &after[..] };
                                let told = format_args!("{one:?}, {other:?}, {mix:#b}");
                                assert_found(follow_while(start, None, nodes_at), owner, told);
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn what_nobody_owns_is_refused_two_frames_later_while_ranks_change() {
    for one in permutations(&NODES) {
        for other in permutations(&NODES) {
            for mix in 0..8 {
                for opinion in opinions() {
                    for start in NODES {
                        let nodes = three(mixed(&one, &other, mix), opinion, None);
                        let (end, way) = follow(&nodes, start, None);
                        assert_eq!(end, Some(Verdict::Nobody), "{one:?}, {other:?}, by {way:?}");
                        assert!(way.len() <= 1 + 3 + 3 + 2, "{one:?}, {other:?}, by {way:?}");
                    }
                }
            }
        }
    }
}
