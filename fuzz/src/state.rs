//! Any bytes in what an agent leaves for the next one: its files, and pinned maps. What is spoilt is
//! named and dropped, what is taken over can be used, and nothing panics or is forgotten beside it.
//!
//! An input's first byte says which file or map the rest is.

#![no_main]

use std::collections::HashMap;
use std::ffi::CString;
use std::time::Duration;

use lb_common::Address;
use lb_common::flow::FlowKey;
use lb_common::nat::NatEntry;
use lb_common::service::{Service, ServiceKey};
use lb_fuzz::dataplane::nat::NatTimeouts;
use lb_fuzz::standing::Sayings;
use lb_fuzz::{agent, dataplane, notify};
use libfuzzer_sys::{Corpus, fuzz_target};

fuzz_target!(|input: &[u8]| -> Corpus {
    let Some((which, rest)) = input.split_first() else { return Corpus::Reject };
    match which % 5 {
        0 => attached(rest),
        1 => spool(rest),
        2 => services(rest),
        3 => flows(rest),
        _ => sayings(rest),
    }
    Corpus::Keep
});

/// `attached.json`.
fn attached(bytes: &[u8]) {
    match agent::attached(bytes, &["ens33".to_owned()]) {
        Ok(names) => {
            for name in names {
                assert!((1..16).contains(&name.len()) && !name.contains(['/', '\0']), "{name:?}");
            }
        }
        Err(why) => assert!(!why.is_empty(), "spoilt without a reason"),
    }
}

/// `backends.json`.
fn sayings(bytes: &[u8]) {
    match Sayings::parse(bytes) {
        Ok(mut said) => {
            let written = serde_json::to_vec(&said).expect("what was read can be written");
            assert_eq!(Sayings::parse(&written).as_ref(), Ok(&said));
            said.keep_only(|_, _| false);
            assert!(said.all(|_, _| false), "nothing is left");
        }
        Err(why) => assert!(!why.is_empty(), "spoilt without a reason"),
    }
}

/// A hook's spool: a line for how far it is, then one for each notice.
fn spool(bytes: &[u8]) {
    let mut files = bytes.split(|byte| *byte == b'\n');
    let delivered = notify::sequence(files.next().unwrap_or_default());
    assert!(delivered.as_ref().err().is_none_or(|why| !why.is_empty()));
    let mut notices = Vec::new();
    for file in files.take(16) {
        match notify::notice(file) {
            Ok(notice) => {
                deliverable(&notice);
                notices.push(notice);
            }
            Err(why) => assert!(!why.is_empty(), "spoilt without a reason"),
        }
    }
    // A folder holds one file of each name, and the name is the number.
    notices.sort_by_key(|notice| notice.sequence);
    notices.dedup_by_key(|notice| notice.sequence);
    let delivered = delivered.unwrap_or(0);
    let waiting = notices.iter().filter(|notice| notice.sequence > delivered).count();
    // Enough that some must be folded, now and then.
    let more = if bytes.len() % 16 == 0 { 1030 } else { 3 };
    let told = notify::next_run(delivered, notices, more);
    assert!(told.is_sorted_by(|a, b| a.sequence < b.sequence), "out of order");
    assert!(told.first().is_none_or(|notice| notice.sequence > delivered), "told twice");
    let folded = told.iter().map(|notice| notice.folded).fold(0, u64::saturating_add);
    let all = folded.saturating_add(told.len() as u64);
    assert!(all >= (waiting + more) as u64, "{all} of {} are told", waiting + more);
}

/// It survives being written and read, and every way to tell it can be made of it.
fn deliverable(notice: &notify::notice::Notice) {
    assert_eq!(notify::notice(&notify::written(notice)).as_ref(), Ok(notice));
    let (given, key) = notify::given(notice);
    for text in given {
        assert!(CString::new(text).is_ok(), "no program can be given this");
    }
    assert!(axum::http::HeaderValue::from_str(&format!("\"{key}\"")).is_ok(), "{key:?}");
}

/// The maps of services, an entry after the other, in an agent whose maps have other sizes than they
/// name. Each has a place of its own, but for those whose seed says another one.
fn services(bytes: &[u8]) {
    const SIZES: (u32, u32) = (16, 8);
    let (entries, _) = bytes.as_chunks::<24>();
    let mut entries = entries.iter().take(32).enumerate();
    let found = entries.by_ref().map(|(at, entry)| {
        let word = |at: usize| u32::from_le_bytes(*entry[4 * at..].first_chunk().expect("24"));
        let key = ServiceKey {
            address: Address::UNSPECIFIED,
            port_be: at as u16,
            protocol: 6,
            padding: 0,
        };
        let service = Service {
            seed: u64::from(word(0)),
            table: word(1),
            slots: word(2),
            backends: word(3),
            flags: word(4),
            backend_count: word(5),
            protection: 0,
        };
        let place = if word(0) >> 31 == 1 { word(0) & 31 } else { at as u32 };
        (key, place, service)
    });
    let used = dataplane::taken_over(found.collect(), SIZES);
    for (at, (table, slots, start, end)) in used.iter().enumerate() {
        assert!(*table < SIZES.1 && start <= end && *end <= SIZES.0, "outside the maps");
        for (other, of_other, from, to) in &used[..at] {
            assert!(table != other || slots == of_other, "one table with two sizes");
            assert!(end <= from || to <= start, "a shared backend");
        }
    }
}

/// The map `nat_flows`, an entry after the other.
fn flows(bytes: &[u8]) {
    const TIMEOUTS: NatTimeouts = NatTimeouts {
        tcp_opening: Duration::from_secs(30),
        tcp_established: Duration::from_secs(7440),
        tcp_closing: Duration::from_secs(60),
        udp: Duration::from_secs(120),
    };
    let (entries, _) = bytes.as_chunks::<16>();
    let entries: HashMap<FlowKey, NatEntry> = entries.iter().take(32).map(entry).collect();
    for now_s in [0, 1, 60, 10_000, u64::MAX / 1_000_000_000] {
        let (over, flows) = dataplane::expired(&entries, &TIMEOUTS, now_s * 1_000_000_000);
        assert!(over + flows as usize <= entries.len(), "more flows than entries");
    }
}

fn entry(bytes: &[u8; 16]) -> (FlowKey, NatEntry) {
    let [from, to, port_from, port_to, protocol, source, destination, rest @ ..] = *bytes;
    let [source_port, destination_port, direction, seen, time @ ..] = rest;
    let address = |last| Address::from_v4([192, 0, 2, last]);
    let key = FlowKey {
        source: address(from),
        destination: address(to),
        source_port_be: u16::from(port_from),
        destination_port_be: u16::from(port_to),
        protocol,
        padding: [0; 3],
    };
    let [low, high, ..]: [u8; 5] = time;
    let entry = NatEntry {
        source: address(source),
        destination: address(destination),
        source_port_be: u16::from(source_port),
        destination_port_be: u16::from(destination_port),
        direction,
        seen,
        last_seen_ns: u64::from(low) << high.min(63),
        ..NatEntry::EMPTY
    };
    (key, entry)
}
