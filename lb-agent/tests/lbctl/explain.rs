//! `lbctl explain` and `lbctl flows`.

use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use lb_agent::cli::Outcome;
use serde_json::{Value, json};

use super::Agent;

/// The packet of 192.0.2.9 goes astray.
pub(super) fn explanation(asked: &str) -> Value {
    let agrees = !asked.contains("192.0.2.9");
    json!({
        "client": "192.0.2.7:50123", "address": "192.168.139.150:8443", "protocol": "tcp", "segment": "syn",
        "from_peer": null, "interface": "ens33", "mode": "native", "service": "kube-apiserver",
        "table": { "bucket": 12, "slots": 1021, "by_port": false, "chance": 7 },
        "ranks": [
            { "rank": 1, "backend": "192.168.139.134:6443", "node": "master2", "delivery": "direct",
              "accepting": false, "alive": false,
              "passed_over": "takes no new connections: connection refused" },
            { "rank": 2, "backend": "192.168.139.135:6443", "node": "master3", "delivery": "direct",
              "accepting": true, "alive": true, "passed_over": null },
        ],
        "expected": "192.168.139.135:6443", "expectation": "goes to 192.168.139.135:6443",
        "outcome": "forward", "verdict": "direct_new",
        "meaning": "A new connection, carried to another node.", "backend": "192.168.139.135:6443",
        "delivery": "direct", "next_hop_mac": "02:00:00:00:00:87", "next_hop_interface": "ens33",
        "source": "192.0.2.7:50123", "agrees": agrees,
        "disagreement": (!agrees).then_some("the program sends it to nobody"),
        "left": ["1 packet more `direct_new`"],
    })
}

pub(super) fn flows(query: &str) -> Response {
    if query.contains("service=absent") {
        let sentence = "there is no service `absent` (lbctl services)";
        return (StatusCode::CONFLICT, json!({ "error": sentence }).to_string()).into_response();
    }
    if query.contains("client=") {
        let line = json!({ "failed": query });
        return format!("{line}\n").into_response();
    }
    let flow = |client: &str, delivery: &str, source: Value, age: Value| {
        json!({ "flow": {
            "client": client, "address": "192.168.139.150:8443", "protocol": "tcp",
            "service": "kube-apiserver", "backend": "192.168.139.134:6443", "node": "master2",
            "delivery": delivery, "source": source, "state": null, "age_seconds": age,
            "idle_seconds": 1.25, "packets": null, "bytes": null,
        } })
    };
    let lines = [
        flow("192.0.2.7:50123", "direct", Value::Null, json!(3600.0)),
        flow("192.0.2.8:4", "nat", json!("192.168.139.150:61000"), Value::Null),
        json!({ "end": { "flows": 2, "more": true } }),
    ];
    lines.map(|line| format!("{line}\n")).concat().into_response()
}

#[tokio::test]
async fn a_packet_is_explained_rank_by_rank_with_what_the_program_did() {
    let agent = Agent::start();
    let said = agent.lbctl(&["explain", "192.0.2.7", "192.168.139.150:8443"]).await;
    assert_eq!(said.outcome, Outcome::Done, "{}", said.err);
    let expected = "\
packet    192.0.2.7:50123 to 192.168.139.150:8443, TCP, SYN, on ens33
service   kube-apiserver: by the client's address bucket 12 of 1021
RANK  BACKEND               NODE     DELIVERY  PASSED OVER
1     192.168.139.134:6443  master2  direct    takes no new connections: connection refused
2     192.168.139.135:6443  master3  direct    -
expected  goes to 192.168.139.135:6443
program   forward, direct_new: A new connection, carried to another node.
goes to   192.168.139.135:6443, direct, by ens33 to 02:00:00:00:00:87
left      1 packet more `direct_new`
";
    assert_eq!(said.out, expected);
}

#[tokio::test]
async fn that_agent_and_program_disagree_is_a_failure_and_what_is_asked_is_passed_on() {
    let agent = Agent::start();
    let vip = "[fd00::150]:53";
    let words = ["explain", "192.0.2.9:77", vip, "--protocol=udp", "--from-peer=master2"];
    let said = agent.lbctl(&words).await;
    assert_eq!(said.outcome, Outcome::Failed, "{}", said.out);
    assert!(said.out.contains("differ    the program sends it to nobody"), "{}", said.out);
    let established =
        agent.lbctl(&["explain", "192.0.2.9", vip, "--established", "-o", "json"]).await;
    assert_eq!(established.outcome, Outcome::Failed);
    let asked = |port: &str, protocol: &str, segment: &str, peer: &str| {
        format!(
            "POST /v1/explain {{\"client\":\"192.0.2.9\",\"client_port\":{port},\"address\":\"{vip}\",\
             \"protocol\":\"{protocol}\",\"segment\":\"{segment}\",\"from_peer\":{peer},\"interface\":null}}"
        )
    };
    assert_eq!(
        agent.asked(),
        [asked("77", "udp", "syn", "\"master2\""), asked("null", "tcp", "established", "null")]
    );
    for wrong in [&["explain", "client1", vip][..], &["explain", "192.0.2.9", "192.0.2.1"]] {
        assert_eq!(agent.lbctl(wrong).await.outcome, Outcome::Misused, "{wrong:?}");
    }
}

#[tokio::test]
async fn flows_are_told_one_to_a_line_and_whether_there_are_more() {
    let agent = Agent::start();
    let said = agent.lbctl(&["flows", "--limit", "2"]).await;
    assert_eq!(said.outcome, Outcome::Done, "{}", said.err);
    assert_eq!(said.row("192.0.2.7")[4..], ["direct", "-", "3600.0s", "1.2s", "-", "-"]);
    assert_eq!(said.row("192.0.2.8")[4..], ["nat", "-", "-", "1.2s", "-", "-"]);
    assert!(said.out.contains("these are 2; there may be more"), "{}", said.out);
    let json = agent.lbctl(&["flows", "-o", "json"]).await;
    let lines: Vec<Value> =
        json.out.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    assert_eq!((lines.len(), &lines[1]["source"]), (2, &json!("192.168.139.150:61000")));
}

#[tokio::test]
async fn what_is_wanted_of_flows_is_asked_for_and_what_goes_wrong_is_told() {
    let agent = Agent::start();
    let absent = agent.lbctl(&["flows", "--service=absent"]).await;
    assert_eq!(absent.outcome, Outcome::Failed);
    assert!(absent.err.contains("there is no service `absent`"), "{}", absent.err);
    let words = ["flows", "--client=[fd00::7]:5", "--backend=[fd00::134]:6443", "--limit=9"];
    let failed = agent.lbctl(&words).await;
    let query = "client=fd00::7&client_port=5&backend=%5Bfd00%3A%3A134%5D%3A6443&limit=9";
    assert!(failed.err.contains(query), "{}", failed.err);
    assert_eq!(failed.outcome, Outcome::Failed);
}
