//! Asking the agent: HTTP over its Unix socket, one connection for each question.
//!
//! Errors are the sentences that a person at `lbctl` reads: what, where, what to do.

mod lines;
mod upgrade;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::net::UnixStream;

use super::api::{
    AdminChange, ApiError, Backend, ExplainRequest, Explanation, Hold, Interface, Node, Rebalance,
    RebalanceRequest, Reload, Role, RoleChange, Service, Status, Track, VirtualRouter,
};

pub use lines::Lines;

/// How long an answer may take. Attaching loads and verifies programs, which takes seconds on a
/// slow machine.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest answer that is read: some hundred bytes for each of 65,536 backends, with room.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// An agent, by its socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    timeout: Duration,
}

/// Why there is no answer, or none that helps.
#[derive(Debug, Error)]
pub enum ClientError {
    #[error(
        "there is no socket {}: lb-agent is not running, or its `socket` in [control] is another \
         (name it with --socket)", socket.display()
    )]
    NoSocket { socket: PathBuf },
    #[error("nobody listens on {}: lb-agent is not running; start it", socket.display())]
    NobodyListens { socket: PathBuf },
    #[error(
        "no permission for {}: run this as root, or as a member of the `group` in [control]",
        socket.display()
    )]
    NoPermission { socket: PathBuf },
    #[error("cannot connect to {}: {source}", socket.display())]
    Connect { socket: PathBuf, source: std::io::Error },
    #[error(
        "lb-agent did not answer on {} within {} s: see its log", socket.display(),
        timeout.as_secs_f32()
    )]
    Timeout { socket: PathBuf, timeout: Duration },
    #[error(
        "the connection to lb-agent on {} broke off ({source}): see its log", socket.display()
    )]
    Http { socket: PathBuf, source: hyper::Error },
    #[error("the name `{name}` cannot be asked for: {source}")]
    Unaskable { name: String, source: hyper::http::Error },
    #[error("the answer to {question} is larger than {ANSWER_BYTES_MAX} bytes: is {} lb-agent's socket?", socket.display())]
    TooLarge { socket: PathBuf, question: String },
    #[error(
        "the answer to {question} on {} is not understood ({source}): are lbctl and lb-agent of \
         the same version?", socket.display()
    )]
    Answer { socket: PathBuf, question: String, source: serde_json::Error },
    #[error(
        "the agent's answer on {} ended before it said how it went: lbctl status and its log tell",
        socket.display()
    )]
    Unfinished { socket: PathBuf },
    /// The agent's own sentence.
    #[error("{message}")]
    Api { status: StatusCode, message: String },
}

