//! `lbctl events`: lines that come as things happen.

use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use lb_agent::cli::Outcome;
use serde_json::{Value, json};

use super::{Agent, NOW};

/// What there is at first; whoever comes back for more is refused, with what it asked.
pub(super) fn answer(query: &str) -> Response {
    if query.contains("since=") {
        return (StatusCode::CONFLICT, json!({ "error": query }).to_string()).into_response();
    }
    let event = |sequence: u64, ago: f64, severity: &str, fields: Value| {
        json!({ "event": {
            "sequence": sequence, "at": NOW - ago, "severity": severity, "kind": "backend-down",
            "sentence": "backend is down", "fields": fields,
        } })
    };
    let lines = [
        json!({ "begin": { "run": "a b", "oldest": 7, "newest": 12 } }),
        event(7, 7200.0, "information", json!({ "backend": "192.0.2.7:6443" })),
        json!({ "gap": { "missed": 4, "reason": "4 events were not read in time" } }),
        event(12, 60.0, "warning", json!({ "reason": "no answer\u{1b}", "checks": 3 })),
    ];
    lines.map(|line| format!("{line}\n")).concat().into_response()
}

#[tokio::test]
async fn events_are_told_in_order_with_what_is_missing_between_them() {
    let agent = Agent::start();
    let said = agent.lbctl(&["events"]).await;
    let expected = "\
2023-11-14T20:13:20.000000Z  info     backend is down backend=192.0.2.7:6443
                             missing  4 events were not read in time
2023-11-14T22:12:20.000000Z  warning  backend is down checks=3 reason=\"no answer\\u{1b}\"
";
    assert_eq!((said.outcome, said.out.as_str()), (Outcome::Done, expected), "{}", said.err);
}

#[tokio::test]
async fn old_ones_and_those_that_are_no_warnings_can_be_left_out_but_never_a_gap() {
    let agent = Agent::start();
    for arguments in [["events", "--since=1h"], ["events", "--warnings"]] {
        let said = agent.lbctl(&arguments).await;
        assert_eq!(said.out.lines().count(), 2, "{}", said.out);
        assert!(said.out.contains("missing") && said.out.contains("checks=3"), "{}", said.out);
    }
    let said = agent.lbctl(&["events", "-o", "json", "--warnings"]).await;
    let lines: Vec<Value> =
        said.out.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    assert_eq!(
        (&lines[0]["gap"]["missed"], &lines[1]["event"]["sequence"]),
        (&json!(4), &json!(12))
    );
    let misused = agent.lbctl(&["events", "--since", "yesterday"]).await;
    assert_eq!(misused.outcome, Outcome::Misused);
}

#[tokio::test]
async fn a_follower_goes_on_behind_the_last_event_with_the_agent_that_comes_next() {
    let agent = Agent::start();
    let said = agent.lbctl(&["events", "--follow", "-o", "json"]).await;
    assert_eq!((said.outcome, said.out.lines().count()), (Outcome::Failed, 3), "{}", said.err);
    assert!(said.err.contains("follow=true&since=12&run=a%20b"), "{}", said.err);
}
