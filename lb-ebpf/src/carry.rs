//! Carrying a frame to another node: MACs and TTL change, nothing else ("direct").

use lb_common::backend::Backend;
use lb_common::checksum;

use crate::environment::Frame;
use crate::parse::Packet;
use crate::wire::{Ipv4, Ipv6, Mac};

/// Addresses the frame to the backend's next hop and gives it this TTL or hop limit.
#[inline(always)]
pub fn carry<F: Frame>(frame: &mut F, packet: &Packet, backend: &Backend, ttl: u8) -> Option<()> {
    set_ttl(frame, packet, ttl)?;
    address(frame, Mac::from_bytes(backend.mac), Mac::from_bytes(backend.source_mac))
}

/// Sets the frame's MACs.
#[inline(always)]
pub fn address<F: Frame>(frame: &mut F, to: Mac, from: Mac) -> Option<()> {
    frame.store(0, [to, from])
}

#[inline(always)]
fn set_ttl<F: Frame>(frame: &mut F, packet: &Packet, ttl: u8) -> Option<()> {
    if packet.v4 {
        let ip = frame.load::<Ipv4>(packet.network)?;
        let sum = checksum::ttl_replaced(ip.checksum, ip.ttl, ttl, ip.protocol);
        frame.store(packet.network + core::mem::offset_of!(Ipv4, ttl), ttl)?;
        frame.store(packet.network + core::mem::offset_of!(Ipv4, checksum), sum)
    } else {
        frame.store(packet.network + core::mem::offset_of!(Ipv6, hop_limit), ttl)
    }
}
