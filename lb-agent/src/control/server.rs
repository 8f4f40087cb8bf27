//! The control API's server: HTTP/1.1 and JSON on a Unix socket. Each request becomes a
//! [`Command`] for the agent's loop; nothing is decided here.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use axum::extract::ConnectInfo;
use axum::extract::connect_info::Connected;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Path as UrlPath, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Extensions, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::serve::IncomingStream;
use axum::{Json, Router};
use nix::unistd::{Gid, Group, chown};
use serde::Serialize;
use thiserror::Error;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};

use super::api;
use crate::config::Rebalance;

/// Commands that wait for the agent's loop at once. A client beyond that waits for its turn.
pub const QUEUE: usize = 64;

/// A request to the agent, with where its answer goes.
#[derive(Debug)]
pub enum Command {
    Status(oneshot::Sender<api::Status>),
    Services(oneshot::Sender<Vec<api::Service>>),
    /// Of the service of that name, or of all.
    Backends(Option<String>, oneshot::Sender<Result<Vec<api::Backend>, Refusal>>),
    Admin(api::AdminChange, oneshot::Sender<Result<Vec<api::Backend>, Refusal>>),
    Rebalance(String, Rebalancing, oneshot::Sender<Result<api::Rebalance, Refusal>>),
    Nodes(oneshot::Sender<Vec<api::Node>>),
    Interfaces(oneshot::Sender<Vec<api::Interface>>),
    Attach(String, oneshot::Sender<Result<api::Interface, Refusal>>),
    Detach(String, oneshot::Sender<Result<(), Refusal>>),
    /// Only as a question, or to be done.
    Reload(bool, oneshot::Sender<Result<api::Reload, Refusal>>),
    SetRole(api::Role, oneshot::Sender<Result<(), Refusal>>),
    Notify(oneshot::Sender<Vec<api::NotifyHook>>),
    Vrrp(oneshot::Sender<Vec<api::VirtualRouter>>),
    Tracks(oneshot::Sender<Vec<api::Track>>),
    /// For the virtual router of that number, or for all.
    VrrpResign(Option<u8>, oneshot::Sender<Result<(), Refusal>>),
    VrrpHold(Option<u8>, bool, oneshot::Sender<Result<(), Refusal>>),
    /// Lines are told until there are no more, or nobody takes them.
    Events(api::EventsRequest, mpsc::Sender<api::EventLine>),
    /// Each is told when it is found, once it has begun.
    Flows(api::FlowsRequest, mpsc::Sender<api::FlowLine>, oneshot::Sender<Result<(), Refusal>>),
    Explain(api::ExplainRequest, oneshot::Sender<Result<api::Explanation, Refusal>>),
    Metrics(oneshot::Sender<String>),
    /// What happens is told on the way, once it has begun.
    Upgrade(
        api::UpgradeRequest,
        mpsc::Sender<api::UpgradeLine>,
        oneshot::Sender<Result<(), Refusal>>,
    ),
}

/// What is asked about connections of a service that belong elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rebalancing {
    Show,
    Begin(api::RebalanceRequest),
    Stop,
}

/// Lines that wait to be read by whoever asked. An upgrade has fewer; of others there are more, and whoever has them
/// waits.
const LINES: usize = 64;

/// A request that was understood and not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The caller's mistake, rather than ours or the system's.
    pub callers: bool,
    /// What, where, what to do.
    pub sentence: String,
}

/// Whoever is at the other end of the Unix socket.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// As the kernel knows it; none where it does not tell.
    uid: Option<u32>,
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self { uid: stream.io().peer_cred().ok().map(|peer| peer.uid()) }
    }
}

/// A socket that could not be opened.
#[derive(Debug, Error)]
pub enum ServeError {
    #[error("another agent answers on {0}: stop it first, or choose another control.socket")]
    InUse(PathBuf),
    #[error("cannot listen on {path}: {source}; is its folder writable?")]
    Listen { path: PathBuf, source: io::Error },
    #[error("there is no group {0}: create it (groupadd {0}), or leave control.group out")]
    NoGroup(String),
}

