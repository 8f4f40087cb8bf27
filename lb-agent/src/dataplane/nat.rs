//! Which NAT flows are over. Both entries of a flow are judged together and go together.
//!
//! A map of millions of entries is not copied for that: of each entry 16 bytes are kept, by which the
//! two of a flow find one another.

use std::time::Duration;

use lb_common::flow::FlowKey;
use lb_common::hash::nat_port_hash;
use lb_common::nat::{FROM_CLIENT, NatEntry, SEEN_DATA, SEEN_FIN, SEEN_RST, SEEN_SYN};
use lb_common::service::UDP;
use lb_common::settings::Settings;

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

/// How the port that is tried first follows from a client's tuple, as in the programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FirstPort {
    pub key: u64,
    /// The range's.
    pub first: u16,
    pub count: u16,
}

impl From<&Settings> for FirstPort {
    fn from(settings: &Settings) -> Self {
        let Settings { nat_key, nat_port_first, nat_port_count, .. } = *settings;
        Self { key: nat_key, first: nat_port_first, count: nat_port_count }
    }
}

impl FirstPort {
    fn of(&self, client: &FlowKey) -> u16 {
        let high = nat_port_hash(self.key, client) >> 32;
        self.first.wrapping_add(((high * u64::from(self.count)) >> 32) as u16)
    }

    /// Whether a flow goes on by the port that it had before, whose entries were made for a segment in its middle,
    /// as after a move of the VIP; none of other flows, and of the entries of replies.
    pub(super) fn goes_on(&self, key: &FlowKey, entry: &NatEntry) -> Option<bool> {
        let in_its_middle = entry.direction == FROM_CLIENT
            && key.protocol != UDP
            && entry.seen & (SEEN_SYN | SEEN_DATA) == SEEN_DATA;
        in_its_middle.then(|| u16::from_be(entry.source_port_be) == self.of(key))
    }
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

/// The key of the entry of a flow's packets from the client, of either of its entries.
pub(super) fn client_key(key: &FlowKey, entry: &NatEntry) -> FlowKey {
    if entry.direction == FROM_CLIENT { *key } else { partner(key, entry) }
}

/// A number for a flow, the same of both its entries. Two flows have the same once in 2^64 pairs; then
/// they are judged as one, which [`Census::over`] allows for.
pub(super) fn number(client: &FlowKey) -> u64 {
    nat_port_hash(NUMBERS, client)
}

/// "numbers!" read as a number: nothing depends on it.
const NUMBERS: u64 = 0x6e75_6d62_6572_7321;

/// What is kept of an entry.
#[derive(Clone, Copy, Debug)]
struct Sighting {
    flow: u64,
    /// Since a packet last used it.
    silent_s: u32,
    from_client: bool,
    udp: bool,
    /// `SEEN_*`.
    seen: u8,
}

/// The flows of a map, counted.
#[derive(Debug, Default)]
pub(super) struct Census {
    sightings: Vec<Sighting>,
}

impl Census {
    /// Notes an entry as it is at `now_ns`.
    pub(super) fn note(&mut self, key: &FlowKey, entry: &NatEntry, now_ns: u64) {
        let silent_s = now_ns.saturating_sub(entry.last_seen_ns) / 1_000_000_000;
        self.sightings.push(Sighting {
            flow: number(&client_key(key, entry)),
            silent_s: u32::try_from(silent_s).unwrap_or(u32::MAX),
            from_client: entry.direction == FROM_CLIENT,
            udp: key.protocol == UDP,
            seen: entry.seen,
        });
    }

    /// The numbers of the flows that seem to be over, in ascending order, and how many are not. Each
    /// is to be looked at once more before it is removed ([`is_over`]): packets may have come
    /// meanwhile.
    pub(super) fn over(mut self, timeouts: &NatTimeouts) -> (Vec<u64>, u64) {
        self.sightings.sort_unstable_by_key(|sighting| sighting.flow);
        let mut over = Vec::new();
        let mut flows = 0;
        for entries in self.sightings.chunk_by(|a, b| a.flow == b.flow) {
            let both = entries.iter().any(|entry| entry.from_client)
                && entries.iter().any(|entry| !entry.from_client);
            let limit = if both { limit(timeouts, entries) } else { HALF_PAIR };
            let silent_s = entries.iter().map(|entry| entry.silent_s).min().unwrap_or(0);
            if u64::from(silent_s) > limit.as_secs() {
                over.push(entries[0].flow);
            } else {
                flows += u64::from(entries.iter().any(|entry| entry.from_client));
            }
        }
        (over, flows)
    }

