//! Who speaks to whom on a link, as types of one family. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{LinkError, Reach};

/// All VRRP routers of a link (RFC 9568, 5.1.1.2 and 5.1.2.2).
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);

/// This node's address, and those that it sends to.
#[derive(Debug)]
pub(super) struct Ends<A> {
    pub(super) source: A,
    pub(super) destinations: Vec<A>,
    /// The destination, where that is a group and not peers.
    pub(super) group: Option<A>,
}

impl Ends<Ipv4Addr> {
    pub(super) fn v4(source: Ipv4Addr, reach: &Reach) -> Result<Self, LinkError> {
        Self::new(source, reach, GROUP_V4, |address| match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        })
    }
}

impl Ends<Ipv6Addr> {
    pub(super) fn v6(source: Ipv6Addr, reach: &Reach) -> Result<Self, LinkError> {
        Self::new(source, reach, GROUP_V6, |address| match address {
            IpAddr::V6(address) => Some(address),
            IpAddr::V4(_) => None,
        })
    }
}

impl<A: Copy + Into<IpAddr>> Ends<A> {
    fn new(
        source: A,
        reach: &Reach,
        group: A,
        of_family: impl Fn(IpAddr) -> Option<A>,
    ) -> Result<Self, LinkError> {
        let peers = match reach {
            Reach::Multicast => {
                return Ok(Self { source, destinations: vec![group], group: Some(group) });
            }
            Reach::Unicast(peers) => peers.iter(),
        };
        let own = |&peer| {
            of_family(peer).ok_or(LinkError::Families { source_address: source.into(), peer })
        };
        Ok(Self { source, destinations: peers.map(own).collect::<Result<_, _>>()?, group: None })
    }

    /// What is listened to.
    pub(super) fn heard_at(&self) -> A {
        self.group.unwrap_or(self.source)
    }
}