impl Client {
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into(), timeout: ANSWER_TIMEOUT }
    }

    /// Waits no longer than this for an answer.
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    pub async fn status(&self) -> Result<Status, ClientError> {
        self.read("/v1/status").await
    }

    pub async fn services(&self) -> Result<Vec<Service>, ClientError> {
        self.read("/v1/services").await
    }

    /// The backends of one service, or of all where they are not too many. An agent of an earlier
    /// version answers with all of them.
    pub async fn backends(&self, service: Option<&str>) -> Result<Vec<Backend>, ClientError> {
        let path = match service {
            Some(name) => format!("/v1/backends?service={}", escaped(name)),
            None => "/v1/backends".to_owned(),
        };
        self.read(&path).await
    }

    /// Has backends drained, disabled or enabled, and returns them as they are then.
    pub async fn set_admin(&self, change: &AdminChange) -> Result<Vec<Backend>, ClientError> {
        let path = "/v1/backends/admin";
        let answer = self.ask(Method::PUT, path, json(change)).await?;
        self.understood(path, &answer)
    }

    /// Has the configuration read anew, or asks what that would change.
    pub async fn reload(&self, dry_run: bool) -> Result<Reload, ClientError> {
        let path = format!("/v1/reload?dry_run={dry_run}");
        let answer = self.ask(Method::POST, &path, Bytes::new()).await?;
        self.understood(&path, &answer)
    }

    /// Looks for connections of a service that belong elsewhere, and has them moved or only looks.
    pub async fn rebalance(
        &self,
        service: &str,
        request: RebalanceRequest,
    ) -> Result<Rebalance, ClientError> {
        let mut path = format!("{}?dry_run={}", rebalance_path(service), request.dry_run);
        if let Some(per_minute) = request.per_minute {
            path.push_str(&format!("&per_minute={per_minute}"));
        }
        let answer = self.ask(Method::POST, &path, Bytes::new()).await?;
        self.understood(&path, &answer)
    }

    /// What is known of that.
    pub async fn rebalancing(&self, service: &str) -> Result<Rebalance, ClientError> {
        self.read(&rebalance_path(service)).await
    }

    /// Has no more moved.
    pub async fn stop_rebalancing(&self, service: &str) -> Result<Rebalance, ClientError> {
        let path = rebalance_path(service);
        let answer = self.ask(Method::DELETE, &path, Bytes::new()).await?;
        self.understood(&path, &answer)
    }

    pub async fn nodes(&self) -> Result<Vec<Node>, ClientError> {
        self.read("/v1/nodes").await
    }

    pub async fn interfaces(&self) -> Result<Vec<Interface>, ClientError> {
        self.read("/v1/interfaces").await
    }

    /// Attaches the program to an interface; says how, also where it was attached before.
    pub async fn attach(&self, interface: &str) -> Result<Interface, ClientError> {
        let path = interface_path(interface);
        let answer = self.ask(Method::POST, &path, Bytes::new()).await?;
        self.understood(&path, &answer)
    }

    pub async fn detach(&self, interface: &str) -> Result<(), ClientError> {
        self.ask(Method::DELETE, &interface_path(interface), Bytes::new()).await.map(drop)
    }

    pub async fn set_role(&self, role: Role) -> Result<(), ClientError> {
        let body = json(&RoleChange { role });
        self.ask(Method::PUT, "/v1/role", body).await.map(drop)
    }

    pub async fn vrrp(&self) -> Result<Vec<VirtualRouter>, ClientError> {
        self.read("/v1/vrrp").await
    }

    /// What becomes of a client's packet.
    pub async fn explain(&self, request: &ExplainRequest) -> Result<Explanation, ClientError> {
        let path = "/v1/explain";
        let answer = self.ask(Method::POST, path, json(request)).await?;
        self.understood(path, &answer)
    }

    pub async fn tracks(&self) -> Result<Vec<Track>, ClientError> {
        self.read("/v1/tracks").await
    }

    /// Gives the role to another node, in one virtual router or in all.
    pub async fn vrrp_resign(&self, router_id: Option<u8>) -> Result<(), ClientError> {
        let path = of_router("/v1/vrrp/resign", router_id);
        self.ask(Method::POST, &path, Bytes::new()).await.map(drop)
    }

    /// Keeps this node from being Active, or lets it be again, in one virtual router or in all.
    pub async fn vrrp_hold(&self, router_id: Option<u8>, hold: bool) -> Result<(), ClientError> {
        let path = of_router("/v1/vrrp/hold", router_id);
        self.ask(Method::PUT, &path, json(&Hold { hold })).await.map(drop)
    }

    async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let answer = self.ask(Method::GET, path, Bytes::new()).await?;
        self.understood(path, &answer)
    }

    fn understood<T: DeserializeOwned>(&self, path: &str, answer: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(answer).map_err(|source| ClientError::Answer {
            socket: self.socket.clone(),
            question: path.to_owned(),
            source,
        })
    }

    /// The body of a successful answer.
    async fn ask(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, ClientError> {
        let request = request(method, path, body)?;
        match tokio::time::timeout(self.timeout, self.exchange(request, path)).await {
            Ok(answer) => answer,
            Err(_) => {
                Err(ClientError::Timeout { socket: self.socket.clone(), timeout: self.timeout })
            }
        }
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
        path: &str,
    ) -> Result<Bytes, ClientError> {
        let http = |source| ClientError::Http { socket: self.socket.clone(), source };
        let (mut sender, connection) = self.connect().await?;
        let conversation = async {
            let response = sender.send_request(request).await.map_err(http)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| match error.downcast::<hyper::Error>() {
                Ok(source) => http(*source),
                Err(_) => {
                    ClientError::TooLarge { socket: self.socket.clone(), question: path.to_owned() }
                }
            })?;
            Ok((status, body.to_bytes()))
        };
        // The connection is driven beside the conversation; it may end first, with the answer
        // already in hand.
        tokio::pin!(conversation, connection);
        let (status, body) = tokio::select! {
            answer = &mut conversation => answer?,
            _ = &mut connection => conversation.await?,
        };
        if status.is_success() { Ok(body) } else { Err(refusal(status, &body)) }
    }

    /// Who sends a request, and what drives the connection meanwhile.
    async fn connect(&self) -> Result<(SendRequest<Full<Bytes>>, Connection), ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|e| self.unconnected(e))?;
        let http = |source| ClientError::Http { socket: self.socket.clone(), source };
        http1::handshake(TokioIo::new(stream)).await.map_err(http)
    }

    fn unconnected(&self, source: std::io::Error) -> ClientError {
        let socket = self.socket.clone();
        match source.kind() {
            ErrorKind::NotFound => ClientError::NoSocket { socket },
            ErrorKind::ConnectionRefused => ClientError::NobodyListens { socket },
            ErrorKind::PermissionDenied => ClientError::NoPermission { socket },
            _ => ClientError::Connect { socket, source },
        }
    }
}

