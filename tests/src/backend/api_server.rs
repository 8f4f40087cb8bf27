//! As much of a Kubernetes API server as tells of the EndpointSlices of one service: list and watch over TLS with a bearer
//! token, from a version on, as long as it remembers it. The server side runs as `lb-lab api-server`; [`ApiServer`] is a
//! scenario's handle to one.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use futures::stream::unfold;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::AUTHORIZATION;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::https;
use crate::lab::certificate::Certificate;
use crate::lab::{Host, Lab, Process};

const START: Duration = Duration::from_secs(20);
const READY: &str = "ready";
/// The one slice that there is.
const SLICE: &str = "api-1";

type Body = BoxBody<Bytes, Infallible>;

/// The arguments of `lb-lab api-server`.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    #[arg(long)]
    pub listen: SocketAddr,
    /// PEM file of its certificate
    #[arg(long)]
    pub certificate: PathBuf,
    /// PEM file of its key
    #[arg(long)]
    pub key: PathBuf,
    /// The bearer token that it takes
    #[arg(long)]
    pub token: String,
    /// The first version that it tells of
    #[arg(long, default_value_t = 1)]
    pub version: u64,
}

/// What a scenario has it do, a line of JSON each.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Order {
    /// The slice has these endpoints from now on.
    Set(Vec<Endpoint>),
    /// Every watch is told that nothing has changed until now.
    Bookmark,
    /// Every connection breaks.
    Cut,
    /// No version before the present one is remembered.
    Forget,
    /// Another token is taken from now on.
    Token(String),
    /// Say what was asked.
    Count,
}

/// An endpoint of the slice.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Endpoint {
    pub address: SocketAddr,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
}

impl Endpoint {
    /// One for new clients.
    pub const fn ready(address: SocketAddr) -> Self {
        Self { address, ready: true, serving: true, terminating: false }
    }

    /// One on its way out, that still serves.
    pub const fn terminating(address: SocketAddr) -> Self {
        Self { address, ready: false, serving: true, terminating: true }
    }
}

/// Answers by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub lists: u64,
    pub watches: u64,
    /// Watches from a version that was not remembered.
    pub expired: u64,
    pub unauthorized: u64,
}

struct State {
    version: u64,
    oldest: u64,
    token: String,
    slice: Value,
    /// Events by the version that they made.
    events: Vec<(u64, String)>,
    counts: Counts,
}

struct Api {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
    cut: watch::Sender<u64>,
}

/// Serves until it is killed or its standard input ends.
///
/// # Errors
/// Where it cannot listen, or is told what it does not understand.
pub async fn serve(arguments: Arguments) -> Result<()> {
    let tls = https::acceptor(&arguments.certificate, &arguments.key)?;
    let address = arguments.listen;
    let listener = TcpListener::bind(address).await;
    let listener = listener.with_context(|| format!("cannot listen on {address}"))?;
    let version = arguments.version;
    let state = State {
        version,
        oldest: version,
        token: arguments.token,
        slice: slice(version, &[]),
        events: Vec::new(),
        counts: Counts::default(),
    };
    let api = Arc::new(Api {
        state: Mutex::new(state),
        changed: watch::Sender::new(version),
        cut: watch::Sender::new(0),
    });
    tokio::spawn(accept(listener, tls, Arc::clone(&api)));
    say(READY)?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await.context("cannot read orders")? {
        let order: Order = serde_json::from_str(&line).context("no order")?;
        let said = api.obey(order)?;
        say(&said)?;
    }
    Ok(())
}

impl Api {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn obey(&self, order: Order) -> Result<String> {
        let mut state = self.state();
        match order {
            Order::Set(endpoints) => {
                state.version += 1;
                state.slice = slice(state.version, &endpoints);
                let event = json!({ "type": "MODIFIED", "object": state.slice });
                let version = state.version;
                state.events.push((version, event.to_string()));
            }
            Order::Bookmark => {
                state.version += 1;
                let version = state.version;
                let metadata = json!({ "resourceVersion": version.to_string() });
                let object = json!({ "kind": "EndpointSlice", "metadata": metadata,
                                     "addressType": "", "endpoints": null, "ports": null });
                let event = json!({ "type": "BOOKMARK", "object": object });
                state.events.push((version, event.to_string()));
            }
            Order::Cut => self.cut.send_modify(|times| *times += 1),
            Order::Forget => {
                state.version += 1;
                state.oldest = state.version;
                state.events.clear();
            }
            Order::Token(token) => state.token = token,
            Order::Count => return Ok(serde_json::to_string(&state.counts)?),
        }
        self.changed.send_replace(state.version);
        Ok(READY.to_owned())
    }

    fn respond(self: &Arc<Self>, request: &Request<Incoming>) -> Response<Body> {
        let mut state = self.state();
        let token = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        if token != Some(&format!("Bearer {}", state.token)) {
            state.counts.unauthorized += 1;
            return refused(401, "Unauthorized", "Unauthorized");
        }
        if request.uri().path() != "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices" {
            return refused(404, "NotFound", "the server could not find the requested resource");
        }
        let query = query(request.uri().query().unwrap_or_default());
        if query.get("labelSelector").copied() != Some("kubernetes.io%2Fservice-name%3Dapi") {
            return refused(400, "BadRequest", "another selector was expected");
        }
        if !query.contains_key("watch") {
            state.counts.lists += 1;
            let metadata = json!({ "resourceVersion": state.version.to_string() });
            let list = json!({ "kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1",
                               "metadata": metadata, "items": [state.slice] });
            return Response::new(Full::new(Bytes::from(list.to_string())).boxed());
        }
        let from = query.get("resourceVersion").and_then(|text| text.parse().ok()).unwrap_or(0);
        if from < state.oldest {
            state.counts.expired += 1;
            let status = status(410, "Expired", "too old resource version");
            let event = json!({ "type": "ERROR", "object": status });
            return Response::new(Full::new(Bytes::from(format!("{event}\n"))).boxed());
        }
        state.counts.watches += 1;
        drop(state);
        self.watch(from)
    }

