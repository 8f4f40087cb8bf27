//! `lbctl` against an agent that is none: the real command line and the real client, over a real
//! Unix socket, to a server that answers what the test says.

#[path = "lbctl/answers.rs"]
mod answers;
#[path = "lbctl/check.rs"]
mod check;
#[path = "lbctl/events.rs"]
mod events;
#[path = "lbctl/explain.rs"]
mod explain;
#[path = "lbctl/import.rs"]
mod import;
#[path = "lbctl/rebalance.rs"]
mod rebalance;
#[path = "lbctl/scripts.rs"]
mod scripts;
#[path = "lbctl/upgrade.rs"]
mod upgrade;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use lb_agent::cli::{self, Outcome, Surroundings};
use lb_agent::control::api;
use lb_agent::control::client::{Client, ClientError};
use serde_json::{Value, json};
use tokio::net::UnixListener;

use answers::*;

/// "Now" in all tests.
const NOW: f64 = 1_700_000_000.0;

/// A directory of the test's own, removed with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("lbctl-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).expect("a new directory");
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        std::fs::write(self.path(name), text).expect("a writable directory");
        self.path(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What a run said and how it ended.
#[derive(Debug)]
struct Said {
    outcome: Outcome,
    out: String,
    err: String,
}

impl Said {
    /// The row of a table that begins with a word, split at its columns.
    fn row(&self, begin: &str) -> Vec<&str> {
        let line = self.out.lines().find(|line| line.starts_with(begin));
        let line = line.unwrap_or_else(|| panic!("no row {begin} in:\n{}", self.out));
        line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()
    }
}

async fn lbctl_with(socket: &Path, surroundings: Surroundings, arguments: &[&str]) -> Said {
    let socket = socket.to_str().expect("a path of the test's own");
    let words = ["lbctl", "--socket", socket].into_iter().chain(arguments.iter().copied());
    let whole: Vec<OsString> = words.map(OsString::from).collect();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let outcome = cli::run(whole, surroundings, &mut out, &mut err).await;
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Said { outcome, out: text(out), err: text(err) }
}

async fn lbctl(socket: &Path, arguments: &[&str]) -> Said {
    lbctl_with(socket, Surroundings { colour: false, now: NOW }, arguments).await
}

/// What the agent was asked, as `METHOD path body`.
type Asked = Arc<Mutex<Vec<String>>>;

/// An agent that notes what it is asked.
struct Agent {
    scratch: Scratch,
    asked: Asked,
}

impl Agent {
    fn start() -> Self {
        let scratch = Scratch::new();
        let asked = Asked::default();
        let listener = UnixListener::bind(scratch.path("lb.sock")).expect("a socket");
        let router = Router::new().fallback(answer).with_state(asked.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { scratch, asked }
    }

    fn socket(&self) -> PathBuf {
        self.scratch.path("lb.sock")
    }

    async fn lbctl(&self, arguments: &[&str]) -> Said {
        lbctl(&self.socket(), arguments).await
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no test panics while it holds this").clone()
    }
}

async fn answer(State(asked): State<Asked>, request: Request) -> Response {
    let question = format!("{} {}", request.method(), request.uri().path());
    let query = request.uri().query().unwrap_or_default().to_owned();
    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.expect("a short body");
    let noted = format!("{question} {}", String::from_utf8_lossy(&body));
    asked.lock().expect("as above").push(noted.trim_end().to_owned());
    let ok = |value: Value| (StatusCode::OK, value.to_string()).into_response();
    match question.as_str() {
        "GET /v1/status" => ok(status()),
        "GET /v1/services" => ok(services()),
        "GET /v1/backends" => ok(backends()),
        "GET /v1/nodes" => ok(nodes()),
        "GET /v1/vrrp" => ok(routers()),
        "GET /v1/tracks" => ok(tracks()),
        "POST /v1/interfaces/ens33" => ok(interface()),
        "DELETE /v1/interfaces/ens33" | "PUT /v1/role" => StatusCode::NO_CONTENT.into_response(),
        "POST /v1/interfaces/wlan0" => {
            let sentence = "wlan0 already has a foreign XDP program (id 7): detach it first";
            (StatusCode::CONFLICT, json!({ "error": sentence }).to_string()).into_response()
        }
        "POST /v1/reload" => ok(json!({
            "applied": query == "dry_run=false",
            "changes": ["service api comes, with 2 backends"]
        })),
        question if question.ends_with("/rebalance") => rebalance::answer(question, &query, &asked),
        "GET /v1/flows" => explain::flows(&query),
        "POST /v1/explain" => ok(explain::explanation(&noted)),
        "GET /v1/events" => events::answer(&query),
        "POST /v1/upgrade" => (StatusCode::OK, upgrade::answer(&noted)).into_response(),
        "PUT /v1/backends/admin" if noted.contains("master9") => {
            let sentence = "no backend is `master9`";
            (StatusCode::CONFLICT, json!({ "error": sentence }).to_string()).into_response()
        }
        "PUT /v1/backends/admin" if noted.contains("master3") => ok(json!([leaving("direct", 0)])),
        "PUT /v1/backends/admin" => ok(json!([leaving("local", 3)])),
        "POST /v1/interfaces/strange" => ok(json!({ "strange": true })),
        _ => (StatusCode::NOT_FOUND, "?").into_response(),
    }
}

#[tokio::test]
async fn status_tells_role_addresses_interfaces_and_packets() {
    let agent = Agent::start();
    let said = agent.lbctl(&["status"]).await;
    assert_eq!(said.outcome, Outcome::Done, "{}", said.err);
    assert_eq!(said.row("node"), ["node", "master1 is Active for 3m12s: configured as active"]);
    assert_eq!(said.row("agent"), ["agent", "0.1.0, up 1h1m, from /etc/lb/lb.toml"]);
    assert!(said.row("host")[1].ends_with("not steered: no cgroup2 is mounted"));
    assert_eq!(said.row("192.168.139.150"), ["192.168.139.150", "yes", "1640ms left"]);
    assert_eq!(said.row("fd00::150"), ["fd00::150", "no", "-"]);
    assert_eq!(said.row("ens33")[1..3], ["generic", "1m1s"]);
    assert_eq!(said.row("local_new"), ["local_new", "12"]);
    assert_eq!(said.row("warning:").len(), 1);
    assert!(!said.out.contains("direct_new"), "a verdict that never fell is for -o wide");
}

#[tokio::test]
async fn wide_status_explains_every_verdict() {
    let agent = Agent::start();
    let said = agent.lbctl(&["status", "-o", "wide"]).await;
    assert_eq!(said.row("direct_new")[1], "0");
    assert!(said.row("local_new")[2].contains("listener on this node"), "{}", said.out);
    assert_eq!(said.row("of_the_future"), ["of_the_future", "3", "-"]);
    assert_eq!(said.row("layout"), ["layout", "maps 1, tables 1"]);
    assert_eq!(said.row("map nat_flows")[1], "22.0 MiB");
}

#[tokio::test]
async fn status_tells_what_flows_and_services_take_and_how_full_the_maps_are() {
    let agent = Agent::start();
    let said = agent.lbctl(&["status"]).await;
    assert_eq!(said.row("nat flows"), ["nat flows", "22.0 MiB", "60000", "65536", "92%"]);
    assert_eq!(said.row("table slots"), ["table slots", "1.0 MiB", "66558", "67108864", "0%"]);
    assert_eq!(said.row("all")[1], "60.0 MiB");
    let sentence = "a translated flow takes 352 B; a service with its backends and its part of 2 \
                    tables 135.6 KiB on average";
    assert!(said.out.contains(sentence), "{}", said.out);
    assert!(!said.out.contains("map nat_flows"), "each map is for -o wide");
}

#[test]
fn the_status_of_an_agent_that_knows_nothing_of_memory_is_read() {
    let mut status = status();
    status.as_object_mut().expect("an object").remove("memory");
    let status: api::Status = serde_json::from_value(status).expect("the API's types");
    assert_eq!(status.memory, None);
}

#[tokio::test]
async fn services_show_how_many_backends_accept() {
    let agent = Agent::start();
    let said = agent.lbctl(&["services"]).await;
    let expected =
        ["kube-apiserver", "192.168.139.150:8443", "tcp", "source", "2/3", "healthy", "40"];
    assert_eq!(said.row("kube-apiserver"), expected);
    assert_eq!(said.row("dns")[1], "[fd00::150]:53");
    assert_eq!(said.row("dns")[4..6], ["1/1", "all"], "too few are healthy");
    let wide = agent.lbctl(&["services", "-o", "wide"]).await;
    let memory = ["472 B", "1.0 MiB", "12", "dns, 4s ago"];
    assert_eq!(wide.row("kube-apiserver")[7..10], ["900", "2.0 KiB", "65537"]);
    assert_eq!(wide.row("kube-apiserver")[10..], memory);
}

#[tokio::test]
async fn backends_show_state_and_reason() {
    let agent = Agent::start();
    let said = agent.lbctl(&["backends"]).await;
    let rows: Vec<Vec<&str>> = said
        .out
        .lines()
        .skip(1)
        .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect();
    let states: Vec<&str> = rows.iter().map(|row| row[4]).collect();
    assert_eq!(states, ["healthy", "draining", "down", "unknown"]);
    assert!(said.out.lines().next().unwrap().contains("LEFT"), "{}", said.out);
    assert_eq!(rows[1][8], "0");
    assert_eq!(rows[2][5..], ["1d1h", "33.3%", "14", "-", "connection refused"]);
    assert_eq!(rows[3][1..4], ["192.168.139.140:53", "-", "unresolved"]);
    let wide = agent.lbctl(&["backends", "-o", "wide"]).await;
    assert!(wide.out.lines().next().unwrap().contains("SOURCE"), "{}", wide.out);
    assert!(wide.out.lines().skip(1).all(|line| line.contains(" dns ")), "{}", wide.out);
}

#[tokio::test]
async fn backends_of_one_service_leave_out_the_others() {
    let agent = Agent::start();
    let said = agent.lbctl(&["backends", "dns", "-o", "json"]).await;
    let shown: Vec<api::Backend> = serde_json::from_str(&said.out).expect("the API's types");
    assert_eq!(shown.len(), 1);
    assert_eq!(shown[0].service, "dns");
    let said = agent.lbctl(&["backends", "web"]).await;
    assert_eq!(said.outcome, Outcome::Failed);
    assert!(
        said.err.contains("no service `web`: the services are kube-apiserver, dns"),
        "{said:?}"
    );
}

#[tokio::test]
async fn a_reload_says_what_it_did_or_would_do() {
    let agent = Agent::start();
    for (arguments, last) in [
        (&["reload"][..], "1 change is done"),
        (&["reload", "--dry-run"], "nothing was changed yet: lbctl reload does it"),
    ] {
        let said = agent.lbctl(arguments).await;
        let expected = format!("service api comes, with 2 backends\n{last}\n");
        assert_eq!((said.outcome, said.out), (Outcome::Done, expected));
    }
}

#[tokio::test]
async fn a_backend_is_drained_and_waited_for() {
    let agent = Agent::start();
    let said = agent.lbctl(&["backends", "drain", "master2", "--service", "kube-apiserver"]).await;
    assert_eq!(said.outcome, Outcome::Done, "{}", said.err);
    let row = said.row("kube-apiserver");
    assert_eq!((row[4], row[8], row[9]), ("draining", "3", "drained with lbctl"));
    let body = json!({
        "backend": "master2", "service": "kube-apiserver", "admin": "draining", "force": false
    });
    let asked = agent.asked();
    let told = asked[0].strip_prefix("PUT /v1/backends/admin ").expect("one request");
    assert_eq!(serde_json::from_str::<Value>(told).expect("JSON"), body);
    // The list, which is asked for next, says that none is left.
    let said = agent.lbctl(&["backends", "drain", "master2", "--wait"]).await;
    assert_eq!((said.outcome, said.row("kube-apiserver")[8]), (Outcome::Done, "0"));
    assert_eq!(agent.asked()[2], "GET /v1/backends");
}

#[tokio::test]
async fn a_wait_that_cannot_end_says_why() {
    let agent = Agent::start();
    for (backend, why) in [
        ("master9", "no backend is `master9`"),
        ("master3", "its connections cannot be counted here: run this on master1"),
    ] {
        let said = agent.lbctl(&["backends", "drain", backend, "--wait"]).await;
        assert_eq!(said.outcome, Outcome::Failed);
        assert!(said.err.contains(why), "{}", said.err);
    }
    let late = ["backends", "drain", "master2", "--wait", "--timeout", "0s"];
    let said = agent.lbctl(&late).await;
    assert_eq!(said.outcome, Outcome::Failed);
    assert!(said.err.contains("3 connections are left after 0s"), "{}", said.err);
    let said = agent.lbctl(&["backends", "drain", "master2", "--timeout", "10m"]).await;
    assert_eq!(said.outcome, Outcome::Misused, "a limit of a wait that is not asked for");
}

#[tokio::test]
async fn nodes_say_what_this_one_knows_of_the_others() {
    let agent = Agent::start();
    let said = agent.lbctl(&["nodes"]).await;
    let expected =
        ["master1 (this)", "192.168.139.133,fd00::133", "Active", "-", "02:00:00:00:00:01", "-"];
    assert_eq!(said.row("master1"), expected);
    let expected = ["master2", "192.168.139.134", "unknown", "no", "-", "yes, 2 refused"];
    assert_eq!(said.row("master2"), expected);
}

#[tokio::test]
async fn json_and_yaml_are_the_answer_itself() {
    let agent = Agent::start();
    for (verb, answer) in [
        ("status", status()),
        ("services", services()),
        ("backends", backends()),
        ("nodes", nodes()),
    ] {
        let json = agent.lbctl(&[verb, "-o", "json"]).await.out;
        assert_eq!(serde_json::from_str::<Value>(&json).expect("JSON"), answer, "{verb}");
        let yaml = agent.lbctl(&[verb, "-o", "yaml"]).await.out;
        assert_eq!(serde_yaml_ng::from_str::<Value>(&yaml).expect("YAML"), answer, "{verb}");
    }
}

#[tokio::test]
async fn attach_and_detach_ask_for_it_and_say_how_it_went() {
    let agent = Agent::start();
    let said = agent.lbctl(&["attach", "ens33"]).await;
    assert_eq!(said.out, "ens33 is attached in mode generic: the driver has no XDP\n");
    let said = agent.lbctl(&["detach", "ens33"]).await;
    assert_eq!((said.outcome, said.out.as_str()), (Outcome::Done, "ens33 is detached\n"));
    assert_eq!(agent.asked(), ["POST /v1/interfaces/ens33", "DELETE /v1/interfaces/ens33"]);
}

#[tokio::test]
async fn a_refusal_of_the_agent_is_passed_on_word_for_word() {
    let agent = Agent::start();
    let said = agent.lbctl(&["attach", "wlan0"]).await;
    assert_eq!(said.outcome, Outcome::Failed);
    let sentence = "error: wlan0 already has a foreign XDP program (id 7): detach it first\n";
    assert_eq!((said.out.as_str(), said.err.as_str()), ("", sentence));
}

#[tokio::test]
async fn a_name_is_not_taken_for_a_path() {
    let agent = Agent::start();
    agent.lbctl(&["detach", "../role"]).await;
    assert_eq!(agent.asked(), ["DELETE /v1/interfaces/..%2Frole"]);
}

#[tokio::test]
async fn role_is_changed_and_read_back() {
    let agent = Agent::start();
    let said = agent.lbctl(&["role", "active"]).await;
    assert_eq!(said.out, "master1 is Active: configured as active\n");
    assert_eq!(agent.asked(), [r#"PUT /v1/role {"role":"active"}"#, "GET /v1/status"]);
}

#[tokio::test]
async fn an_answer_that_makes_no_sense_is_told_as_such() {
    let agent = Agent::start();
    let said = agent.lbctl(&["attach", "strange"]).await;
    assert_eq!(said.outcome, Outcome::Failed);
    assert!(said.err.contains("are lbctl and lb-agent of the same version?"), "{}", said.err);
}

#[tokio::test]
async fn colour_is_used_only_where_it_is_wanted() {
    let agent = Agent::start();
    let colourful = Surroundings { colour: true, now: NOW };
    let said = lbctl_with(&agent.socket(), colourful, &["backends"]).await;
    assert!(said.out.contains("\x1b[31mdown\x1b[0m"), "{}", said.out);
    assert!(!agent.lbctl(&["backends"]).await.out.contains('\x1b'));
}

#[tokio::test]
async fn without_a_socket_the_user_learns_that_no_agent_runs() {
    let scratch = Scratch::new();
    let said = lbctl(&scratch.path("lb.sock"), &["status"]).await;
    assert_eq!(said.outcome, Outcome::Failed);
    assert!(said.err.contains("lb-agent is not running"), "{}", said.err);
    assert!(said.err.contains("lb.sock"), "{}", said.err);
    assert_eq!(said.err.lines().count(), 1);
}

#[tokio::test]
async fn a_socket_that_a_killed_agent_left_is_told_apart() {
    let scratch = Scratch::new();
    let socket = scratch.path("lb.sock");
    drop(UnixListener::bind(&socket).expect("a socket"));
    let said = lbctl(&socket, &["status"]).await;
    assert!(said.err.contains("nobody listens"), "{}", said.err);
}

#[tokio::test]
async fn an_agent_that_hangs_is_not_waited_for_for_ever() {
    let scratch = Scratch::new();
    let socket = scratch.path("lb.sock");
    let _listener = UnixListener::bind(&socket).expect("a socket");
    let client = Client::new(&socket).with_timeout(Duration::from_millis(20));
    let error = client.status().await.expect_err("nobody answers");
    assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
    assert!(error.to_string().contains("0.02 s"), "{error}");
}

#[tokio::test]
async fn an_agent_that_dies_in_between_is_noticed() {
    let scratch = Scratch::new();
    let socket = scratch.path("lb.sock");
    let listener = UnixListener::bind(&socket).expect("a socket");
    let dying = async {
        let (stream, _) = listener.accept().await.expect("a connection");
        stream.readable().await.expect("a question");
        drop(stream);
    };
    let client = Client::new(&socket);
    let (answer, ()) = tokio::join!(client.status(), dying);
    assert!(matches!(answer, Err(ClientError::Http { .. })), "{answer:?}");
}

#[tokio::test]
async fn vrrp_has_a_line_for_each_tracked_thing_that_is_not_good() {
    let agent = Agent::start();
    let said = agent.lbctl(&["vrrp"]).await;
    assert_eq!(said.outcome, Outcome::Done, "{}", said.err);
    let about = "(script /bin/check every 2s as nobody)";
    for line in [
        format!(
            "warning: track check {about} fails for 1m1s: exit status 1; this node stays Backup"
        ),
        format!("warning: track light {about} fails for 1m1s: exit status 1; priority -20"),
        format!(
            "warning: track fresh {about} waits for 1m1s: exit status 1; this node stays Backup"
        ),
    ] {
        assert!(said.out.lines().any(|said| said == line), "no `{line}` in:\n{}", said.out);
    }
    assert!(!said.out.contains("track fine"), "{}", said.out);
}

#[tokio::test]
async fn vrrp_has_a_line_for_each_trouble_with_address_and_mac() {
    let agent = Agent::start();
    let said = agent.lbctl(&["vrrp"]).await;
    let line = "warning: router 51 on ens33: split_brain from 192.168.139.134 (02:00:00:00:00:07), \
                3 times, last 1m1s ago: two nodes are active";
    assert!(said.out.lines().any(|said| said == line), "no `{line}` in:\n{}", said.out);
}

#[tokio::test]
async fn vrrp_names_the_virtual_mac_beside_its_interface() {
    let agent = Agent::start();
    let said = agent.lbctl(&["vrrp"]).await;
    assert!(said.out.contains("ens33 (00:00:5e:00:01:33)"), "{}", said.out);
}

#[tokio::test]
async fn vrrp_for_programs_is_the_list_of_routers() {
    let agent = Agent::start();
    let said = agent.lbctl(&["vrrp", "-o", "json"]).await;
    let answer: Value = serde_json::from_str(&said.out).expect("JSON");
    assert_eq!(answer, routers());
    assert_eq!(agent.asked(), ["GET /v1/vrrp"]);
}

const GOOD: &str = include_str!("fixtures/config/taken/both-families.toml");

#[tokio::test]
async fn mistakes_on_the_command_line_are_misuse() {
    let scratch = Scratch::new();
    let socket = scratch.path("none");
    for arguments in
        [&["atach", "ens33"][..], &["attach"], &["status", "-o", "xml"], &["role", "master"], &[]]
    {
        let said = lbctl(&socket, arguments).await;
        assert_eq!(said.outcome, Outcome::Misused, "{arguments:?}");
        assert_eq!(said.out, "", "{arguments:?}");
        assert!(!said.err.is_empty(), "{arguments:?}");
    }
    let said = lbctl(&socket, &["atach", "ens33"]).await;
    assert!(said.err.contains("attach"), "the verb that was meant is named: {}", said.err);
}

#[tokio::test]
async fn help_teaches_by_example() {
    let scratch = Scratch::new();
    let help = lbctl(&scratch.path("none"), &["--help"]).await;
    assert_eq!(help.outcome, Outcome::Done);
    for part in ["Examples:", "lbctl attach ens33", "Exit status:", "completions"] {
        assert!(help.out.contains(part), "no `{part}` in:\n{}", help.out);
    }
    let verbs = "attach detach backends reload upgrade role check import doctor completions";
    for verb in verbs.split(' ') {
        let help = lbctl(&scratch.path("none"), &[verb, "--help"]).await;
        assert!(help.out.contains("Example"), "{verb}:\n{}", help.out);
    }
}

#[tokio::test]
async fn doctor_judges_this_kernel_without_an_agent() {
    let scratch = Scratch::new();
    // Nobody's network is listened to.
    let words = ["doctor", "--interface", "lo", "--seconds", "0"];
    let people = lbctl(&scratch.path("none"), &words).await;
    let program = lbctl(&scratch.path("none"), &[&words[..], &["-o", "json"]].concat()).await;
    // Whatever the kernel is: both say the same of it.
    assert_eq!(people.outcome, program.outcome, "{}", people.out);
    let answer: Value = serde_json::from_str(&program.out).expect("JSON");
    let findings = answer["findings"].as_array().expect("findings");
    assert!(findings.len() > 10, "{answer}");
    for finding in findings {
        let subject = finding["subject"].as_str().expect("a subject");
        let good = finding["severity"] == "good";
        assert_eq!(people.row(subject)[1] == "ok", good, "{subject} in:\n{}", people.out);
        let wrong = finding["severity"] == "bad" || finding["severity"] == "doubtful";
        assert!(!finding["remedy"].is_null() || !wrong, "{finding}");
        assert!(finding["remedy"].is_null() || !good, "{finding}");
    }
    assert!(people.out.contains(answer["summary"].as_str().expect("a summary")));
}

#[tokio::test]
async fn completions_name_the_verbs() {
    let scratch = Scratch::new();
    for shell in ["bash", "zsh", "fish"] {
        let said = lbctl(&scratch.path("none"), &["completions", shell]).await;
        assert_eq!(said.outcome, Outcome::Done);
        assert!(said.out.contains("detach"), "{shell}");
    }
}

/// A stream that nobody reads any more.
struct Closed;

impl std::io::Write for Closed {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_reader_that_has_seen_enough_is_no_failure() {
    let agent = Agent::start();
    let socket = agent.socket().into_os_string();
    let arguments = ["lbctl".into(), "--socket".into(), socket, "backends".into()];
    let surroundings = Surroundings { colour: false, now: NOW };
    let mut err = Vec::new();
    let outcome = cli::run(arguments, surroundings, &mut Closed, &mut err).await;
    assert_eq!(outcome, Outcome::Done);
    assert_eq!(err, b"");
}
