//! `lbctl upgrade`: an answer that comes in lines.

use lb_agent::cli::Outcome;
use serde_json::{Value, json};

use super::Agent;

/// What the agent that is none answers to a request.
pub(super) fn answer(asked: &str) -> String {
    let last = match asked.contains("/bad") {
        true => {
            json!({ "failed": "/bad does not follow, and this agent goes on: it said nothing" })
        }
        false => json!({ "done": upgraded(!asked.contains("\"check\":true")) }),
    };
    let step = json!({ "step": { "what": "it answers", "after_ms": 20 } });
    format!("{step}\n{last}\n")
}

fn upgraded(done: bool) -> Value {
    let version =
        |version: &str| json!({ "version": version, "layout_version": 2, "table_version": 2 });
    json!({
        "done": done, "mode": "in-place", "path": "/usr/sbin/lb-agent", "from": version("1.0"),
        "to": version("1.1"), "pid": done.then_some(77), "took_ms": 900, "pause_ms": 4.5,
    })
}

#[tokio::test]
async fn an_upgrade_tells_its_steps_and_how_it_ended() {
    let agent = Agent::start();
    let done = agent.lbctl(&["upgrade", "--hand-over"]).await;
    let expected = "  0.02s  it answers\nupgraded from version 1.0 to 1.1, process 77\n";
    assert_eq!((done.outcome, done.out.as_str()), (Outcome::Done, expected));
    let asked = agent.lbctl(&["upgrade", "--check", "-o", "json"]).await;
    let answer: Value = serde_json::from_str(&asked.out).expect("JSON alone");
    assert_eq!((asked.outcome, &answer["done"]), (Outcome::Done, &json!(false)));
    let failed = agent.lbctl(&["upgrade", "/bad"]).await;
    assert_eq!((failed.outcome, failed.out.as_str()), (Outcome::Failed, "  0.02s  it answers\n"));
    assert!(failed.err.contains("this agent goes on: it said nothing"), "{}", failed.err);
    let both = agent.lbctl(&["upgrade", "--hand-over", "--in-place"]).await;
    assert_eq!(both.outcome, Outcome::Misused);
    assert_eq!(
        agent.asked(),
        [
            "POST /v1/upgrade {\"mode\":\"hand-over\",\"check\":false}",
            "POST /v1/upgrade {\"check\":true}",
            "POST /v1/upgrade {\"path\":\"/bad\",\"check\":false}",
        ]
    );
}
