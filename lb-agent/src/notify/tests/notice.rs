//! What stands in a notice is a promise: docs/api.md describes it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{role, trouble};
use crate::notify::notice::{Event, Notice, Router, State, What, read_sequence};

fn notice(event: Event) -> Notice {
    Notice::new(event, "master1", "00c0ffee00c0ffee", 7)
}

fn json_of(notice: &Notice) -> Value {
    serde_json::from_slice(&notice.json()).expect("JSON")
}

fn variables(notice: &Notice) -> BTreeMap<&'static str, String> {
    notice.variables().into_iter().collect()
}

#[test]
fn a_change_of_role_is_one_flat_object() {
    let notice = notice(role(State::Backup, State::Active, "the active router resigned"));
    let expected = json!({
        "format": 1, "run": "00c0ffee00c0ffee", "sequence": 7,
        "time": "1970-01-01T00:00:01.000000Z", "node": "master1",
        "kind": "role", "from": "backup", "to": "active", "reason": "the active router resigned",
        "router_id": 51, "version": 3, "interface": "ens33", "family": "ipv4", "priority": 90,
        "virtual_addresses": ["192.0.2.1", "192.0.2.2"], "folded": 0,
    });
    assert_eq!(json_of(&notice), expected);
    assert_eq!(notice.json().iter().filter(|byte| **byte == b'\n').count(), 1, "one line");
}

#[test]
fn trouble_names_the_rival() {
    let object = json_of(&notice(trouble("split_brain")));
    let fields = ["kind", "trouble", "address", "mac", "sentence"].map(|name| object[name].clone());
    let expected =
        ["trouble", "split_brain", "192.0.2.9", "02:00:00:00:00:09", "another router is Active"];
    assert_eq!(fields, expected);
}

#[test]
fn without_vrrp_there_is_no_router() {
    let what = What::Role { from: State::Active, to: State::Backup, reason: String::new() };
    let notice =
        notice(Event { router: Router::default(), ..role(State::Active, State::Backup, "") });
    assert_eq!(notice.what, what);
    let object = json_of(&notice);
    assert_eq!((&object["router_id"], &object["family"]), (&Value::Null, &Value::Null));
    assert_eq!(notice.arguments(), ["INSTANCE", "static", "backup", "0"]);
}

#[test]
fn a_notice_survives_the_disk() {
    for event in [role(State::Initialize, State::Backup, "why"), trouble("ttl")] {
        let notice = notice(event);
        let read: Notice = serde_json::from_slice(&notice.json()).expect("what was written");
        assert_eq!(read, notice);
    }
}

#[test]
fn arguments_are_those_of_keepalived_in_our_words() {
    let active = notice(role(State::Backup, State::Active, "why"));
    assert_eq!(active.arguments(), ["INSTANCE", "51-ipv4", "active", "90"]);
    let trouble = notice(trouble("split_brain"));
    assert_eq!(trouble.arguments(), ["TROUBLE", "51-ipv4", "split_brain", "90"]);
}

#[test]
fn every_variable_is_there_for_every_kind() {
    let role = variables(&notice(role(State::Backup, State::Active, "why")));
    let trouble = variables(&notice(trouble("ttl")));
    assert!(role.keys().eq(trouble.keys()));
    assert_eq!([&*role["LB_KIND"], &role["LB_TO"], &role["LB_TROUBLE"]], ["role", "active", ""]);
    assert_eq!([&*trouble["LB_KIND"], &trouble["LB_TO"]], ["trouble", ""]);
    assert_eq!(trouble["LB_MAC"], "02:00:00:00:00:09");
    assert_eq!(role["LB_VIRTUAL_ADDRESSES"], "192.0.2.1 192.0.2.2");
}

#[test]
fn every_variable_and_field_is_documented() {
    let text = include_str!("../../../../docs/api.md");
    let events = [role(State::Backup, State::Active, "why"), trouble("ttl")];
    for notice in events.map(notice) {
        let Value::Object(fields) = json_of(&notice) else { panic!("an object") };
        let names = fields.keys().map(String::as_str).chain(variables(&notice).into_keys());
        for name in names {
            assert!(text.contains(&format!("`{name}`")), "{name}");
        }
    }
}

#[test]
fn keys_differ_between_runs_and_numbers() {
    let keys = [("a", 1), ("a", 2), ("b", 1)]
        .map(|(run, sequence)| Notice::new(trouble("ttl"), "n", run, sequence).key());
    assert_eq!(keys, ["a-1", "a-2", "b-1"]);
}

/// A notice as it stands on disk, with one field replaced.
fn spoilt(field: &str, value: Value) -> Result<Notice, String> {
    let mut object = json_of(&notice(role(State::Backup, State::Active, "it heard nobody")));
    object[field] = value;
    Notice::read(object.to_string().as_bytes())
}

#[test]
fn what_no_hook_could_be_given_is_spoilt() {
    assert!(spoilt("sequence", json!(7)).is_ok());
    for (field, value, why) in [
        ("format", json!(2), "format is 2"),
        ("sequence", json!(0), "number is 0"),
        // The next one could not be counted.
        ("sequence", json!(u64::MAX), "number is"),
        // No header can hold it.
        ("run", json!("a\r\nb"), "run is"),
        ("run", json!(""), "run is"),
        // No program can be given it.
        ("reason", json!("a\u{0}b"), "LB_REASON"),
        ("priority", json!(300), "u8"),
    ] {
        let error = spoilt(field, value).expect_err(field);
        assert!(error.contains(why), "{field}: {error}");
    }
}

#[test]
fn how_far_a_hook_was_is_a_number_that_can_be_counted_on() {
    assert_eq!(read_sequence(b" 42\n"), Ok(42));
    for spoilt in [&b""[..], b"seven", b"-1", b"\xff\xfe", b"18446744073709551615"] {
        assert!(read_sequence(spoilt).is_err(), "{spoilt:?}");
    }
}
