//! What routers say of themselves in a recorded frame: advertisements of VRRP, and answers to who
//! has an address. Read by itself, so that the agent's own reading proves nothing here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{IpNumber, NetSlice, SlicedPacket};

use super::Frame;
use crate::lab::Mac;

/// The head of an advertisement of either version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Advertisement {
    pub source: IpAddr,
    pub version: u8,
    pub router_id: u8,
    /// 0 is a resignation.
    pub priority: u8,
}

/// Of IPv4 and IPv6 alike.
const VRRP: IpNumber = IpNumber(112);
const ARP_REPLY: [u8; 2] = [0, 2];
const ICMPV6: u8 = 58;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

impl Frame {
    /// None for a frame that is no advertisement.
    pub fn advertisement(&self) -> Option<Advertisement> {
        let sliced = SlicedPacket::from_ethernet(&self.bytes).ok()?;
        let (source, number, payload) = match sliced.net.as_ref()? {
            NetSlice::Ipv4(ip) => {
                let payload = ip.payload();
                (ip.header().source_addr().into(), payload.ip_number, payload.payload)
            }
            NetSlice::Ipv6(ip) => {
                let payload = ip.payload();
                (ip.header().source_addr().into(), payload.ip_number, payload.payload)
            }
            NetSlice::Arp(_) => return None,
        };
        let [kind, router_id, priority, ..] = *payload else { return None };
        (number == VRRP && kind & 0x0f == 1).then_some(Advertisement {
            source,
            version: kind >> 4,
            router_id,
            priority,
        })
    }

    /// Whose MAC an address has, by the answer to one who asked.
    pub fn answer(&self) -> Option<(IpAddr, Mac)> {
        match self.claim()? {
            Claim { to_all: false, is_reply: true, address, mac, .. } => Some((address, mac)),
            _ => None,
        }
    }

    /// The address that a machine tells everybody to have: gratuitous ARP, an unsolicited neighbour
    /// advertisement.
    pub fn announcement(&self) -> Option<IpAddr> {
        match self.claim()? {
            Claim { to_all: true, about_itself: true, address, .. } => Some(address),
            _ => None,
        }
    }

    fn claim(&self) -> Option<Claim> {
        let bytes = &self.bytes;
        let to_all = self.destination_mac()?[0] & 1 == 1;
        match bytes.get(12..14)? {
            [0x08, 0x06] => {
                let address: [u8; 4] = bytes.get(28..32)?.try_into().ok()?;
                Some(Claim {
                    to_all,
                    is_reply: bytes.get(20..22)? == ARP_REPLY,
                    about_itself: bytes.get(38..42)? == address,
                    address: Ipv4Addr::from(address).into(),
                    mac: bytes.get(22..28)?.try_into().ok()?,
                })
            }
            // No options between the IPv6 header and ICMPv6.
            [0x86, 0xdd] if bytes.get(20) == Some(&ICMPV6) => {
                let address: [u8; 16] = bytes.get(62..78)?.try_into().ok()?;
                (bytes.get(54) == Some(&NEIGHBOUR_ADVERTISEMENT)).then_some(Claim {
                    to_all,
                    is_reply: true,
                    about_itself: true,
                    address: Ipv6Addr::from(address).into(),
                    mac: self.source_mac()?,
                })
            }
            _ => None,
        }
    }
}

/// An ARP packet or a neighbour advertisement: who has an address.
struct Claim {
    to_all: bool,
    is_reply: bool,
    /// Not a question about another address.
    about_itself: bool,
    address: IpAddr,
    mac: Mac,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use etherparse::PacketBuilder;

    use super::*;
    use crate::lab::capture::Direction;

    fn frame(bytes: Vec<u8>) -> Frame {
        Frame { at: Duration::ZERO, direction: Direction::ToHost, bytes }
    }

    #[test]
    fn an_advertisement_is_told_from_other_packets() {
        let ip = |number: u8, payload: &[u8]| {
            let mut bytes = Vec::new();
            PacketBuilder::ethernet2([1; 6], [2; 6])
                .ipv4([192, 0, 2, 1], [224, 0, 0, 18], 255)
                .write(&mut bytes, number.into(), payload)
                .unwrap();
            frame(bytes)
        };
        let advertisement = ip(112, &[0x21, 51, 90, 1, 1, 2, 0, 0]).advertisement().unwrap();
        assert_eq!(advertisement.source.to_string(), "192.0.2.1");
        let head = (advertisement.version, advertisement.router_id, advertisement.priority);
        assert_eq!(head, (2, 51, 90));
        assert_eq!(ip(113, &[0x21, 51, 90, 1, 1, 2, 0, 0]).advertisement(), None);
        assert_eq!(ip(112, &[0x21, 51]).advertisement(), None);
    }

    #[test]
    fn an_answer_to_one_is_told_from_an_announcement_to_all() {
        let arp = |destination: [u8; 6], operation: u8, asked: u8| {
            let mut bytes = Vec::from(destination);
            bytes.extend([2; 6]);
            bytes.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
            bytes.extend([2, 2, 2, 2, 2, 2, 192, 0, 2, 7]);
            bytes.extend([4, 4, 4, 4, 4, 4, 192, 0, 2, asked]);
            frame(bytes)
        };
        let address = "192.0.2.7".parse().unwrap();
        let answer = arp([4; 6], 2, 9);
        assert_eq!((answer.answer(), answer.announcement()), (Some((address, [2; 6])), None));
        for operation in [1, 2] {
            let gratuitous = arp([0xff; 6], operation, 7);
            assert_eq!((gratuitous.answer(), gratuitous.announcement()), (None, Some(address)));
        }
        for question in [arp([0xff; 6], 1, 9), arp([4; 6], 1, 9), frame(vec![4; 30])] {
            assert_eq!((question.answer(), question.announcement()), (None, None));
        }
    }
}
