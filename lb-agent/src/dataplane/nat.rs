//! Which NAT flows are over. Both entries of a flow are judged together and go together.

use std::collections::HashMap;
use std::time::Duration;

use lb_common::flow::FlowKey;
use lb_common::nat::{FROM_CLIENT, NatEntry, SEEN_DATA, SEEN_FIN, SEEN_RST};
use lb_common::service::UDP;

/// How long a flow may be silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatTimeouts {
    /// TCP before both sides were heard.
    pub tcp_opening: Duration,
    /// RFC 5382, REQ-5: at least two hours and four minutes.
    pub tcp_established: Duration,
    /// TCP after a FIN from both sides or a reset.
    pub tcp_closing: Duration,
    pub udp: Duration,
}

/// What a sweep found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Flows that stay.
    pub flows: u64,
    /// Flows that were over.
    pub removed: u64,
}

/// The key of an entry's partner.
pub(super) fn partner(key: &FlowKey, entry: &NatEntry) -> FlowKey {
    FlowKey {
        source: entry.destination,
        destination: entry.source,
        source_port_be: entry.destination_port_be,
        destination_port_be: entry.source_port_be,
        protocol: key.protocol,
        padding: [0; 3],
    }
}

/// The client-side keys of the flows that are over at `now_ns`, with their partners, and the number
/// of flows that are not.
///
/// An entry whose partner is missing is over as soon as it is older than the time that making a
/// pair takes.
pub(super) fn expired(
    entries: &HashMap<FlowKey, NatEntry>,
    timeouts: &NatTimeouts,
    now_ns: u64,
) -> (Vec<(FlowKey, FlowKey)>, u64) {
    let mut over = Vec::new();
    let mut flows = 0;
    for (key, entry) in entries {
        let other_key = partner(key, entry);
        let other = entries.get(&other_key);
        if entry.direction != FROM_CLIENT {
            // Judged with its client's entry, if it has one.
            if other.is_none() && age(entry.last_seen_ns, now_ns) > HALF_PAIR {
                over.push((other_key, *key));
            }
            continue;
        }
        let last_seen = entry.last_seen_ns.max(other.map_or(0, |other| other.last_seen_ns));
        let replied = other.map_or(0, |other| other.seen);
        let limit = match other {
            Some(_) => limit(timeouts, key.protocol, entry.seen, replied),
            None => HALF_PAIR,
        };
        if age(last_seen, now_ns) > limit {
            over.push((*key, other_key));
        } else {
            flows += 1;
        }
    }
    (over, flows)
}

/// Far longer than a program takes from the first to the second entry.
const HALF_PAIR: Duration = Duration::from_secs(5);

fn age(then_ns: u64, now_ns: u64) -> Duration {
    Duration::from_nanos(now_ns.saturating_sub(then_ns))
}

fn limit(timeouts: &NatTimeouts, protocol: u8, sent: u8, replied: u8) -> Duration {
    if protocol == UDP {
        return timeouts.udp;
    }
    let closed = (sent | replied) & SEEN_RST != 0 || sent & replied & SEEN_FIN != 0;
    if closed {
        timeouts.tcp_closing
    } else if sent & SEEN_DATA != 0 && replied & SEEN_DATA != 0 {
        timeouts.tcp_established
    } else {
        timeouts.tcp_opening
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_common::Address;
    use lb_common::nat::{FROM_BACKEND, SEEN_SYN};
    use lb_common::service::TCP;

    const TIMEOUTS: NatTimeouts = NatTimeouts {
        tcp_opening: Duration::from_secs(30),
        tcp_established: Duration::from_secs(7440),
        tcp_closing: Duration::from_secs(60),
        udp: Duration::from_secs(120),
    };
    const SECOND: u64 = 1_000_000_000;

    fn flow(protocol: u8, sent: u8, replied: u8) -> HashMap<FlowKey, NatEntry> {
        let (client, vip, backend) = (
            Address::from_v4([10, 0, 0, 1]),
            Address::from_v4([10, 0, 0, 150]),
            Address::from_v4([10, 0, 0, 9]),
        );
        let key = FlowKey {
            source: client,
            destination: vip,
            source_port_be: 1,
            destination_port_be: 2,
            protocol,
            padding: [0; 3],
        };
        let entry = NatEntry {
            source: vip,
            destination: backend,
            source_port_be: 3,
            destination_port_be: 4,
            ifindex: 1,
            mac: [0; 6],
            direction: FROM_CLIENT,
            seen: sent,
            source_mac: [0; 6],
            padding: [0; 2],
            last_seen_ns: 0,
            backend: 0,
            reserved: 0,
        };
        let reply = NatEntry {
            source: vip,
            destination: client,
            source_port_be: 2,
            destination_port_be: 1,
            direction: FROM_BACKEND,
            seen: replied,
            ..entry
        };
        HashMap::from([(key, entry), (partner(&key, &entry), reply)])
    }

    fn lasts(entries: &HashMap<FlowKey, NatEntry>, seconds: u64) -> bool {
        expired(entries, &TIMEOUTS, seconds * SECOND).0.is_empty()
    }

    #[test]
    fn a_pair_is_symmetric() {
        let entries = flow(TCP, SEEN_SYN, 0);
        for (key, entry) in &entries {
            assert!(entries.contains_key(&partner(key, entry)));
        }
    }

    #[test]
    fn a_flow_lasts_as_long_as_its_state_allows() {
        let cases = [
            (TCP, SEEN_SYN, 0, 30),
            (TCP, SEEN_SYN | SEEN_DATA, SEEN_DATA, 7440),
            (TCP, SEEN_SYN | SEEN_DATA | SEEN_FIN, SEEN_DATA, 7440),
            (TCP, SEEN_SYN | SEEN_DATA | SEEN_FIN, SEEN_DATA | SEEN_FIN, 60),
            (TCP, SEEN_SYN | SEEN_DATA, SEEN_DATA | SEEN_RST, 60),
            (UDP, SEEN_DATA, 0, 120),
        ];
        for (protocol, sent, replied, seconds) in cases {
            let entries = flow(protocol, sent, replied);
            assert!(lasts(&entries, seconds), "{sent:#b} {replied:#b} ended too early");
            assert!(!lasts(&entries, seconds + 1), "{sent:#b} {replied:#b} lasted too long");
        }
    }

    #[test]
    fn both_entries_go_together() {
        let entries = flow(TCP, SEEN_SYN, 0);
        let (over, flows) = expired(&entries, &TIMEOUTS, 31 * SECOND);
        assert_eq!((over.len(), flows), (1, 0));
        let (client, reply) = over[0];
        assert!(entries.contains_key(&client) && entries.contains_key(&reply));
    }

    #[test]
    fn an_entry_without_its_partner_goes_soon() {
        for direction in [FROM_CLIENT, FROM_BACKEND] {
            let mut entries = flow(TCP, SEEN_SYN | SEEN_DATA, SEEN_DATA);
            entries.retain(|_, entry| entry.direction == direction);
            assert!(lasts(&entries, 5));
            assert!(!lasts(&entries, 6));
        }
    }
}
