//! One conversation with the API: a list where nothing is known, then a watch until it ends.

use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ACCEPT, AUTHORIZATION, CONNECTION, HOST, USER_AGENT};
use hyper::{Request, StatusCode};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Wanted;
use super::access::{self, Access};
use super::slices::{GONE, Lost, News, Slices, message};
use crate::config::KubernetesSource;
use crate::discovery::Board;
use crate::web::{Streamed, USER_AGENT as OWN_NAME, tls};

/// For a connection with its handshake, and for the head of an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Of a list; a thousand endpoints take half a megabyte.
const LIST_BYTES_MAX: usize = 64 << 20;
/// Of a line of a watch: one slice.
const LINE_BYTES_MAX: usize = 4 << 20;
/// A watch is asked to end after this, and up to half of it more, so that nodes do not all come back at once.
const WATCH_SECONDS: u64 = 240;
/// How much longer it may last.
const GRACE: Duration = Duration::from_secs(30);
/// A server whose machine is gone is noticed after 15 s and three probes.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(15);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 3;
/// Of what a server says where it refuses.
const REFUSAL_BYTES_MAX: usize = 16 << 10;

/// How it ended.
pub(super) enum Ended {
    /// The watch was over, as it was to be.
    InTime,
    /// The version to go on from is not remembered any more.
    Expired,
    Failed(String),
    /// What was said cannot be used: only a list can tell that it can again.
    Useless(String),
}

impl From<Lost> for Ended {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Expired => Self::Expired,
            Lost::Said(words) => Self::Useless(format!("the API server {words}")),
        }
    }
}

pub(super) struct Session<'s> {
    pub(super) service: &'s str,
    pub(super) source: &'s KubernetesSource,
    pub(super) wanted: Wanted,
    pub(super) board: &'s Board,
    /// The API has answered: what goes wrong from here on is the first failure.
    pub(super) heard: bool,
}

