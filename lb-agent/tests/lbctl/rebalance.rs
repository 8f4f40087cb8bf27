//! `lbctl rebalance`.

use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use lb_agent::cli::Outcome;
use lb_agent::control::api;
use serde_json::{Value, json};

use super::{Agent, Asked};

fn told(service: &str, job: Value) -> Value {
    json!({
        "service": service, "obstacle": null, "automatic": false, "per_minute": 60,
        "look": {
            "at": 1.0, "connections": 34, "misplaced": 12, "movable": 9, "busy": 2, "young": 1,
            "unsure": 0, "returns": 0,
            "targets": [{
                "address": "192.168.139.135:6443", "node": "master3", "misplaced": 12, "movable": 9,
            }],
        },
        "job": job, "moved": 4, "translated": 0, "own": 3,
    })
}

fn job(left: u64, ended: Option<(&str, bool)>) -> Value {
    json!({
        "number": 1, "automatic": false, "per_minute": 60, "begun": 1.0, "moved": 9 - left, "left": left,
        "ended": ended.map(|_| 2.0), "complete": ended.is_some_and(|(_, complete)| complete),
        "reason": ended.map(|(reason, _)| reason),
    })
}

/// Of the service `api` all are moved once its state was asked for twice, of `cut` something comes between, `slow` goes on.
pub(super) fn answer(question: &str, query: &str, asked: &Asked) -> Response {
    let ok = |value: Value| (StatusCode::OK, value.to_string()).into_response();
    let service = question.split('/').nth(3).expect("a service");
    if service == "absent" {
        let sentence = "there is no service `absent` (lbctl services)";
        return (StatusCode::CONFLICT, json!({ "error": sentence }).to_string()).into_response();
    }
    let before = asked.lock().expect("no test panics while it holds this");
    let begun = before.iter().any(|asked| asked.starts_with("POST"));
    let shown = before.iter().filter(|asked| asked.starts_with("GET")).count();
    let job = match (question.split(' ').next(), service) {
        (Some("DELETE"), _) => job(5, Some(("stopped with lbctl", false))),
        (Some("POST"), _) if query.contains("dry_run=true") => Value::Null,
        (Some("GET"), _) if !begun => Value::Null,
        (Some("GET"), "api") if shown > 2 => job(0, Some(("none is left that can be moved", true))),
        (Some("GET"), "cut") => job(5, Some(("other backends get new connections now", false))),
        _ => job(9, None),
    };
    ok(told(service, job))
}

#[tokio::test]
async fn what_would_be_moved_is_told_with_where_to() {
    let agent = Agent::start();
    let said = agent.lbctl(&["rebalance", "api", "--dry-run"]).await;
    assert_eq!(said.outcome, Outcome::Done, "{}", said.err);
    let summary = "api: 34 connections here, 12 of them misplaced, 9 movable now, 2 not idle, 1 not old enough";
    assert_eq!(said.out.lines().next(), Some(summary));
    assert_eq!(said.row("192.168.139.135")[1..], ["master3", "12", "9"]);
    assert!(said.out.contains("3 of this node's own processes are not moved"), "{}", said.out);
    assert!(!said.out.contains("NAT"), "{}", said.out);
    let said = agent.lbctl(&["rebalance", "api", "--dry-run", "-o", "json"]).await;
    let shown: api::Rebalance = serde_json::from_str(&said.out).expect("the API's types");
    assert_eq!(shown.look.expect("a look").movable, 9);
}

#[tokio::test]
async fn it_is_waited_for_until_none_is_left() {
    let agent = Agent::start();
    let said = agent.lbctl(&["rebalance", "api", "--wait", "--per-minute", "600"]).await;
    assert_eq!(said.outcome, Outcome::Done, "{}", said.err);
    assert!(said.out.ends_with("9 were moved: none is left that can be moved\n"), "{}", said.out);
    let asked = agent.asked();
    let begun: Vec<_> = asked.iter().filter(|asked| asked.starts_with("POST")).collect();
    assert_eq!(begun, ["POST /v1/services/api/rebalance"], "once: {asked:?}");
    // Now that it runs, or did, it is not begun again.
    let said = agent.lbctl(&["rebalance", "slow"]).await;
    assert!(said.out.contains("0 were moved, 9 are left, 60 a minute"), "{}", said.out);
    let asked = agent.asked().len();
    let waiting = ["rebalance", "slow", "--wait", "--timeout", "0s"];
    let said = agent.lbctl(&waiting).await;
    assert_eq!(said.outcome, Outcome::Failed);
    assert!(
        said.err.contains("0 connections of slow were moved in 0s, 9 are left"),
        "{}",
        said.err
    );
    assert_eq!(
        agent.asked()[asked..],
        ["GET /v1/services/slow/rebalance"],
        "what goes on is waited for"
    );
}

#[tokio::test]
async fn what_comes_between_is_a_failure_with_its_reason() {
    let agent = Agent::start();
    let said = agent.lbctl(&["rebalance", "cut", "--wait"]).await;
    assert_eq!(said.outcome, Outcome::Failed);
    let why =
        "no more connections of cut are moved: other backends get new connections now; 4 were";
    assert!(said.err.contains(why), "{}", said.err);
    let said = agent.lbctl(&["rebalance", "absent"]).await;
    assert_eq!(said.outcome, Outcome::Failed);
    assert!(said.err.contains("there is no service `absent`"), "{}", said.err);
    let said = agent.lbctl(&["rebalance", "api", "--stop"]).await;
    assert!(said.out.ends_with("4 were moved: stopped with lbctl\n"), "{}", said.out);
    assert_eq!(agent.asked().last().expect("asked"), "DELETE /v1/services/api/rebalance");
    for wrong in [&["--per-minute", "0"][..], &["--per-minute", "6001"], &["--dry-run", "--wait"]] {
        let said = agent.lbctl(&[&["rebalance", "api"], wrong].concat()).await;
        assert_eq!(said.outcome, Outcome::Misused, "{wrong:?}");
    }
}