/// Opens the socket: mode 0660, owned by `group` if one is named. A socket that a dead agent left
/// is replaced, one that answers is not.
pub fn listen(
    path: &Path,
    group: Option<&str>,
) -> Result<std::os::unix::net::UnixListener, ServeError> {
    let failed = |source| ServeError::Listen { path: path.to_owned(), source };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    if path.exists() {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(ServeError::InUse(path.to_owned()));
        }
        std::fs::remove_file(path).map_err(failed)?;
    }
    let listener = std::os::unix::net::UnixListener::bind(path).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    grant(path, group)?;
    Ok(listener)
}

/// Lets root use the socket, and the group; without one nobody else any more.
pub fn grant(path: &Path, group: Option<&str>) -> Result<(), ServeError> {
    let failed = |source| ServeError::Listen { path: path.to_owned(), source };
    let gid = group.map_or_else(|| Ok(Gid::effective()), group_id)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o660)).map_err(failed)?;
    chown(path, None, Some(gid)).map_err(|errno| failed(errno.into()))
}

fn group_id(name: &str) -> Result<Gid, ServeError> {
    Group::from_name(name)
        .ok()
        .flatten()
        .map(|group| group.gid)
        .ok_or_else(|| ServeError::NoGroup(name.to_owned()))
}

/// The routes, each a command. For the Unix socket.
pub fn routes(agent: mpsc::Sender<Command>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/services", get(services))
        .route(
            "/v1/services/{name}/rebalance",
            get(rebalance_shown).post(rebalance_begun).delete(rebalance_stopped),
        )
        .route("/v1/backends", get(backends))
        .route("/v1/backends/admin", put(admin))
        .route("/v1/nodes", get(nodes))
        .route("/v1/interfaces", get(interfaces))
        .route("/v1/interfaces/{name}", post(attach).delete(detach))
        .route("/v1/reload", post(reload))
        .route("/v1/upgrade", post(upgrade))
        .route("/v1/role", put(role))
        .route("/v1/notify", get(notify))
        .route("/v1/events", get(events))
        .route("/v1/flows", get(flows))
        .route("/v1/explain", post(explain))
        .route("/v1/vrrp", get(vrrp))
        .route("/v1/tracks", get(tracks))
        .route("/v1/vrrp/resign", post(vrrp_resign))
        .route("/v1/vrrp/hold", put(vrrp_hold))
        .route("/metrics", get(metrics))
        .fallback(unknown)
        .method_not_allowed_fallback(other_method)
        .with_state(agent)
}

async fn unknown() -> Response {
    refuse(StatusCode::NOT_FOUND, "no such resource; see docs/api.md".to_owned())
}

async fn other_method(method: Method) -> Response {
    let sentence = format!("this resource knows no {method}; see docs/api.md");
    refuse(StatusCode::METHOD_NOT_ALLOWED, sentence)
}

/// The routes of the TCP address for Prometheus and probes.
pub fn public_routes(agent: mpsc::Sender<Command>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .fallback(unknown)
        .method_not_allowed_fallback(other_method)
        .with_state(agent)
}

type Agent = State<mpsc::Sender<Command>>;

/// Asks the agent's loop; nothing if it is gone.
async fn ask<T>(
    agent: &mpsc::Sender<Command>,
    command: impl FnOnce(oneshot::Sender<T>) -> Command,
) -> Result<T, Response> {
    let (reply, answer) = oneshot::channel();
    agent.send(command(reply)).await.map_err(|_| stopping())?;
    answer.await.map_err(|_| stopping())
}

fn stopping() -> Response {
    refuse(StatusCode::SERVICE_UNAVAILABLE, "the agent is stopping; try again".to_owned())
}

/// A request of which a part cannot be read: the status, and what is wrong where.
struct Misread(StatusCode, String);

impl IntoResponse for Misread {
    fn into_response(self) -> Response {
        let Self(status, what) = self;
        refuse(status, format!("the request cannot be read: {what}; see docs/api.md"))
    }
}

fn body<T>(read: Result<Json<T>, JsonRejection>) -> Result<T, Misread> {
    read.map(|Json(body)| body).map_err(|why| Misread(why.status(), why.body_text()))
}

