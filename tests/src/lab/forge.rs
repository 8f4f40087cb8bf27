//! Frames that no honest stack sends: a packet of VRRP from any sender, with any TTL.

use std::net::Ipv4Addr;

use anyhow::Result;
use lb_agent::vrrp::packet::PROTOCOL;

use super::Host;
use crate::packet::checksum;

/// All VRRP routers of a link (RFC 9568, 5.1.1.2), as IPv4 and Ethernet have it.
pub const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
const GROUP_MAC: [u8; 6] = [0x01, 0x00, 0x5e, 0x00, 0x00, 0x12];

/// Bytes of an IPv4 header without options.
const HEADER_BYTES: u16 = 20;

impl Host {
    /// Sends a VRRP packet to the group from this machine's interface, and so from its MAC, in the
    /// name of `source`.
    ///
    /// # Errors
    /// Where the interface is missing or down.
    pub fn forge_vrrp(
        &self,
        interface: &str,
        source: Ipv4Addr,
        ttl: u8,
        payload: &[u8],
    ) -> Result<()> {
        let mac = self.mac(interface)?;
        let length = HEADER_BYTES + u16::try_from(payload.len())?;
        let mut header = vec![0x45, 0xc0];
        header.extend(length.to_be_bytes());
        header.extend([0, 0, 0, 0, ttl, PROTOCOL, 0, 0]);
        header.extend(source.octets());
        header.extend(GROUP.octets());
        let sum = checksum::of(&[&header]);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        let frame = [&GROUP_MAC, &mac, &[0x08, 0x00][..], &header, payload].concat();
        Ok(self.link_socket(interface)?.send(&frame)?)
    }
}
