//! What the pure half needs of the world: the frame in hand, and the node with its maps and sockets.
//!
//! The kernel half implements both over packet memory, maps and helpers; tests implement them over
//! plain values.

use lb_common::Address;
use lb_common::affinity::Affinity;
use lb_common::backend::Backend;
use lb_common::bucket::Bucket;
use lb_common::checksum::Difference;
use lb_common::connection::Connection;
use lb_common::counter::Verdict;
use lb_common::flow::{Endpoint, FlowKey};
use lb_common::fragment::{Fragment, FragmentKey};
use lb_common::interface::Interface;
use lb_common::nat::NatEntry;
use lb_common::protection::{Protection, SourceKey};
use lb_common::quic::ServerId;
use lb_common::service::{Service, ServiceKey};
use lb_common::settings::Settings;
use lb_common::vip::Vip;

use crate::parse::Packet;
use crate::wire::Mac;

/// The frame in hand.
///
/// Offsets count from its first byte. `T` is one of [`wire`](crate::wire)'s headers or an integer:
/// any bytes are a valid value.
pub trait Frame {
    /// The header at `offset`, or nothing where the frame ends before it does.
    fn load<T: Copy>(&self, offset: usize) -> Option<T>;

    /// Replaces the bytes at `offset`, or nothing where the frame ends before.
    fn store<T: Copy>(&mut self, offset: usize, value: T) -> Option<()>;

    /// Corrects a TCP or UDP checksum at `offset` for replaced fields: `pseudo` of those in the
    /// pseudo-header, `body` of those behind it. A separate operation because a frame whose
    /// checksum the card completes later holds only the pseudo-header's part.
    fn correct_checksum(
        &mut self,
        offset: usize,
        pseudo: Difference,
        body: Difference,
        udp: bool,
    ) -> Option<()>;

    /// Bytes on the wire, Ethernet header included.
    fn length(&self) -> u32;

    /// Index of the interface that it came in on (or leaves by).
    fn interface_index(&self) -> u32;

    /// Makes room for so many bytes before the first.
    fn grow(&mut self, bytes: usize) -> Option<()>;

    /// Makes it so many bytes long.
    fn end_at(&mut self, length: usize) -> Option<()>;

    /// Whether it is one of several that the kernel joined, and will send one by one.
    #[inline(always)]
    fn is_joined(&self) -> bool {
        false
    }

    /// Whether it has a VLAN tag that does not stand in its bytes. For XDP a card's is nowhere to be seen.
    #[inline(always)]
    fn has_tag_aside(&self) -> bool {
        false
    }

    /// Has the stack look at the destination MAC again, which was replaced by the interface's own.
    /// Behind XDP it looks by itself.
    #[inline(always)]
    fn readdressed(&mut self) {}
}

/// What a socket look-up found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    Nobody,
    /// A connection (also one being opened) of this node.
    Connection,
    /// A connection in TIME-WAIT.
    TimeWait,
}

/// Why a NAT entry was not made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InsertError {
    Exists,
    Full,
}

/// The node: its maps, sockets and clock.
pub trait Node {
    fn settings(&self) -> Option<&Settings>;
    fn may_be_ours(&self, address: &Address) -> bool;
    fn interface(&self, index: u32) -> Option<&Interface>;
    fn vip(&self, address: &Address) -> Option<&Vip>;
    fn is_peer(&self, mac: Mac) -> bool;
    fn service(&self, key: &ServiceKey) -> Option<&Service>;
    fn bucket(&self, table: u32, slot: u32) -> Option<&Bucket>;
    fn backend(&self, index: u32) -> Option<&Backend>;

    fn protection(&self, index: u32) -> Option<&Protection>;
    /// What the list says of the source: the value of the longest prefix that has it, or 0.
    fn listed(&self, list: u32, source: &Address) -> u32;
    /// Gives `decide` what is stored for a source, or 0, and stores its answer. Whether it had one.
    fn spend(&self, source: &SourceKey, decide: impl Fn(u64) -> Option<u64>) -> bool;

    /// A connection to a service that limits them.
    fn connection(&self, flow: &FlowKey) -> Option<&Connection>;
    /// Adds one, and counts it. Nothing happens where there is no room.
    fn connection_begin(&self, flow: &FlowKey, connection: &Connection);
    /// Notes a packet of one.
    fn connection_touch(&self, flow: &FlowKey, connection: &Connection, stage: u32);
    /// Ends one, which counts no more.
    fn connection_close(&self, flow: &FlowKey, connection: &Connection);
    /// Forgets one that was closed.
    fn connection_forget(&self, flow: &FlowKey);
    /// How many are open of a source that is counted there; perhaps more.
    fn open_connections(&self, counted: [u32; 2]) -> u64;