/// The virtual router that a query names.
fn which(read: Result<Query<api::WhichRouter>, QueryRejection>) -> Result<Option<u8>, Misread> {
    let read = read.map(|Query(which)| which.router_id);
    read.map_err(|why| Misread(why.status(), why.body_text()))
}

/// The interface's or service's name in a path.
fn name(read: Result<UrlPath<String>, PathRejection>) -> Result<String, Misread> {
    read.map(|UrlPath(name)| name).map_err(|why| Misread(why.status(), why.body_text()))
}

fn refuse(status: StatusCode, error: String) -> Response {
    (status, Json(api::ApiError { error })).into_response()
}

async fn answer<T: Serialize>(
    agent: &mpsc::Sender<Command>,
    command: impl FnOnce(oneshot::Sender<T>) -> Command,
) -> Response {
    match ask(agent, command).await {
        Ok(value) => Json(value).into_response(),
        Err(response) => response,
    }
}

/// As [`change`], where there is nothing to say after a success.
async fn change_silently(
    agent: &mpsc::Sender<Command>,
    command: impl FnOnce(oneshot::Sender<Result<(), Refusal>>) -> Command,
) -> Response {
    let response = change(agent, command).await;
    if response.status().is_success() {
        return StatusCode::NO_CONTENT.into_response();
    }
    response
}

async fn change<T: Serialize>(
    agent: &mpsc::Sender<Command>,
    command: impl FnOnce(oneshot::Sender<Result<T, Refusal>>) -> Command,
) -> Response {
    match ask(agent, command).await {
        Ok(Ok(value)) => Json(value).into_response(),
        Ok(Err(refusal)) => {
            let status = if refusal.callers {
                StatusCode::CONFLICT
            } else {
                StatusCode::INTERNAL_SERVER_ERROR
            };
            refuse(status, refusal.sentence)
        }
        Err(response) => response,
    }
}

async fn status(State(agent): Agent) -> Response {
    answer(&agent, Command::Status).await
}

async fn services(State(agent): Agent) -> Response {
    answer(&agent, Command::Services).await
}

async fn rebalance_shown(
    State(agent): Agent,
    path: Result<UrlPath<String>, PathRejection>,
) -> Result<Response, Misread> {
    let name = name(path)?;
    Ok(change(&agent, |reply| Command::Rebalance(name, Rebalancing::Show, reply)).await)
}

async fn rebalance_begun(
    State(agent): Agent,
    path: Result<UrlPath<String>, PathRejection>,
    query: Result<Query<api::RebalanceRequest>, QueryRejection>,
) -> Result<Response, Misread> {
    let name = name(path)?;
    let Query(request) = query.map_err(|why| Misread(why.status(), why.body_text()))?;
    if let Some(per_minute) = request.per_minute
        && !(1..=Rebalance::PER_MINUTE_MAX).contains(&per_minute)
    {
        let most = Rebalance::PER_MINUTE_MAX;
        let sentence = format!("per_minute is {per_minute}, but must be between 1 and {most}");
        return Err(Misread(StatusCode::BAD_REQUEST, sentence));
    }
    let asked = Rebalancing::Begin(request);
    Ok(change(&agent, |reply| Command::Rebalance(name, asked, reply)).await)
}

async fn rebalance_stopped(
    State(agent): Agent,
    path: Result<UrlPath<String>, PathRejection>,
) -> Result<Response, Misread> {
    let name = name(path)?;
    Ok(change(&agent, |reply| Command::Rebalance(name, Rebalancing::Stop, reply)).await)
}

async fn backends(
    State(agent): Agent,
    query: Result<Query<api::WhichService>, QueryRejection>,
) -> Result<Response, Misread> {
    let service = query
        .map(|Query(which)| which.service)
        .map_err(|why| Misread(why.status(), why.body_text()))?;
    Ok(change(&agent, |reply| Command::Backends(service, reply)).await)
}

async fn admin(
    State(agent): Agent,
    wanted: Result<Json<api::AdminChange>, JsonRejection>,
) -> Result<Response, Misread> {
    let wanted = body(wanted)?;
    Ok(change(&agent, |reply| Command::Admin(wanted, reply)).await)
}

