//! Vectors that hold the contract still. They were computed by `reference.py` beside this file,
//! which follows docs/tables.md and shares no code with the implementation. A change here is a
//! new [`TABLE_VERSION`](lb_common::layout::TABLE_VERSION).

use lb_common::bucket::NONE;

use super::{Member, Slots, Table};

fn table(members: &[(&str, u16)], slots: u32) -> Table {
    let members: Vec<Member> = members
        .iter()
        .map(|(address, weight)| Member::new(address.parse().unwrap(), *weight))
        .collect();
    Table::build(&members, Slots::new(slots).unwrap()).unwrap()
}

fn order(table: &Table) -> Vec<String> {
    table.members().iter().map(|m| m.socket_address().to_string()).collect()
}

fn ranks<const N: usize>(table: &Table) -> Vec<[u16; N]> {
    let used = |ranks: &[u16; 8]| {
        assert!(ranks[N..].iter().all(|&rank| rank == NONE), "more than {N} ranks");
        std::array::from_fn(|rank| ranks[rank])
    };
    table.buckets().iter().map(|bucket| used(&bucket.ranks)).collect()
}

#[test]
fn the_masters_table_is_that_of_the_reference() {
    let table = table(
        &[
            ("192.168.139.133:6443", 2),
            ("192.168.139.134:6443", 1),
            ("192.168.139.135:6443", 1),
            ("[fd00::136]:6443", 0),
        ],
        17,
    );
    let expected_order = [
        "192.168.139.135:6443",
        "[fd00::136]:6443",
        "192.168.139.134:6443",
        "192.168.139.133:6443",
    ];
    assert_eq!(order(&table), expected_order);
    assert_eq!(ranks::<4>(&table), MASTERS);
}

#[test]
fn a_large_set_s_table_and_its_orphans_are_those_of_the_reference() {
    let weights = [3, 1, 2, 1, 1, 0, 1, 2, 1, 7];
    let addresses: Vec<String> = (0..10).map(|i| format!("10.0.0.{i}:{}", 80 + i)).collect();
    let members: Vec<(&str, u16)> =
        addresses.iter().zip(weights).map(|(a, w)| (a.as_str(), w)).collect();
    let table = table(&members, 29);
    let expected_order: Vec<String> =
        [4, 0, 7, 6, 9, 1, 3, 8, 5, 2].map(|i: usize| addresses[i].clone()).into();
    assert_eq!(order(&table), expected_order);
    assert_eq!(ranks::<4>(&table), TEN);

    let accepting: Vec<bool> = table
        .members()
        .iter()
        .map(|m| {
            [addresses[3].as_str(), &addresses[8]]
                .contains(&m.socket_address().to_string().as_str())
        })
        .collect();
    let expected: Vec<(u32, [u16; 5])> = (0..)
        .zip(TEN)
        .zip(FIRST_OF_THE_ACCEPTING)
        .filter(|((_, ranks), _)| !ranks.contains(&6) && !ranks.contains(&7))
        .map(|((slot, [a, b, c, d]), first)| (slot, [a, b, c, d, first]))
        .collect();
    let orphans: Vec<(u32, [u16; 5])> = table
        .orphans(&accepting)
        .into_iter()
        .map(|(slot, bucket)| (slot, std::array::from_fn(|rank| bucket.ranks[rank])))
        .collect();
    assert!(!expected.is_empty());
    assert_eq!(orphans, expected);
}

#[test]
fn the_table_of_a_machine_with_two_backends_is_that_of_the_reference() {
    let table = table(&[("10.0.0.2:80", 1), ("10.0.0.1:81", 1), ("10.0.0.1:80", 1)], 11);
    assert_eq!(order(&table), ["10.0.0.1:80", "10.0.0.1:81", "10.0.0.2:80"]);
    assert_eq!(ranks::<3>(&table), TWICE);
}

const MASTERS: [[u16; 4]; 17] = [
    [0, 3, 2, 1],
    [3, 0, 2, 1],
    [2, 3, 0, 1],
    [0, 3, 2, 1],
    [0, 3, 2, 1],
    [3, 0, 2, 1],
    [3, 2, 0, 1],
    [2, 0, 3, 1],
    [3, 2, 0, 1],
    [3, 2, 0, 1],
    [3, 2, 0, 1],
    [2, 0, 3, 1],
    [3, 0, 2, 1],
    [3, 0, 2, 1],
    [2, 3, 0, 1],
    [0, 2, 3, 1],
    [0, 3, 2, 1],
];

const TEN: [[u16; 4]; 29] = [
    [4, 1, 9, 5],
    [4, 5, 1, 0],
    [4, 9, 2, 1],
    [0, 4, 6, 9],
    [4, 2, 9, 1],
    [3, 4, 9, 6],
    [4, 1, 9, 2],
    [4, 1, 9, 7],
    [1, 0, 7, 4],
    [1, 4, 7, 5],
    [6, 4, 1, 0],
    [2, 4, 1, 9],
    [1, 3, 4, 0],
    [1, 2, 4, 3],
    [4, 1, 3, 9],
    [4, 2, 1, 7],
    [4, 5, 0, 1],
    [4, 7, 6, 1],
    [4, 1, 6, 9],
    [2, 4, 1, 7],
    [4, 9, 3, 1],
    [9, 4, 3, 1],
    [9, 2, 4, 1],
    [5, 4, 1, 0],
    [2, 4, 1, 9],
    [0, 4, 1, 2],
    [9, 4, 1, 2],
    [1, 4, 3, 2],
    [9, 7, 4, 2],
];

const FIRST_OF_THE_ACCEPTING: [u16; 29] =
    [7, 7, 7, 6, 6, 6, 6, 7, 7, 7, 6, 6, 7, 6, 6, 7, 7, 7, 6, 7, 6, 6, 6, 6, 6, 7, 6, 6, 7];

const TWICE: [[u16; 3]; 11] = [
    [0, 2, 1],
    [0, 2, 1],
    [0, 2, 1],
    [1, 2, 0],
    [0, 1, 2],
    [2, 1, 0],
    [1, 2, 0],
    [2, 1, 0],
    [2, 0, 1],
    [1, 0, 2],
    [2, 1, 0],
];
