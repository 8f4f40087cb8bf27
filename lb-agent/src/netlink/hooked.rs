//! What is hooked into an interface, as rtnetlink shows it: XDP programs by their numbers, and filters of a clsact
//! or ingress qdisc. Links of tc programs (tcx) it does not show.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage, LinkXdp};
use netlink_packet_route::tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcMessage, TcOption};

use super::{Netlink, NetlinkError};

/// Where something is hooked in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HookedAt {
    Xdp,
    Ingress,
    Egress,
}

/// A program, or a filter of another kind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hooked {
    pub at: HookedAt,
    /// Of the program; none for a filter of another kind.
    pub program: Option<u32>,
    /// The filter's kind, such as `bpf` or `u32`; `xdp`.
    pub kind: String,
    /// The filter's.
    pub priority: Option<u16>,
}

impl Netlink {
    /// Everything that is hooked into an interface.
    ///
    /// # Errors
    /// Where the kernel does not answer.
    pub async fn hooked(&self, ifindex: u32) -> Result<Vec<Hooked>, NetlinkError> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let links = self.dump("list links", request).await?;
        let mut hooked = Vec::new();
        for message in &links {
            if let RouteNetlinkMessage::NewLink(link) = message
                && link.header.index == ifindex
            {
                hooked.extend(xdp(link));
            }
        }
        for (at, minor) in
            [(HookedAt::Ingress, TcHandle::MIN_INGRESS), (HookedAt::Egress, TcHandle::MIN_EGRESS)]
        {
            let mut request = TcMessage::default();
            request.header.index = ifindex.cast_signed();
            request.header.parent = TcHandle { major: u16::MAX, minor };
            let request = RouteNetlinkMessage::GetTrafficFilter(request);
            // Without such a qdisc there is nothing to list, which some kernels call an error.
            let Ok(filters) = self.dump("list tc filters", request).await else { continue };
            hooked.extend(filters.iter().filter_map(|message| match message {
                RouteNetlinkMessage::NewTrafficFilter(filter) => self::filter(filter, at),
                _ => None,
            }));
        }
        Ok(hooked)
    }
}

fn xdp(link: &LinkMessage) -> Vec<Hooked> {
    let all = link.attributes.iter().filter_map(|attribute| match attribute {
        LinkAttribute::Xdp(all) => Some(all),
        _ => None,
    });
    let mut programs: Vec<u32> = all
        .flatten()
        .filter_map(|attribute| match attribute {
            LinkXdp::ProgId(id)
            | LinkXdp::DrvProgId(id)
            | LinkXdp::SkbProgId(id)
            | LinkXdp::HwProgId(id) => Some(*id),
            _ => None,
        })
        .filter(|id| *id != 0)
        .collect();
    // The one of the mode is listed once more by itself.
    programs.sort_unstable();
    programs.dedup();
    let hooked = |id| Hooked {
        at: HookedAt::Xdp,
        program: Some(id),
        kind: "xdp".to_owned(),
        priority: None,
    };
    programs.into_iter().map(hooked).collect()
}

/// A filter; none for the head of a chain, which the kernel lists without a handle.
fn filter(message: &TcMessage, at: HookedAt) -> Option<Hooked> {
    if u32::from(message.header.handle) == 0 {
        return None;
    }
    let (mut kind, mut program) = (String::new(), None);
    for attribute in &message.attributes {
        match attribute {
            TcAttribute::Kind(name) => kind.clone_from(name),
            TcAttribute::Options(options) => {
                program = program.or(options.iter().find_map(|option| match option {
                    TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => Some(*id),
                    _ => None,
                }));
            }
            _ => {}
        }
    }
    // The upper half is the priority, the lower one the protocol.
    let priority = u16::try_from(message.header.info >> 16).ok();
    Some(Hooked { at, program, kind, priority })
}
