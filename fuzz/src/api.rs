//! Any bytes as a client of the control API: each request that HTTP lets through gets an answer, and
//! each that is not carried out a sentence. The server is ours down to the routes, its HTTP is hyper's;
//! between the two ends is memory instead of a socket.
//!
//! An input's first byte chooses the routes and how the rest is meant: bytes on the wire, or a request
//! in parts, of which chance hardly hits the lengths.

#![no_main]

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use lb_fuzz::control::api;
use lb_fuzz::control::server::{Command, Refusal, public_routes, routes};
use libfuzzer_sys::{Corpus, fuzz_target};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tower_service::Service as _;

/// Bits of the first byte.
const PUBLIC: u8 = 1;
const IN_PARTS: u8 = 2;
/// The agent carries nothing out.
const REFUSES: u8 = 4;
/// The agent is about to end.
const STOPPING: u8 = 8;

const METHODS: [Method; 5] =
    [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::PATCH];

fuzz_target!(|input: &[u8]| -> Corpus {
    let Some((choices, rest)) = input.split_first() else { return Corpus::Reject };
    let runtime = Builder::new_current_thread().build();
    let runtime: Runtime = runtime.expect("a runtime needs no system");
    runtime.block_on(async {
        let (commands, inbox) = mpsc::channel(4);
        if choices & STOPPING == 0 {
            tokio::spawn(agent(inbox, choices & REFUSES != 0));
        } else {
            drop(inbox);
        }
        let routes = if choices & PUBLIC != 0 { public_routes(commands) } else { routes(commands) };
        if choices & IN_PARTS != 0 {
            in_parts(routes, rest).await
        } else {
            on_the_wire(routes, rest).await;
            Corpus::Keep
        }
    })
});

/// A request as two numbers and three texts: method, kind of body; path and query; body.
async fn in_parts(mut routes: Router, input: &[u8]) -> Corpus {
    let Some((&[method, kind], rest)) = input.split_first_chunk() else { return Corpus::Reject };
    let mut parts = rest.splitn(2, |byte| *byte == b'\n');
    let (path, body) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let mut request = Request::builder().method(&METHODS[usize::from(method) % METHODS.len()]);
    request = match kind % 3 {
        0 => request.header(header::CONTENT_TYPE, "application/json"),
        1 => request.header(header::CONTENT_TYPE, "text/plain"),
        _ => request,
    };
    let request = request.uri(path).body(Body::from(body.to_vec()));
    let Ok(request) = request else { return Corpus::Reject };
    let answer = routes.call(request).await.unwrap_or_else(|never| match never {});
    judge(answer).await;
    Corpus::Keep
}

async fn judge(answer: Response<Body>) {
    let status = answer.status();
    let body = answer.into_body().collect().await.expect("an answer is whole").to_bytes();
    if status.is_success() {
        return;
    }
    assert!(status.is_client_error() || status == StatusCode::SERVICE_UNAVAILABLE, "{status}");
    let said: Result<api::ApiError, _> = serde_json::from_slice(&body);
    let said =
        said.unwrap_or_else(|error| panic!("{status} without a sentence: {error}: {body:?}"));
    assert!(said.error.len() > 10, "{status} says only {:?}", said.error);
}

/// A connection that sends the input and ends. What hyper refuses by itself has no sentence.
async fn on_the_wire(routes: Router, input: &[u8]) {
    let (client, server) = tokio::io::duplex(1 << 16);
    let http = hyper::server::conn::http1::Builder::new();
    let service = TowerToHyperService::new(routes);
    let serving = tokio::spawn(async move {
        // What a client does wrong ends its connection, and nothing else.
        let _ = http.serve_connection(TokioIo::new(server), service).await;
    });
    let (mut reading, mut writing) = tokio::io::split(client);
    let answers = tokio::spawn(async move {
        let mut answers = Vec::new();
        reading.read_to_end(&mut answers).await.map(|_| answers)
    });
    // A server that has seen enough does not read on.
    let _ = writing.write_all(input).await;
    let _ = writing.shutdown().await;
    let answers = answers.await.expect("the client does not panic").unwrap_or_default();
    serving.await.expect("the server does not panic");
    assert!(answers.is_empty() || answers.starts_with(b"HTTP/1."), "{answers:?}");
    assert!(!answers.starts_with(b"HTTP/1.1 500"), "{answers:?}");
}

/// The agent's loop, as far as the server knows it.
async fn agent(mut inbox: mpsc::Receiver<Command>, refuses: bool) {
    let refusal = || Refusal { callers: true, sentence: "no, for some reason".to_owned() };
    let done = || if refuses { Err(refusal()) } else { Ok(()) };
    while let Some(command) = inbox.recv().await {
        match command {
            Command::Attach(_, reply) => drop(reply.send(Err(refusal()))),
            Command::Detach(_, reply) | Command::SetRole(_, reply) => drop(reply.send(done())),
            Command::Upgrade(_, _, reply) => drop(reply.send(done())),
            Command::VrrpResign(_, reply) | Command::VrrpHold(_, _, reply) => {
                drop(reply.send(done()));
            }
            Command::Services(reply) => drop(reply.send(Vec::new())),
            Command::Backends(_, reply) => {
                drop(reply.send(if refuses { Err(refusal()) } else { Ok(Vec::new()) }));
            }
            Command::Admin(_, reply) => {
                drop(reply.send(if refuses { Err(refusal()) } else { Ok(Vec::new()) }));
            }
            // As long, and its own.
            Command::Rebalance(_, _, reply) => drop(reply.send(Err(refusal()))),
            Command::Reload(dry_run, reply) => {
                let reload = api::Reload { applied: !dry_run, changes: Vec::new() };
                drop(reply.send(if refuses { Err(refusal()) } else { Ok(reload) }));
            }
            Command::Nodes(reply) => drop(reply.send(Vec::new())),
            Command::Interfaces(reply) => drop(reply.send(Vec::new())),
            Command::Notify(reply) => drop(reply.send(Vec::new())),
            Command::Vrrp(reply) => drop(reply.send(Vec::new())),
            Command::Tracks(reply) => drop(reply.send(Vec::new())),
            Command::Flows(_, _, reply) => drop(reply.send(done())),
            // Its answer is long, too.
            Command::Explain(_, reply) => drop(reply.send(Err(refusal()))),
            // They come line by line, and here are none.
            Command::Events(_, lines) => drop(lines),
            Command::Metrics(reply) => drop(reply.send("# EOF\n".to_owned())),
            // What it would say is the agent's own, and long.
            Command::Status(reply) => drop(reply),
        }
    }
}
