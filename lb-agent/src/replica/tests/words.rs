//! Words and records as bytes, and any bytes as words and records.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::record::{Record, SIZE};
use super::super::words::{FLOWS_MAX, VERSION, Word, WordError};
use super::{CLIENT_MAC, SECOND, VIP_LINK, flow, record};

#[test]
fn every_word_is_read_as_it_was_written() {
    for word in [
        Word::Hello { run: 1, node: "master1".to_owned() },
        Word::Welcome { run: u64::MAX, look: 2 },
        Word::Flows(Vec::new()),
        Word::Flows(vec![record(); FLOWS_MAX]),
        Word::Mark { look: 3 },
        Word::Heard { look: 4 },
    ] {
        assert_eq!(Word::read(&word.bytes()), Ok(word));
    }
}

#[test]
fn a_full_batch_fits_a_message_of_noise() {
    assert!(Word::Flows(vec![record(); FLOWS_MAX]).bytes().len() + 16 <= 65_535);
}

#[test]
fn another_version_is_named() {
    let mut bytes = Word::Hello { run: 1, node: "master1".to_owned() }.bytes();
    bytes[1] = VERSION + 1;
    assert_eq!(Word::read(&bytes), Err(WordError::Version(VERSION + 1)));
}

#[test]
fn a_record_says_what_both_entries_do_and_how_long_ago() {
    let said = Record::of(&flow(95), Some(VIP_LINK), 100 * SECOND);
    assert_eq!(said, record());
    let elsewhere = Record::of(&flow(95), Some(VIP_LINK + 1), 100 * SECOND);
    assert_eq!(elsewhere, Record { hop: None, ..record() });
}

#[test]
fn what_no_agent_says_of_a_flow_is_refused() {
    let mut good = Vec::new();
    record().write(&mut good);
    let read = |bytes: &[u8]| Record::read(bytes.try_into().expect("a record"));
    assert_eq!(read(&good), Some(record()));
    for (what, at, value) in [
        ("no port", 48, [0, 0]),
        ("no port of the VIP", 54, [0, 0]),
        ("two families", 10, [1, 1]),
        ("another protocol", 56, [1, good[57]]),
        ("unknown notes", 57, [0x10, good[58]]),
        ("neither a MAC nor none", 59, [2, CLIENT_MAC[0]]),
        ("a MAC that is said to be none", 59, [0, CLIENT_MAC[0]]),
        ("a group's MAC", 59, [1, 3]),
    ] {
        let mut bytes = good.clone();
        bytes[at..at + 2].copy_from_slice(&value);
        assert_eq!(read(&bytes), None, "{what}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_and_what_is_read_is_what_was_written(
        bytes in prop_oneof![
            vec(any::<u8>(), 0..300),
            (1u8..7, vec(any::<u8>(), 0..300))
                .prop_map(|(kind, rest)| [vec![kind], rest].concat()),
        ],
    ) {
        if let Ok(word) = Word::read(&bytes) {
            prop_assert_eq!(word.bytes(), bytes);
        }
    }

    #[test]
    fn a_record_with_any_bytes_in_it_is_read_as_it_stands_or_not_at_all(
        at in 0..SIZE,
        value in any::<u8>(),
    ) {
        let mut bytes = Vec::new();
        record().write(&mut bytes);
        bytes[at] = value;
        if let Some(read) = Record::read(bytes.as_slice().try_into().expect("a record")) {
            let mut again = Vec::new();
            read.write(&mut again);
            prop_assert_eq!(again, bytes);
        }
    }
}
