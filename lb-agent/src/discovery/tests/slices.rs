//! EndpointSlices as an API server tells of them.

use serde_json::{Value, json};

use super::at;
use crate::config::Protocol;
use crate::discovery::Answer;
use crate::discovery::kubernetes::Wanted;
use crate::discovery::kubernetes::slices::{Lost, News, Slices};

const TCP4: Wanted = Wanted { protocol: Protocol::Tcp, v4: true };

fn endpoint(number: u8, conditions: Value) -> Value {
    json!({ "addresses": [format!("192.168.139.{number}")], "conditions": conditions })
}

fn slice(name: &str, version: u32, endpoints: Value) -> Value {
    json!({
        "metadata": { "name": name, "resourceVersion": version.to_string() },
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{ "name": "https", "port": 6443, "protocol": "TCP" }],
    })
}

fn list(items: Value) -> Slices {
    let list = json!({ "metadata": { "resourceVersion": "10" }, "items": items });
    Slices::list(list.to_string().as_bytes()).expect("a list")
}

fn event(kind: &str, object: Value) -> Vec<u8> {
    json!({ "type": kind, "object": object }).to_string().into_bytes()
}

fn answer(slices: &Slices) -> Answer {
    slices.answer(None, TCP4).expect("one port")
}

fn of(wanted: &[u8], leaving: &[u8]) -> Answer {
    let set = |numbers: &[u8]| at(numbers.iter().copied()).collect();
    Answer { wanted: set(wanted), leaving: set(leaving) }
}

#[test]
fn conditions_say_who_is_for_new_clients_and_who_keeps_his_own() {
    let slices = list(json!([slice(
        "a",
        1,
        json!([
            endpoint(201, json!({ "ready": true, "serving": true, "terminating": false })),
            endpoint(202, json!({})),
            endpoint(203, json!({ "ready": false, "serving": true, "terminating": true })),
            endpoint(204, json!({ "ready": false, "serving": false, "terminating": true })),
            endpoint(205, json!({ "ready": false, "serving": false, "terminating": false })),
            // As a service with publishNotReadyAddresses has them.
            endpoint(206, json!({ "ready": true, "serving": true, "terminating": true })),
        ])
    )]));
    assert_eq!(answer(&slices), of(&[201, 202], &[203, 206]));
}

#[test]
fn where_none_is_ready_those_that_still_serve_are_wanted() {
    let ending = json!({ "ready": false, "serving": true, "terminating": true });
    let slices = list(json!([slice("a", 1, json!([endpoint(201, ending)]))]));
    assert_eq!(answer(&slices), of(&[201], &[]));
}

#[test]
fn one_that_moves_between_slices_is_there_all_the_time() {
    let ready = json!({ "ready": true });
    let ending = json!({ "ready": false, "serving": true, "terminating": true });
    let slices = list(json!([
        slice("a", 1, json!([endpoint(201, ending)])),
        slice("b", 2, json!([endpoint(201, ready)])),
    ]));
    assert_eq!(answer(&slices), of(&[201], &[]));
}

#[test]
fn a_watch_changes_what_was_listed_and_says_where_to_go_on() {
    let ready = json!({ "ready": true });
    let mut slices = list(json!([slice("a", 1, json!([endpoint(201, ready.clone())]))]));
    assert_eq!(slices.version(), "10");
    let added = event("ADDED", slice("b", 11, json!([endpoint(202, ready)])));
    assert_eq!(slices.apply(&added), Ok(News::Changed));
    assert_eq!(answer(&slices), of(&[201, 202], &[]));
    let modified = event("MODIFIED", slice("a", 12, Value::Null));
    assert_eq!(slices.apply(&modified), Ok(News::Changed));
    assert_eq!(answer(&slices), of(&[202], &[]));
    let bookmark = json!({ "kind": "EndpointSlice", "metadata": { "resourceVersion": "20" },
                           "addressType": "", "endpoints": null, "ports": null });
    assert_eq!(slices.apply(&event("BOOKMARK", bookmark)), Ok(News::Confirmed));
    assert_eq!(slices.version(), "20");
    assert_eq!(slices.apply(&event("DELETED", slice("b", 21, json!([])))), Ok(News::Changed));
    assert_eq!((answer(&slices), slices.version()), (of(&[], &[]), "21"));
}

#[test]
fn a_version_that_is_too_old_and_what_nobody_understands_begin_anew() {
    let mut slices = list(json!([]));
    let gone = json!({ "kind": "Status", "code": 410, "reason": "Expired", "message": "too old" });
    assert_eq!(slices.apply(&event("ERROR", gone)), Err(Lost::Expired));
    assert_eq!(slices.apply(&event("REPLACED", json!({}))), Err(Lost::Expired));
    let other = json!({ "kind": "Status", "code": 500, "reason": "InternalError", "message": "x" });
    assert!(matches!(slices.apply(&event("ERROR", other)), Err(Lost::Said(_))));
    for nonsense in ["", "{", "null", "{\"type\":\"ADDED\",\"object\":{}}"] {
        assert!(matches!(slices.apply(nonsense.as_bytes()), Err(Lost::Said(_))), "{nonsense}");
    }
}

#[test]
fn the_port_is_the_one_of_the_name_or_the_only_one_of_the_protocol() {
    let mut two = slice("a", 1, json!([endpoint(201, json!({}))]));
    two["ports"] = json!([
        { "name": "https", "port": 6443, "protocol": "TCP" },
        { "name": "metrics", "port": 9090, "protocol": "TCP" },
        { "name": "quic", "port": 4433, "protocol": "UDP" },
    ]);
    let slices = list(json!([two]));
    let error = slices.answer(None, TCP4).unwrap_err();
    assert!(error.contains("https, metrics") && error.contains("port_name"), "{error}");
    assert_eq!(slices.answer(Some("https"), TCP4), Ok(of(&[201], &[])));
    assert_eq!(slices.answer(Some("other"), TCP4), Ok(of(&[], &[])));
    let udp = slices.answer(None, Wanted { protocol: Protocol::Udp, ..TCP4 }).expect("one port");
    assert_eq!(udp.wanted.first().map(|at| at.port()), Some(4433));
}

#[test]
fn endpoints_of_the_other_family_are_others() {
    let slices = list(json!([slice("a", 1, json!([endpoint(201, json!({}))]))]));
    assert_eq!(slices.answer(None, Wanted { v4: false, ..TCP4 }), Ok(of(&[], &[])));
}
