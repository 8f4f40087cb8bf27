//! A packet whose headers one program looked for, for the program that it goes on with.

use crate::flow::FlowKey;

/// The value of the per-CPU map `deep`. It holds for one frame: nothing else runs on the CPU between the
/// two programs.
#[repr(C, align(4))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DeepPacket {
    /// The tuple, client to service.
    pub flow: FlowKey,
    /// Of a first fragment, as it lies in the header.
    pub id: u32,
    /// Offset of the IPv4 or IPv6 header.
    pub network: u8,
    /// Offset of the TCP or UDP header.
    pub transport: u8,
    /// 0 for UDP.
    pub tcp_flags: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// 1 for IPv4.
    pub v4: u8,
    /// 1 for the first fragment of several.
    pub first: u8,
    pub padding: [u8; 2],
}

const _: () = assert!(size_of::<DeepPacket>() == 52);