impl Session<'_> {
    /// Lists where nothing is known, watches, and tells the board of what it hears, until that ends.
    pub(super) async fn follow(&mut self, slices: &mut Option<Slices>, draw: u64) -> Ended {
        match self.converse(slices, draw).await {
            Ok(()) => Ended::InTime,
            Err(ended) => ended,
        }
    }

    async fn converse(&mut self, slices: &mut Option<Slices>, draw: u64) -> Result<(), Ended> {
        let known = match slices {
            Some(known) => known,
            None => {
                let listed = self.list().await?;
                self.publish(&listed)?;
                slices.insert(listed)
            }
        };
        self.watch(known, draw).await
    }

    async fn list(&mut self) -> Result<Slices, Ended> {
        let mut answer = self.ask("").await?;
        let body = timeout(PATIENCE, answer.whole(LIST_BYTES_MAX)).await;
        let body = body.map_err(|_| failed("the list of EndpointSlices does not end"))?;
        let body = body.map_err(|error| broken(&error))?;
        let body = body.ok_or_else(|| failed("the list of EndpointSlices is too long"))?;
        Ok(Slices::list(&body)?)
    }

    async fn watch(&mut self, known: &mut Slices, draw: u64) -> Result<(), Ended> {
        let seconds = WATCH_SECONDS + draw % (WATCH_SECONDS / 2);
        let query = format!(
            "&watch=1&allowWatchBookmarks=true&timeoutSeconds={seconds}&resourceVersion={}",
            known.version()
        );
        let mut answer = self.ask(&query).await?;
        self.heard = true;
        self.board.confirmed(self.service);
        let reading = self.read_lines(&mut answer, known);
        let outcome = timeout(Duration::from_secs(seconds) + GRACE, reading).await;
        outcome.map_err(|_| failed("the watch of EndpointSlices does not end in its time"))?
    }

    async fn read_lines(&mut self, answer: &mut Streamed, known: &mut Slices) -> Result<(), Ended> {
        let mut pending = Vec::new();
        while let Some(piece) = answer.piece().await.map_err(|error| broken(&error))? {
            pending.extend_from_slice(&piece);
            while let Some(end) = pending.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = pending.drain(..=end).collect();
                let line = line.trim_ascii();
                if line.is_empty() {
                    continue;
                }
                match known.apply(line)? {
                    News::Changed => self.publish(known)?,
                    News::Confirmed => self.board.confirmed(self.service),
                }
            }
            if pending.len() > LINE_BYTES_MAX {
                return Err(failed("a line of the watch of EndpointSlices does not end"));
            }
        }
        Ok(())
    }

    fn publish(&mut self, known: &Slices) -> Result<(), Ended> {
        let answer = known.answer(self.source.port_name.as_deref(), self.wanted);
        self.board.answered(self.service, answer.map_err(Ended::Useless)?);
        self.heard = true;
        Ok(())
    }

    /// Asks for the service's slices, over a connection of its own.
    async fn ask(&self, query: &str) -> Result<Streamed, Ended> {
        let kubeconfig = self.source.kubeconfig.clone();
        let reading =
            tokio::task::spawn_blocking(move || access::read(kubeconfig.as_deref())).await;
        let access = reading.map_err(|error| Ended::Failed(error.to_string()))?;
        let access = access.map_err(|error| Ended::Failed(error.to_string()))?;
        let server = access.url.authority();
        let late =
            |_| Ended::Failed(format!("{server} does not answer within {} s", PATIENCE.as_secs()));
        let mut answer = timeout(PATIENCE, self.request(&access, query)).await.map_err(late)??;
        if answer.status == StatusCode::OK {
            return Ok(answer);
        }
        if answer.status.as_u16() == GONE {
            return Err(Ended::Expired);
        }
        let body = timeout(PATIENCE, answer.whole(REFUSAL_BYTES_MAX)).await;
        let body = body.ok().and_then(Result::ok).flatten().unwrap_or_default();
        Err(Ended::Failed(format!("{server} answers {}: {}", answer.status, message(&body))))
    }

    async fn request(&self, access: &Access, query: &str) -> Result<Streamed, Ended> {
        let KubernetesSource { namespace, service, .. } = self.source;
        let server = access.url.authority();
        let unreachable =
            |error: std::io::Error| Ended::Failed(format!("cannot connect to {server}: {error}"));
        let path = format!(
            "{}/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices\
             ?labelSelector=kubernetes.io%2Fservice-name%3D{service}{query}",
            access.url.path.trim_end_matches('/')
        );
        let mut request = Request::get(path)
            .header(HOST, &server)
            .header(USER_AGENT, OWN_NAME)
            .header(ACCEPT, "application/json")
            .header(CONNECTION, "close");
        if let Some(token) = &access.token {
            request = request.header(AUTHORIZATION, token);
        }
        let request = request.body(Full::new(Bytes::new()));
        let request = request.map_err(|error| Ended::Failed(error.to_string()))?;
        let stream = TcpStream::connect((access.url.host.as_str(), access.url.port)).await;
        let stream = stream.map_err(unreachable)?;
        keep_alive(&stream).map_err(unreachable)?;
        let Some(settings) = &access.tls else {
            return Streamed::ask(stream, request).await.map_err(|error| broken(&error));
        };
        let stream = tls::connect(stream, &access.server_name, settings.clone()).await;
        let stream =
            stream.map_err(|error| Ended::Failed(format!("no TLS with {server}: {error}")))?;
        Streamed::ask(stream, request).await.map_err(|error| broken(&error))
    }
}

fn keep_alive(stream: &TcpStream) -> std::io::Result<()> {
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_EVERY)
        .with_retries(KEEPALIVE_PROBES);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

fn failed(what: &str) -> Ended {
    Ended::Failed(what.to_owned())
}

fn broken(error: &hyper::Error) -> Ended {
    Ended::Failed(format!("the conversation with the API server broke off: {error}"))
}
