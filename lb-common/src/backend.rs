//! One backend of one service as the data path sees it: where it is, how to reach it, whether it
//! may be used.

use crate::Address;

/// How packets reach a backend.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Delivery {
    /// Cannot be reached now (its neighbour is not resolved): skipped.
    None = 0,
    /// Listens on this node: handed to its socket, nothing rewritten.
    Local = 1,
    /// On a node that runs the agent, on the same L2: carried there by MAC.
    Direct = 2,
    /// Runs nothing of ours: full NAT.
    Nat = 3,
    /// On a node with agent behind a router. Reserved; the program treats it as [`None`](Self::None).
    Tunnel = 4,
}

/// An index that no backend has.
pub const NO_BACKEND: u32 = u32::MAX;

/// The backend is thought to be alive: it gets the segments of established connections.
pub const ALIVE: u8 = 1;
/// The backend takes new connections. Without it, but [`ALIVE`], it is draining.
pub const ACCEPTS: u8 = 2;

/// The [reluctance](Backend::reluctance) of a backend that takes no client while another one does.
pub const RELUCTANT: u32 = 1 << 16;

/// The value of the map `backends`, at index [`Service::backends`](crate::service::Service) plus
/// the relative index that a bucket names.
///
/// `mac`, `delivery` and `state` fill one aligned word, so that a change of health or of a
/// neighbour is one store. An index is never given another address or port while a table that a
/// packet may still read refers to it.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Backend {
    pub address: Address,
    /// The next hop's MAC: the backend's own, its node's, or a router's.
    pub mac: [u8; 6],
    /// A [`Delivery`].
    pub delivery: u8,
    /// [`ALIVE`] and [`ACCEPTS`].
    pub state: u8,
    /// The port it listens on.
    pub port_be: u16,
    /// This node's MAC on `ifindex`.
    pub source_mac: [u8; 6],
    /// The interface towards the next hop.
    pub ifindex: u32,
    /// While it starts slowly: new connections of clients whose [chance](crate::bucket::chance) is below this go
    /// to a later rank, if one accepts them. From [`RELUCTANT`] down to 0, as it takes more and more.
    pub reluctance: u32,
    /// Room for the outer address of a tunnel; unspecified.
    pub tunnel: Address,
    /// Room; zero.
    pub reserved_tail: [u8; 8],
}

impl Backend {
    /// An index that nothing uses: skipped by every packet.
    pub const EMPTY: Self = Self {
        address: Address::UNSPECIFIED,
        mac: [0; 6],
        delivery: Delivery::None as u8,
        state: 0,
        port_be: 0,
        source_mac: [0; 6],
        ifindex: 0,
        reluctance: 0,
        tunnel: Address::UNSPECIFIED,
        reserved_tail: [0; 8],
    };
}

/// The value of the per-CPU map `backend_counters`, by the same index as `backends`.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BackendCounters {
    /// New connections (SYNs, and datagrams but those of a NAT flow that has its entry) steered to it by
    /// this node.
    pub connections: u64,
    /// Packets steered to it by this node, the SYNs among them.
    pub packets: u64,
    /// Their bytes on the wire, Ethernet header included.
    pub bytes: u64,
}

const _: () = assert!(size_of::<Backend>() == 64);
const _: () = assert!(core::mem::offset_of!(Backend, mac) % 8 == 0);
const _: () = assert!(core::mem::offset_of!(Backend, reluctance) % 4 == 0);
const _: () = assert!(size_of::<BackendCounters>() == 24);