    /// How many flows are not ended, however long they are silent.
    pub(super) fn open(mut self) -> u64 {
        self.sightings.sort_unstable_by_key(|sighting| sighting.flow);
        let flows = self.sightings.chunk_by(|a, b| a.flow == b.flow);
        let has_client = |entries: &&[Sighting]| entries.iter().any(|entry| entry.from_client);
        flows.filter(|entries| !is_ended(entries)).filter(has_client).count() as u64
    }
}

/// Whether one side has reset it, or both have ended it.
fn is_ended(entries: &[Sighting]) -> bool {
    let reset = entries.iter().any(|entry| entry.seen & SEEN_RST != 0);
    reset || entries.iter().all(|entry| entry.seen & SEEN_FIN != 0)
}

/// Whether a flow with these entries, one of them or both, is over at `now_ns`.
///
/// An entry whose partner is missing is over as soon as it is older than the time that making a
/// pair takes.
pub(super) fn is_over(
    entries: &[(FlowKey, NatEntry)],
    timeouts: &NatTimeouts,
    now_ns: u64,
) -> bool {
    let mut census = Census::default();
    for (key, entry) in entries {
        census.note(key, entry, now_ns);
    }
    !census.over(timeouts).0.is_empty()
}

/// Far longer than a program takes from the first to the second entry.
const HALF_PAIR: Duration = Duration::from_secs(5);

fn limit(timeouts: &NatTimeouts, entries: &[Sighting]) -> Duration {
    if entries.iter().any(|entry| entry.udp) {
        return timeouts.udp;
    }
    if is_ended(entries) {
        timeouts.tcp_closing
    } else if entries.iter().all(|entry| entry.seen & SEEN_DATA != 0) {
        timeouts.tcp_established
    } else {
        timeouts.tcp_opening
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use lb_common::Address;
    use lb_common::nat::FROM_BACKEND;
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
            told: 0,
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

    fn over(entries: &HashMap<FlowKey, NatEntry>, seconds: u64) -> (Vec<u64>, u64) {
        let mut census = Census::default();
        for (key, entry) in entries {
            census.note(key, entry, seconds * SECOND);
        }
        census.over(&TIMEOUTS)
    }

    fn lasts(entries: &HashMap<FlowKey, NatEntry>, seconds: u64) -> bool {
        let all: Vec<_> = entries.iter().map(|(key, entry)| (*key, *entry)).collect();
        let lasts = over(entries, seconds).0.is_empty();
        assert_eq!(is_over(&all, &TIMEOUTS, seconds * SECOND), !lasts);
        lasts
    }

    #[test]
    fn a_pair_is_symmetric_and_has_one_number() {
        let entries = flow(TCP, SEEN_SYN, 0);
        let mut numbers = Vec::new();
        for (key, entry) in &entries {
            assert!(entries.contains_key(&partner(key, entry)));
            numbers.push(number(&client_key(key, entry)));
        }
        assert_eq!(numbers[0], numbers[1]);
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
    fn a_packet_either_way_keeps_both_entries() {
        for direction in [FROM_CLIENT, FROM_BACKEND] {
            let mut entries = flow(TCP, SEEN_SYN, 0);
            for entry in entries.values_mut().filter(|entry| entry.direction == direction) {
                entry.last_seen_ns = 20 * SECOND;
            }
            assert!(lasts(&entries, 50));
            assert!(!lasts(&entries, 51));
        }
    }

    #[test]
    fn both_entries_go_together_and_count_as_one_flow() {
        let entries = flow(TCP, SEEN_SYN, 0);
        assert_eq!(over(&entries, 30), (Vec::new(), 1));
        let (numbers, flows) = over(&entries, 31);
        assert_eq!(flows, 0);
        for (key, entry) in &entries {
            assert_eq!(numbers, [number(&client_key(key, entry))]);
        }
    }

    #[test]
    fn a_flow_is_open_until_one_side_resets_or_both_end_it() {
        for (sent, replied, open) in [
            (SEEN_SYN, 0, 1),
            (SEEN_SYN | SEEN_DATA, SEEN_DATA, 1),
            (SEEN_SYN | SEEN_DATA | SEEN_FIN, SEEN_DATA, 1),
            (SEEN_SYN | SEEN_DATA | SEEN_FIN, SEEN_DATA | SEEN_FIN, 0),
            (SEEN_SYN | SEEN_DATA, SEEN_DATA | SEEN_RST, 0),
        ] {
            let mut census = Census::default();
            for (key, entry) in &flow(TCP, sent, replied) {
                census.note(key, entry, 0);
            }
            assert_eq!(census.open(), open, "{sent:#b} {replied:#b}");
        }
    }

    #[test]
    fn a_flow_that_was_made_anew_goes_on_by_its_first_port_alone() {
        let port = FirstPort { key: 7, first: 61_000, count: 4000 };
        let entries = flow(TCP, SEEN_DATA, SEEN_DATA);
        let (client, entry) =
            entries.iter().find(|(_, entry)| entry.direction == FROM_CLIENT).expect("the client's");
        let with = |source_port: u16, seen| NatEntry {
            source_port_be: source_port.to_be(),
            seen,
            ..*entry
        };
        let first = port.of(client);
        assert!((61_000..65_000).contains(&first));
        assert_eq!(port.goes_on(client, &with(first, SEEN_DATA)), Some(true));
        assert_eq!(port.goes_on(client, &with(first ^ 1, SEEN_DATA)), Some(false));
        assert_eq!(port.goes_on(client, &with(first ^ 1, SEEN_SYN | SEEN_DATA)), None);
        let reply = NatEntry { direction: FROM_BACKEND, ..with(first, SEEN_DATA) };
        assert_eq!(port.goes_on(client, &reply), None);
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
