//! The verdicts of the data path: one counter for each thing that can happen to a packet.
//!
//! This is the one source of their names: the kernel counts by index, metrics, `lbctl` and the
//! documentation print the name.

/// What became of the packet, as far as this program is concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Given to the node's stack unchanged.
    Pass,
    /// Given to a socket on this node.
    Deliver,
    /// Sent on to another machine.
    Forward,
    /// Gone.
    Drop,
    /// A call of one of the node's own processes, not a packet.
    Host,
}

impl Outcome {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Deliver => "deliver",
            Self::Forward => "forward",
            Self::Drop => "drop",
            Self::Host => "host",
        }
    }
}

macro_rules! verdicts {
    ($($(#[doc = $help:literal])+ $variant:ident = $name:literal, $outcome:ident;)*) => {
        /// An index of the per-CPU map `counters`. New ones are added at the end.
        #[repr(u32)]
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Verdict {
            $($(#[doc = $help])+ $variant,)*
        }

        impl Verdict {
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name that metrics and `lbctl` print.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            // Always: a call takes a frame of the little stack that the programs have.
            #[inline(always)]
            pub const fn outcome(self) -> Outcome {
                match self { $(Self::$variant => Outcome::$outcome),* }
            }

            /// One sentence for people.
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => concat!($($help),+)),* }
            }
        }
    };
}

verdicts! {
    /// Neither ARP nor IP, or a frame for another host.
    NotIp = "not_ip", Pass;
    /// The destination is neither a VIP nor a NAT port.
    NotOurs = "not_ours", Pass;
    /// To a VIP, but the frame carries another machine's MAC.
    OtherHost = "other_host", Pass;
    /// To a VIP on a port without a service; passed to the stack.
    NoService = "no_service", Pass;
    /// To a VIP on a port without a service; dropped, as configured.
    NoServiceDropped = "no_service_dropped", Drop;
    /// To a VIP, but too short for its headers; the stack discards it.
    Truncated = "truncated", Pass;
    /// A following fragment to a VIP whose first one was not seen; passed to the stack.
    Fragment = "fragment", Pass;
    /// A new connection for a listener on this node.
    LocalNew = "local_new", Deliver;
    /// A segment for a connection on this node.
    LocalEstablished = "local_established", Deliver;
    /// An acknowledgement with a valid SYN cookie for a listener on this node.
    LocalCookie = "local_cookie", Deliver;
    /// A datagram for a socket on this node.
    LocalUdp = "local_udp", Deliver;
    /// A new connection, carried to another node.
    DirectNew = "direct_new", Forward;
    /// A segment or datagram, carried to the node that comes first.
    DirectEstablished = "direct_established", Forward;
    /// A segment or datagram that did not belong here, carried to the next in rank.
    DirectNext = "direct_next", Forward;
    /// A segment that no living node owned: carried on, its last round begins.
    DirectLast = "direct_last", Forward;
    /// A new flow, translated.
    NatNew = "nat_new", Forward;
    /// A client's packet, translated.
    NatForward = "nat_forward", Forward;
    /// A backend's reply, translated back.
    NatReturn = "nat_return", Forward;
    /// A reply to a NAT port without an entry; dropped, since another node may know it.
    NatUnknown = "nat_unknown", Drop;
    /// No NAT port was free; the stack answers with a reset or an ICMP error.
    NatExhausted = "nat_exhausted", Pass;
    /// No backend accepts new connections; the stack answers with a reset or an ICMP error.
    NoBackend = "no_backend", Pass;
    /// A segment that nobody owns; the stack answers with a reset.
    Nobody = "nobody", Pass;
    /// The TTL or hop limit does not allow another hop.
    TtlExceeded = "ttl_exceeded", Drop;
    /// An ICMP error about a connection on this node.
    IcmpLocal = "icmp_local", Deliver;
    /// An ICMP error about a connection of another node, carried there.
    IcmpDirect = "icmp_direct", Forward;
    /// ICMP to a VIP that quotes no flow of ours.
    IcmpOther = "icmp_other", Pass;
    /// ARP for a VIP that this node holds.
    ArpHeld = "arp_held", Pass;
    /// ARP for a VIP without a lease here.
    ArpNoLease = "arp_no_lease", Drop;
    /// Neighbour discovery for a VIP that this node holds.
    NdHeld = "nd_held", Pass;
    /// Neighbour discovery for a VIP without a lease here.
    NdNoLease = "nd_no_lease", Drop;
    /// An ARP request of this node that named a VIP as its sender without a lease; corrected.
    ArpCorrected = "arp_corrected", Pass;
    /// A neighbour advertisement or announcement of this node for a VIP without a lease.
    AnnounceNoLease = "announce_no_lease", Drop;
    /// A new connection whose listener on this node was found by tc and assigned.
    Assigned = "assigned", Deliver;
    /// A new connection for this node whose listener was gone when tc looked.
    AssignFailed = "assign_failed", Pass;
    /// A datagram whose destination was rewritten for a socket on this node.
    UdpDelivered = "udp_delivered", Deliver;
    /// A reply datagram whose source became the VIP and the service's port.
    UdpReply = "udp_reply", Pass;
    /// A table or backend that the service names is missing: a defect of ours.
    Inconsistent = "inconsistent", Pass;
    /// A process of this node connected to a VIP and was sent to a backend.
    HostConnect = "host_connect", Host;
    /// A process of this node sent a datagram to a VIP, redirected to a backend.
    HostSend = "host_send", Host;
    /// A datagram from a backend, shown to a process of this node as from the VIP.
    HostReceive = "host_receive", Host;
    /// A process of this node used a VIP while no backend accepted.
    HostNoBackend = "host_no_backend", Host;
    /// The map of NAT entries was full; the stack answers with a reset or an ICMP error.
    NatFull = "nat_full", Pass;
    /// To a VIP, by a protocol or extension header that is not steered.
    OtherProtocol = "other_protocol", Pass;
    /// Something that the program needs is missing from the maps: not configured yet.
    NotReady = "not_ready", Pass;
    /// The agent's synthetic packet, which went the whole way to a backend.
    Trial = "trial", Drop;
    /// To or from the MAC of a virtual router without a lease here.
    VirtualMacNoLease = "virtual_mac_no_lease", Drop;
    /// ARP or neighbour discovery of this node for a VIP, with another MAC than its virtual router's.
    AnnounceOtherMac = "announce_other_mac", Drop;
    /// An ICMP error about a translated packet, translated for who sent that.
    IcmpNat = "icmp_nat", Forward;
    /// A following fragment, left to this node's stack as its first one was.
    FragmentLocal = "fragment_local", Deliver;
    /// A following fragment, sent where its first one went.
    FragmentForward = "fragment_forward", Forward;
    /// A packet without a hop left, answered with a time-exceeded.
    IcmpExpired = "icmp_expired", Forward;
    /// A packet larger than where it was to go takes, answered with a too-big.
    IcmpTooBig = "icmp_too_big", Forward;
    /// A packet larger than where it was to go takes, which could not be answered.
    TooBig = "too_big", Drop;
    /// From a source that the service's lists deny.
    Denied = "denied", Drop;
    /// From a source that is on none of the service's lists, one of which allows.
    NotAllowed = "not_allowed", Drop;
    /// A new connection of a source that opened too many of late.
    RateLimited = "rate_limited", Drop;
    /// In a flood, a SYN for a listener on this node: answered by a SYN cookie.
    SynCookie = "syn_cookie", Forward;
    /// In a flood, a SYN that cannot be answered by a SYN cookie.
    SynDropped = "syn_dropped", Drop;
    /// With VLAN tags, and to leave by another interface; passed to the stack, which takes the tags off.
    OtherVlan = "other_vlan", Pass;
    /// A new connection of a source that has as many as it may.
    ConnectionLimited = "connection_limited", Drop;
}

/// Elements of the map `counters`: room for verdicts to come without a new layout.
pub const COUNTERS: usize = 128;

const _: () = assert!(Verdict::ALL.len() <= COUNTERS);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_fit_a_metric_label() {
        for (i, verdict) in Verdict::ALL.iter().enumerate() {
            assert_eq!(*verdict as usize, i);
            assert!(verdict.name().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
            assert!(!Verdict::ALL[..i].iter().any(|v| v.name() == verdict.name()));
        }
    }
}