async fn reload(
    State(agent): Agent,
    query: Result<Query<api::ReloadRequest>, QueryRejection>,
) -> Result<Response, Misread> {
    let dry_run = query
        .map(|Query(request)| request.dry_run)
        .map_err(|why| Misread(why.status(), why.body_text()))?;
    Ok(change(&agent, |reply| Command::Reload(dry_run, reply)).await)
}

/// Root may have any version follow, others the one that is installed: what they name would run as root.
async fn upgrade(
    State(agent): Agent,
    about: Extensions,
    wanted: Result<Json<api::UpgradeRequest>, JsonRejection>,
) -> Result<Response, Misread> {
    let wanted = body(wanted)?;
    let root = about.get::<ConnectInfo<Peer>>().is_some_and(|peer| peer.0.uid == Some(0));
    if wanted.path.is_some() && !root {
        let sentence = "naming the program that is to follow takes root; without a path it is the \
                        one that the agent was started from";
        return Ok(refuse(StatusCode::FORBIDDEN, sentence.to_owned()));
    }
    let (lines, told) = mpsc::channel(LINES);
    let begun = change(&agent, |reply| Command::Upgrade(wanted, lines, reply)).await;
    if !begun.status().is_success() {
        return Ok(begun);
    }
    Ok(in_lines(told))
}

/// An answer of lines of JSON, which are sent as they come.
fn in_lines<T: Serialize + Send + 'static>(told: mpsc::Receiver<T>) -> Response {
    let told = futures::stream::unfold(told, |mut told| async {
        let line = told.recv().await?;
        let text = serde_json::to_vec(&line).map(|text| [&text[..], b"\n"].concat());
        Some((text, told))
    });
    let told = axum::body::Body::from_stream(told);
    ([(CONTENT_TYPE, "application/x-ndjson")], told).into_response()
}

async fn events(
    State(agent): Agent,
    query: Result<Query<api::EventsRequest>, QueryRejection>,
) -> Result<Response, Misread> {
    let Query(request) = query.map_err(|why| Misread(why.status(), why.body_text()))?;
    let (lines, told) = mpsc::channel(LINES);
    Ok(match agent.send(Command::Events(request, lines)).await {
        Ok(()) => in_lines(told),
        Err(_) => stopping(),
    })
}

async fn flows(
    State(agent): Agent,
    query: Result<Query<api::FlowsRequest>, QueryRejection>,
) -> Result<Response, Misread> {
    let Query(request) = query.map_err(|why| Misread(why.status(), why.body_text()))?;
    let (lines, told) = mpsc::channel(LINES);
    let begun = change(&agent, |reply| Command::Flows(request, lines, reply)).await;
    Ok(if begun.status().is_success() { in_lines(told) } else { begun })
}

async fn explain(
    State(agent): Agent,
    wanted: Result<Json<api::ExplainRequest>, JsonRejection>,
) -> Result<Response, Misread> {
    let wanted = body(wanted)?;
    Ok(change(&agent, |reply| Command::Explain(wanted, reply)).await)
}

async fn nodes(State(agent): Agent) -> Response {
    answer(&agent, Command::Nodes).await
}

async fn interfaces(State(agent): Agent) -> Response {
    answer(&agent, Command::Interfaces).await
}

async fn attach(
    State(agent): Agent,
    path: Result<UrlPath<String>, PathRejection>,
) -> Result<Response, Misread> {
    let name = name(path)?;
    Ok(change(&agent, |reply| Command::Attach(name, reply)).await)
}

async fn detach(
    State(agent): Agent,
    path: Result<UrlPath<String>, PathRejection>,
) -> Result<Response, Misread> {
    let name = name(path)?;
    Ok(change_silently(&agent, |reply| Command::Detach(name, reply)).await)
}

async fn role(
    State(agent): Agent,
    wanted: Result<Json<api::RoleChange>, JsonRejection>,
) -> Result<Response, Misread> {
    let role = body(wanted)?.role;
    Ok(change_silently(&agent, |reply| Command::SetRole(role, reply)).await)
}

async fn notify(State(agent): Agent) -> Response {
    answer(&agent, Command::Notify).await
}

async fn vrrp(State(agent): Agent) -> Response {
    answer(&agent, Command::Vrrp).await
}

async fn tracks(State(agent): Agent) -> Response {
    answer(&agent, Command::Tracks).await
}

