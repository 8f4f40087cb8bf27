//! The server of a webhook: it prints every request that it takes as a line of JSON. The server side
//! runs as `lb-lab receiver`; [`Receiver`] is a scenario's handle to one.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::TcpListener;

use crate::lab::{Host, Lab, Process};

/// How long it may take to start on a loaded machine.
const START: Duration = Duration::from_secs(20);
/// Its first line.
const READY: &str = "ready";

/// The arguments of `lb-lab receiver`.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// Where it listens
    #[arg(long)]
    pub listen: SocketAddr,
}

/// A request that it took.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Received {
    /// The header `Idempotency-Key`.
    pub key: String,
    pub body: Value,
}

/// Serves until it is killed.
///
/// # Errors
/// Where it cannot listen.
pub async fn serve(arguments: Arguments) -> Result<()> {
    let address = arguments.listen;
    let listener = TcpListener::bind(address).await;
    let listener = listener.with_context(|| format!("cannot listen on {address}"))?;
    say(READY)?;
    loop {
        let (stream, _) = listener.accept().await.context("cannot accept")?;
        tokio::spawn(async move {
            let http = hyper::server::conn::http1::Builder::new();
            // Whoever breaks off is told nothing.
            let _ = http.serve_connection(TokioIo::new(stream), service_fn(take)).await;
        });
    }
}

async fn take(request: Request<Incoming>) -> Result<Response<Empty<Bytes>>> {
    let key = request.headers().get("idempotency-key").and_then(|key| key.to_str().ok());
    let key = key.unwrap_or_default().to_owned();
    let body = request.into_body().collect().await?.to_bytes();
    let mut response = Response::new(Empty::new());
    match serde_json::from_slice(&body) {
        Ok(body) => say(&serde_json::to_string(&Received { key, body })?)?,
        Err(_) => *response.status_mut() = StatusCode::BAD_REQUEST,
    }
    Ok(response)
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("cannot write to the output")
}

/// A running one. Owned: killed on drop.
#[derive(Debug)]
pub struct Receiver {
    process: Process,
}

impl Receiver {
    /// Starts it and waits until it listens.
    ///
    /// # Errors
    /// Where it does not come up; its log is quoted.
    pub fn start(lab: &Lab, host: &Host, listen: SocketAddr) -> Result<Self> {
        let mut command = lab.tool();
        command.args(["receiver", "--listen", &listen.to_string()]);
        let process = host.spawn("receiver", command)?;
        let line = process.line(START)?;
        ensure!(line == READY, "the receiver said {line:?}");
        Ok(Self { process })
    }

    /// What it took since the last call, in order.
    ///
    /// # Errors
    /// Where it said something else.
    pub fn received(&self) -> Result<Vec<Received>> {
        let lines = std::iter::from_fn(|| self.process.try_line());
        lines.map(|line| serde_json::from_str(&line).context("no line of a receiver")).collect()
    }
}
