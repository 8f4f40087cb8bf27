//! A flow as one node tells another of it: what is the same on both. Pure.
//!
//! ```text
//!  0  client    16  address, IPv4 as ::ffff:a.b.c.d
//! 16  vip       16
//! 32  backend   16
//! 48  ports      8  client's, service's, backend's, the VIP's towards the backend; big-endian, as those above
//! 56  protocol   1  6 or 17
//! 57  seen       2  SEEN_* of the client's packets and of the backend's
//! 59  hop        1  whether a MAC follows
//! 60  mac        6  whom replies go to on the VIP's own link
//! 66  silent     4  seconds since a packet used it, big-endian
//! ```

use lb_common::Address;
use lb_common::flow::FlowKey;
use lb_common::nat::{SEEN_DATA, SEEN_FIN, SEEN_RST, SEEN_SYN};
use lb_common::service::{TCP, UDP};

use crate::dataplane::Translation;
use crate::netlink::Mac;

/// Bytes of one.
pub(super) const SIZE: usize = 70;

const SEEN_ALL: u8 = SEEN_SYN | SEEN_DATA | SEEN_FIN | SEEN_RST;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Record {
    pub(super) client: FlowKey,
    pub(super) backend: Address,
    pub(super) backend_port_be: u16,
    /// Of the VIP, towards the backend.
    pub(super) nat_port_be: u16,
    pub(super) seen: [u8; 2],
    /// Whom replies go to, where that is on the link that the VIP is on.
    pub(super) hop: Option<Mac>,
    pub(super) silent_s: u32,
}

impl Record {
    /// `vip_ifindex` is the link that the VIP is on, if any.
    pub(super) fn of(flow: &Translation, vip_ifindex: Option<u32>, now_ns: u64) -> Self {
        let Translation { client, forward, back } = flow;
        let used_ns = forward.last_seen_ns.max(back.last_seen_ns);
        let silent_s = now_ns.saturating_sub(used_ns) / 1_000_000_000;
        Self {
            client: *client,
            backend: forward.destination,
            backend_port_be: forward.destination_port_be,
            nat_port_be: forward.source_port_be,
            seen: [forward.seen, back.seen],
            hop: (vip_ifindex == Some(back.ifindex)).then_some(back.mac),
            silent_s: u32::try_from(silent_s).unwrap_or(u32::MAX),
        }
    }

    pub(super) fn write(&self, to: &mut Vec<u8>) {
        let client = &self.client;
        for address in [client.source, client.destination, self.backend] {
            to.extend(address.octets());
        }
        for port_be in [
            client.source_port_be,
            client.destination_port_be,
            self.backend_port_be,
            self.nat_port_be,
        ] {
            to.extend(port_be.to_ne_bytes());
        }
        to.push(client.protocol);
        to.extend(self.seen);
        to.push(u8::from(self.hop.is_some()));
        to.extend(self.hop.unwrap_or_default());
        to.extend(self.silent_s.to_be_bytes());
    }

    /// None where the bytes are none that [`write`](Self::write) makes.
    pub(super) fn read(bytes: &[u8; SIZE]) -> Option<Self> {
        let address = |at: usize| Some(Address::from_v6(bytes.get(at..at + 16)?.try_into().ok()?));
        let port_be = |at: usize| {
            let port_be = u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?);
            (port_be != 0).then_some(port_be)
        };
        let [source, destination, backend] = [address(0)?, address(16)?, address(32)?];
        let [protocol, client_seen, backend_seen, has_hop] = bytes[56..60].try_into().ok()?;
        let mac: Mac = bytes[60..66].try_into().ok()?;
        let one_family =
            source.is_v4() == destination.is_v4() && destination.is_v4() == backend.is_v4();
        let known = matches!(protocol, TCP | UDP) && (client_seen | backend_seen) & !SEEN_ALL == 0;
        // A group's MAC would send one client's data to everybody.
        let hop = match has_hop {
            0 => (mac == [0; 6]).then_some(None)?,
            1 => (mac[0] & 1 == 0 && mac != [0; 6]).then_some(Some(mac))?,
            _ => return None,
        };
        (one_family && known).then_some(Self {
            client: FlowKey {
                source,
                destination,
                source_port_be: port_be(48)?,
                destination_port_be: port_be(50)?,
                protocol,
                padding: [0; 3],
            },
            backend,
            backend_port_be: port_be(52)?,
            nat_port_be: port_be(54)?,
            seen: [client_seen, backend_seen],
            hop,
            silent_s: u32::from_be_bytes(bytes[66..70].try_into().ok()?),
        })
    }
}