    fn watch(self: &Arc<Self>, from: u64) -> Response<Body> {
        let begin = (Arc::clone(self), from, self.changed.subscribe());
        let frames = unfold(begin, |(api, sent, mut changed)| async move {
            loop {
                changed.borrow_and_update();
                let next = api.state().events.iter().find(|(version, _)| *version > sent).cloned();
                if let Some((version, event)) = next {
                    let frame = Frame::data(Bytes::from(format!("{event}\n")));
                    return Some((Ok::<_, Infallible>(frame), (api, version, changed)));
                }
                changed.changed().await.ok()?;
            }
        });
        Response::new(BodyExt::boxed(StreamBody::new(frames)))
    }
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, api: Arc<Api>) {
    while let Ok((stream, _)) = listener.accept().await {
        let mut cut = api.cut.subscribe();
        let talking = converse(stream, tls.clone(), Arc::clone(&api));
        tokio::spawn(async move {
            tokio::select! {
                // Whoever breaks off is told nothing.
                _ = talking => {}
                _ = cut.changed() => {}
            }
        });
    }
}

async fn converse(stream: TcpStream, tls: TlsAcceptor, api: Arc<Api>) -> Result<()> {
    let stream = tls.accept(stream).await?;
    let service = service_fn(move |request| {
        let response = api.respond(&request);
        async move { Ok::<_, Infallible>(response) }
    });
    let http = hyper::server::conn::http1::Builder::new();
    http.serve_connection(TokioIo::new(stream), service).await.context("a conversation")
}

fn query(text: &str) -> HashMap<&str, &str> {
    text.split('&').filter_map(|pair| pair.split_once('=')).collect()
}

fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
            "reason": reason, "message": message })
}

fn refused(code: u16, reason: &str, message: &str) -> Response<Body> {
    let body = status(code, reason, message).to_string();
    let mut response = Response::new(Full::new(Bytes::from(body)).boxed());
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_REQUEST);
    response
}

/// As Kubernetes' own controller writes it.
fn slice(version: u64, endpoints: &[Endpoint]) -> Value {
    let port = endpoints.first().map_or(6443, |endpoint| endpoint.address.port());
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|endpoint| {
            let Endpoint { address, ready, serving, terminating } = endpoint;
            json!({ "addresses": [address.ip()],
                    "conditions": { "ready": ready, "serving": serving, "terminating": terminating } })
        })
        .collect();
    json!({
        "kind": "EndpointSlice",
        "apiVersion": "discovery.k8s.io/v1",
        "metadata": { "name": SLICE, "namespace": "default", "resourceVersion": version.to_string(),
                      "labels": { "kubernetes.io/service-name": "api" } },
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{ "name": "https", "port": port, "protocol": "TCP" }],
    })
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("cannot write to the output")
}

/// A running one. Owned: killed on drop.
#[derive(Debug)]
pub struct ApiServer {
    process: Process,
}

impl ApiServer {
    /// Starts it and waits until it listens.
    ///
    /// # Errors
    /// Where it does not come up; its log is quoted.
    pub fn start(
        lab: &Lab,
        host: &Host,
        listen: SocketAddr,
        certificate: &Certificate,
        (token, version): (&str, u64),
    ) -> Result<Self> {
        let mut command = lab.tool();
        command.args(["api-server", "--listen", &listen.to_string(), "--token", token]);
        command.arg("--certificate").arg(&certificate.server);
        command.arg("--key").arg(&certificate.server_key);
        command.args(["--version", &version.to_string()]);
        let process = host.spawn("api-server", command)?;
        let line = process.line(START)?;
        ensure!(line == READY, "the API server said {line:?}");
        Ok(Self { process })
    }

    /// # Errors
    /// As all of them: where it does not obey.
    pub fn set(&mut self, endpoints: Vec<Endpoint>) -> Result<()> {
        self.order(&Order::Set(endpoints))
    }

    /// # Errors
    /// Where it does not obey.
    pub fn bookmark(&mut self) -> Result<()> {
        self.order(&Order::Bookmark)
    }

    /// # Errors
    /// Where it does not obey.
    pub fn cut(&mut self) -> Result<()> {
        self.order(&Order::Cut)
    }

    /// # Errors
    /// Where it does not obey.
    pub fn forget(&mut self) -> Result<()> {
        self.order(&Order::Forget)
    }

    /// # Errors
    /// Where it does not obey.
    pub fn take_token(&mut self, token: &str) -> Result<()> {
        self.order(&Order::Token(token.to_owned()))
    }

    /// # Errors
    /// Where it does not obey.
    pub fn counts(&mut self) -> Result<Counts> {
        let said = self.tell(&Order::Count)?;
        serde_json::from_str(&said).context("no counts")
    }

    /// Kills it, as a crash would.
    ///
    /// # Errors
    /// Where it had ended before.
    pub fn kill(self) -> Result<()> {
        self.process.kill()
    }

    fn order(&mut self, order: &Order) -> Result<()> {
        let line = self.tell(order)?;
        if line == READY { Ok(()) } else { bail!("the API server said {line:?}") }
    }

    fn tell(&mut self, order: &Order) -> Result<String> {
        self.process.say(&serde_json::to_string(order)?)?;
        self.process.line(START)
    }
}