async fn vrrp_resign(
    State(agent): Agent,
    query: Result<Query<api::WhichRouter>, QueryRejection>,
) -> Result<Response, Misread> {
    let router_id = which(query)?;
    Ok(change_silently(&agent, |reply| Command::VrrpResign(router_id, reply)).await)
}

async fn vrrp_hold(
    State(agent): Agent,
    query: Result<Query<api::WhichRouter>, QueryRejection>,
    wanted: Result<Json<api::Hold>, JsonRejection>,
) -> Result<Response, Misread> {
    let (router_id, hold) = (which(query)?, body(wanted)?.hold);
    Ok(change_silently(&agent, |reply| Command::VrrpHold(router_id, hold, reply)).await)
}

async fn metrics(State(agent): Agent) -> Response {
    match ask(&agent, Command::Metrics).await {
        Ok(text) => {
            ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
                .into_response()
        }
        Err(response) => response,
    }
}

/// Ready once the agent's loop answers: the maps are filled before it begins.
async fn ready(State(agent): Agent) -> Response {
    match ask(&agent, Command::Interfaces).await {
        Ok(interfaces) if interfaces.is_empty() => {
            refuse(StatusCode::SERVICE_UNAVAILABLE, "no interface is attached".to_owned())
        }
        Ok(_) => "ok\n".into_response(),
        Err(response) => response,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixStream;

    use super::*;

    /// The answer to a request, where the agent never gets it.
    async fn answer(line: &str, headers: &str, body: &str) -> String {
        let folder = std::env::temp_dir();
        let path =
            folder.join(format!("lb-api-{}-{:?}", std::process::id(), std::thread::current().id()));
        let listener = UnixListener::from_std(listen(&path, None).unwrap()).unwrap();
        let (commands, _inbox) = mpsc::channel(1);
        let serving = tokio::spawn(axum::serve(listener, routes(commands)).into_future());
        let mut stream = UnixStream::connect(&path).await.unwrap();
        let length = body.len();
        let request = format!(
            "{line} HTTP/1.1\r\nhost: lb\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        serving.abort();
        std::fs::remove_file(path).unwrap();
        text
    }

    #[tokio::test]
    async fn whatever_cannot_be_carried_out_is_answered_with_a_sentence() {
        const JSON: &str = "content-type: application/json\r\n";
        for (line, headers, body, status, what) in [
            ("GET /v2/status", "", "", "404", "no such resource"),
            ("DELETE /v1/status", "", "", "405", "knows no DELETE"),
            ("PUT /v1/role", JSON, "{\"role\":", "400", "EOF"),
            ("PUT /v1/role", JSON, "{\"role\":\"king\"}", "422", "unknown variant"),
            ("PUT /v1/role", "", "{\"role\":\"active\"}", "415", "application/json"),
            ("POST /v1/vrrp/resign?router_id=256", "", "", "400", "router_id"),
            ("POST /v1/services/api/rebalance?per_minute=0", "", "", "400", "between 1 and 6000"),
            ("POST /v1/services/api/rebalance?fast=1", "", "", "400", "unknown field"),
            ("GET /v1/backends?of=api", "", "", "400", "unknown field"),
            ("GET /v1/flows?client=everybody", "", "", "400", "invalid IP address"),
            ("GET /v1/events?since=yesterday", "", "", "400", "invalid digit"),
            ("PUT /v1/backends/admin", JSON, "{\"backend\":\"x\"}", "422", "missing field"),
            ("POST /v1/interfaces/%ff", "", "", "400", "UTF-8"),
            ("POST /v1/explain", JSON, "{\"client\":\"192.0.2.7\"}", "422", "missing field"),
            ("POST /v1/upgrade", JSON, "{\"mode\":\"now\"}", "422", "unknown variant"),
            ("POST /v1/upgrade", JSON, "{\"path\":\"/bin/sh\"}", "403", "takes root"),
        ] {
            let answer = answer(line, headers, body).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{line}: {answer}");
            let (_, said) = answer.split_once("\r\n\r\n").unwrap();
            let said: api::ApiError = serde_json::from_str(said).unwrap();
            assert!(said.error.contains(what), "{line}: {}", said.error);
        }
    }
}