type Connection = http1::Connection<TokioIo<UnixStream>, Full<Bytes>>;

fn request(method: Method, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>, ClientError> {
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "lb-agent")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(body))
        .map_err(|source| ClientError::Unaskable { name: path.to_owned(), source })
}

fn of_router(path: &str, router_id: Option<u8>) -> String {
    router_id.map_or_else(|| path.to_owned(), |id| format!("{path}?router_id={id}"))
}

fn json(value: &impl Serialize) -> Bytes {
    // The API's types have string keys and no foreign serializers: there is nothing to fail.
    serde_json::to_vec(value).map(Bytes::from).unwrap_or_default()
}

fn refusal(status: StatusCode, body: &[u8]) -> ClientError {
    let message = match serde_json::from_slice::<ApiError>(body) {
        Ok(said) => said.error,
        Err(_) => format!("lb-agent answered {status} without saying why: see its log"),
    };
    ClientError::Api { status, message }
}

fn rebalance_path(service: &str) -> String {
    format!("/v1/services/{}/rebalance", escaped(service))
}

/// A name may hold almost any byte (`dev_valid_name`).
fn interface_path(interface: &str) -> String {
    format!("/v1/interfaces/{}", escaped(interface))
}

/// In a path or a query most bytes are escaped (RFC 3986, 2.1).
fn escaped(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_place_in_the_path() {
        assert_eq!(interface_path("ens33"), "/v1/interfaces/ens33");
        assert_eq!(interface_path("a/../b?c#d %"), "/v1/interfaces/a%2F..%2Fb%3Fc%23d%20%25");
    }

    /// Root may use any socket, so this cannot be had by connecting.
    #[test]
    fn a_socket_of_others_is_named_with_the_remedy() {
        let error = Client::new("/run/lb/lb.sock").unconnected(ErrorKind::PermissionDenied.into());
        let said = error.to_string();
        assert!(said.contains("/run/lb/lb.sock: run this as root"), "{said}");
    }

    #[test]
    fn a_refusal_without_a_sentence_still_says_something() {
        let error = refusal(StatusCode::BAD_GATEWAY, b"<html>");
        assert!(error.to_string().contains("502"), "{error}");
    }
}
