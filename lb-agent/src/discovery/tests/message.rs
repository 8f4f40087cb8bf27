//! Answers of DNS as they lie on the wire, made here byte by byte.

use std::time::Duration;

use crate::discovery::dns::message::{Found, NotFound, answer, question};

const NAME: &str = "api.example.internal";
const ID: u16 = 0x1234;
/// A pointer to the name that was asked for (RFC 1035, 4.1.4).
const ASKED: [u8; 2] = [0xc0, 12];

const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;

fn record(owner: &[u8], kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let length = data.len() as u16;
    [owner, &kind.to_be_bytes(), &[0, 1], &ttl.to_be_bytes(), &length.to_be_bytes(), data].concat()
}

/// An answer to the question for IPv4 addresses with these flags and records.
fn message(flags: u16, records: &[Vec<u8>]) -> Vec<u8> {
    let asked = question(NAME, true, ID).expect("a question");
    // Behind the header, without the record that says how much fits.
    let body = &asked[12..asked.len() - 11];
    let count = records.len() as u16;
    let header = [ID, flags, 1, count, 0, 0].map(u16::to_be_bytes).concat();
    [&header[..], body, &records.concat()].concat()
}

const OK: u16 = 0x8180;

fn read(bytes: &[u8]) -> Result<Found, NotFound> {
    answer(bytes, NAME, true, ID)
}

#[test]
fn all_addresses_count_for_as_long_as_the_shortest_lived_one() {
    let records = [record(&ASKED, A, 30, &[192, 0, 2, 1]), record(&ASKED, A, 20, &[192, 0, 2, 2])];
    let found = read(&message(OK, &records)).expect("addresses");
    assert_eq!(found.addresses.len(), 2);
    assert_eq!(found.ttl, Duration::from_secs(20));
}

#[test]
fn a_chain_of_names_is_followed_and_its_links_count_too() {
    let target = b"\x01x\xc0\x10";
    // The name within the first record's data, behind header, question and fixed fields.
    let begin = 12 + NAME.len() + 2 + 4 + 12;
    let owner = [0xc0, begin as u8];
    let records = [
        record(&ASKED, CNAME, 7, target),
        record(&owner, A, 30, &[192, 0, 2, 1]),
        record(b"\x05other\x00", A, 30, &[192, 0, 2, 9]),
    ];
    let found = read(&message(OK, &records)).expect("an address");
    assert_eq!(found.addresses, [[192, 0, 2, 1].into()].into());
    assert_eq!(found.ttl, Duration::from_secs(7));
}

#[test]
fn no_name_no_address_and_no_service_are_told_apart() {
    let said = |bytes: &[u8]| match read(bytes) {
        Err(NotFound::Said(words)) => words,
        other => panic!("{other:?}"),
    };
    assert!(said(&message(0x8183, &[])).contains("NXDOMAIN"));
    assert!(said(&message(OK, &[])).contains("has no IPv4 address"));
    assert!(said(&message(0x8182, &[])).contains("SERVFAIL"));
    let v6 = [record(&ASKED, AAAA, 1, &[0; 16])];
    assert!(said(&message(OK, &v6)).contains("has no IPv4 address"));
}

#[test]
fn what_is_cut_is_asked_for_over_tcp() {
    assert_eq!(read(&message(OK | 0x0200, &[])), Err(NotFound::Truncated));
}

#[test]
fn who_does_not_know_the_question_is_not_believed() {
    let right = message(OK, &[record(&ASKED, A, 30, &[192, 0, 2, 1])]);
    assert!(read(&right).is_ok());
    assert_eq!(answer(&right, NAME, true, ID + 1), Err(NotFound::Stray));
    assert_eq!(answer(&right, "api.example.org", true, ID), Err(NotFound::Stray));
    assert_eq!(answer(&right, NAME, false, ID), Err(NotFound::Stray));
    // Our own question, sent back.
    assert_eq!(read(&question(NAME, true, ID).expect("a question")), Err(NotFound::Stray));
}

#[test]
fn a_message_that_ends_early_is_refused_wherever_it_ends() {
    let right = message(OK, &[record(&ASKED, A, 30, &[192, 0, 2, 1])]);
    for length in 0..right.len() {
        assert!(read(&right[..length]).is_err(), "{length}");
    }
}

#[test]
fn names_are_compared_without_their_case() {
    let mut shouted = message(OK, &[record(&ASKED, A, 30, &[192, 0, 2, 1])]);
    shouted[13..16].make_ascii_uppercase();
    assert!(read(&shouted).is_ok());
}
