//! The checksums of a whole packet, computed from nothing (RFC 1071), and the judgement of somebody
//! else, etherparse, on a frame's.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};

/// The checksum of the parts put behind one another; all but the last have an even length.
pub fn of(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u64;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// RFC 9293, 3.1 and RFC 8200, 8.1.
pub fn pseudo_header(from: IpAddr, to: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    let mut header = Vec::new();
    for address in [from, to] {
        match address {
            IpAddr::V4(address) => header.extend(address.octets()),
            IpAddr::V6(address) => header.extend(address.octets()),
        }
    }
    match from {
        IpAddr::V4(_) => {
            header.extend([0, protocol]);
            header.extend((length as u16).to_be_bytes());
        }
        IpAddr::V6(_) => {
            header.extend((length as u32).to_be_bytes());
            header.extend([0, 0, 0, protocol]);
        }
    }
    header
}

/// Says what etherparse finds wrong about a frame's checksums.
///
/// # Errors
/// At the first wrong one, and where etherparse cannot read the frame.
pub fn verify(frame: &[u8]) -> Result<()> {
    let packet = SlicedPacket::from_ethernet(frame).context("etherparse cannot read the frame")?;
    if let Some(NetSlice::Ipv4(ip)) = &packet.net {
        let header = ip.header().to_header();
        let (has, wants) = (header.header_checksum, header.calc_header_checksum());
        ensure!(has == wants, "the IPv4 checksum is {has:#06x}, it ought to be {wants:#06x}");
    }
    let (name, has, wants) = match (&packet.net, &packet.transport) {
        (Some(net), Some(TransportSlice::Tcp(tcp))) => {
            let wants = match net {
                NetSlice::Ipv4(ip) => {
                    let ip = ip.header();
                    tcp.calc_checksum_ipv4(ip.source(), ip.destination())?
                }
                NetSlice::Ipv6(ip) => {
                    let ip = ip.header();
                    tcp.calc_checksum_ipv6(ip.source(), ip.destination())?
                }
                NetSlice::Arp(_) => return Ok(()),
            };
            ("TCP", tcp.checksum(), wants)
        }
        (Some(net), Some(TransportSlice::Udp(udp))) => {
            let header = udp.to_header();
            let wants = match net {
                NetSlice::Ipv4(ip) => {
                    if udp.checksum() == 0 {
                        return Ok(());
                    }
                    let ip = ip.header();
                    header.calc_checksum_ipv4_raw(ip.source(), ip.destination(), udp.payload())?
                }
                NetSlice::Ipv6(ip) => {
                    let ip = ip.header();
                    header.calc_checksum_ipv6_raw(ip.source(), ip.destination(), udp.payload())?
                }
                NetSlice::Arp(_) => return Ok(()),
            };
            ("UDP", udp.checksum(), wants)
        }
        _ => return Ok(()),
    };
    ensure!(has == wants, "the {name} checksum is {has:#06x}, it ought to be {wants:#06x}");
    Ok(())
}