    /// Counts a SYN that this node would take, and says whether it is one of a flood, in which more than
    /// one each `interval_ns` come.
    fn syn_flood(&self, interval_ns: u32) -> bool;
    /// Whether the backend's listener is to get a SYN again in a flood; it then gets this one.
    fn leave_syn(&self, index: u32) -> bool;

    /// Counts a SYN that the backend refused, and has the agent told.
    fn note_refused(&self, index: u32);
    /// The same for one that nobody answered.
    fn note_unanswered(&self, index: u32);
    /// Notes a SYN by its [hash](lb_common::passive::syn_hash); whether it came again since nobody answered it.
    fn syn_again(&self, hash: u64) -> bool;

    /// Whose TCP connection a segment with this tuple belongs to; listeners don't count.
    fn tcp_owner(&self, packet: &Packet) -> Owner;
    /// Whether a listener would take a connection from the packet's source at `local`.
    fn tcp_listener(&self, packet: &Packet, local: &Backend) -> bool;
    /// Whether the segment acknowledges a SYN cookie that the listener at `local` sent.
    fn tcp_cookie(&self, packet: &Packet, local: &Backend) -> bool;
    /// Whether a UDP socket would take a datagram at `local`.
    fn udp_socket(&self, packet: &Packet, local: &Backend) -> bool;

    fn nat_entry(&self, key: &FlowKey) -> Option<&NatEntry>;
    fn nat_insert(&self, key: &FlowKey, entry: &NatEntry) -> Result<(), InsertError>;
    fn nat_remove(&self, key: &FlowKey);
    /// Notes that a packet used the entry under `key`.
    fn nat_touch(&self, key: &FlowKey, entry: &NatEntry, seen: u8, now_ns: u64, restart: bool);

    /// Whom the datagrams of a client went to.
    fn affinity(&self, flow: &FlowKey) -> Option<&Affinity>;
    fn affinity_note(&self, flow: &FlowKey, affinity: &Affinity);
    /// Notes one more datagram.
    fn affinity_touch(&self, flow: &FlowKey, affinity: &Affinity);
    /// The place among its service's backends of the server with this id.
    fn server(&self, id: &ServerId) -> Option<u32>;

    /// Notes what a client pushed, if its connection is noted already; whether it is.
    fn flow_touch(&self, flow: &FlowKey, sequence_be: u32, acknowledged_be: u32) -> bool;
    /// Begins to note one.
    fn flow_add(&self, flow: &FlowKey, backend: u32, sequence_be: u32, acknowledged_be: u32);
    /// Forgets one that its client ends.
    fn flow_forget(&self, flow: &FlowKey);

    fn udp_reply(&self, reply: &FlowKey) -> Option<&Endpoint>;
    fn udp_remember(&self, reply: &FlowKey, service: &Endpoint);

    /// What became of the first fragment.
    fn fragment(&self, key: &FragmentKey) -> Option<&Fragment>;
    fn fragment_remember(&self, key: &FragmentKey, first: &Fragment);
    fn fragment_forget(&self, key: &FragmentKey);

    /// Whether this node may send one more ICMP error.
    fn may_answer(&self) -> bool;

    /// Notes that a SYN cookie came back, so that tc looks for them for a while.
    fn note_cookie(&self);
    /// Whether one came back lately.
    fn cookies_about(&self) -> bool;

    /// The monotonic clock, coarse.
    fn now_ns(&self) -> u64;
    fn count(&self, verdict: Verdict);
    fn count_backend(&self, index: u32, bytes: u32, new: bool);
}

/// The kernel's answer to a SYN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SynCookie {
    pub sequence: u32,
    /// The client's largest segment, as the cookie says it.
    pub segment: u16,
}

/// What only XDP can do.
pub trait Cookies {
    /// The cookie for the SYN in hand, whose TCP header has so many bytes, 20 to 60 (the verifier
    /// thinks, to 83).
    fn cookie(&self, packet: &Packet, tcp_length: u64) -> Option<SynCookie>;
    /// The way to the packet's source: destination and source MAC, and the interface. Nothing where it
    /// is not known (yet), or this node forwards nothing.
    fn way(&self, packet: &Packet, interface: u32) -> Option<(Mac, Mac, u32)>;
}

/// What only tc ingress can do.
pub trait Assign {
    /// Hands the segment to the listener at `local`; false where there is none (any more).
    fn assign_listener(&self, packet: &Packet, local: &Backend) -> bool;
}
