//! The synthetic packet: a frame that goes through the loaded program once a second and comes back
//! with its verdict only if the program finds interface, service, table and backends in the maps.
//! Pure.
//!
//! It is a segment that answers nothing (SYN and ACK) with a TTL of 1, from an address that no
//! client has. The program goes the whole way of a segment of a connection, to the backend that it
//! would be sent to, and drops it there, for it may not go on. That makes no flow and counts at no
//! backend. It comes from the MAC that it goes to, by which the program knows it: its verdict is
//! `trial`, and no client's.

use std::net::SocketAddr;

use lb_common::service;

use crate::plan::PlannedService;
use crate::plan::lists::{SYNTHETIC_V4, SYNTHETIC_V6};

/// Services that are tried in one second: the first ones of the file.
const SERVICES_MAX: usize = 32;

const SOURCE_PORT: u16 = 9;
const TTL: u8 = 1;
const SYN_ACK: u8 = 0x12;
const PROTOCOL_TCP: u8 = 6;

/// Where packets are to go: to each service of TCP. A datagram would count as a client's.
pub fn targets(services: &[PlannedService]) -> Vec<SocketAddr> {
    services
        .iter()
        .filter(|planned| planned.key.protocol == service::TCP)
        .map(|planned| SocketAddr::new(planned.address, u16::from_be(planned.key.port_be)))
        .take(SERVICES_MAX)
        .collect()
}

/// The frame, from and to the interface's own MAC.
pub fn build(mac: [u8; 6], to: SocketAddr) -> Vec<u8> {
    let mut frame = Vec::with_capacity(74);
    frame.extend([mac, mac].concat());
    match to {
        SocketAddr::V4(to) => {
            frame.extend(0x0800u16.to_be_bytes());
            frame.extend([0x45, 0, 0, 40, 0, 0, 0, 0, TTL, PROTOCOL_TCP, 0, 0]);
            frame.extend(SYNTHETIC_V4.octets());
            frame.extend(to.ip().octets());
        }
        SocketAddr::V6(to) => {
            frame.extend(0x86ddu16.to_be_bytes());
            frame.extend([0x60, 0, 0, 0, 0, 20, PROTOCOL_TCP, TTL]);
            frame.extend(SYNTHETIC_V6.octets());
            frame.extend(to.ip().octets());
        }
    }
    frame.extend(SOURCE_PORT.to_be_bytes());
    frame.extend(to.port().to_be_bytes());
    // Sequence numbers, then the header's length, flags, window, no checksum: nobody receives it.
    frame.extend([0; 8]);
    frame.extend([0x50, SYN_ACK, 0, 0, 0, 0, 0, 0]);
    frame
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lb_common::service::{ServiceKey, TCP, UDP};

    use super::*;
    use crate::plan::SharedTable;

    fn planned(port: u16, protocol: u8) -> PlannedService {
        let address: std::net::IpAddr = [192, 0, 2, 100].into();
        let key =
            ServiceKey { address: address.into(), port_be: port.to_be(), protocol, padding: 0 };
        PlannedService {
            configured: 0,
            address,
            key,
            seed: 1,
            flags: 0,
            table: Arc::new(SharedTable::of_buckets(Arc::from([]))),
            protection: None,
            backends: Vec::new(),
        }
    }

    #[test]
    fn every_service_of_tcp_is_tried_up_to_a_bound_and_none_of_udp() {
        let ports = |services: &[PlannedService]| -> Vec<u16> {
            targets(services).iter().map(SocketAddr::port).collect()
        };
        assert_eq!(ports(&[planned(80, UDP), planned(81, TCP), planned(82, TCP)]), [81, 82]);
        let many: Vec<PlannedService> = (1..=99).map(|port| planned(port, TCP)).collect();
        assert_eq!(ports(&many), (1..=32).collect::<Vec<u16>>());
    }

    #[test]
    fn the_frame_is_a_whole_segment_of_either_family_that_may_not_go_on() {
        for (to, ttl_at, length) in [("192.0.2.1:80", 22, 54), ("[2001:db8::1]:80", 21, 74)] {
            let to: SocketAddr = to.parse().expect("an endpoint");
            let frame = build([2, 0, 0, 0, 0, 1], to);
            assert_eq!((frame.len(), frame[ttl_at]), (length, TTL), "{to}");
            assert_eq!(frame[..6], frame[6..12], "{to}");
            assert_eq!(frame[length - 18..length - 16], 80u16.to_be_bytes(), "{to}");
        }
    }
}
