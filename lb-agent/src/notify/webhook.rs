//! Posting a notice to a server: HTTP/1.1, one connection for each attempt.

use std::path::PathBuf;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::tls::{self, TlsError};
use crate::config::Url;

const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Where to post, and for how long to try.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Webhook {
    pub(super) url: Url,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) timeout: Duration,
}

/// Why the server does not have it, or may not. The URL's path may be a secret and is not shown.
#[derive(Debug, Error)]
pub(super) enum PostError {
    #[error("{server} did not answer within {after:?}")]
    Late { server: String, after: Duration },
    #[error("cannot connect to {server}: {source}")]
    Connect { server: String, source: std::io::Error },
    #[error("no TLS with {server}: {source}")]
    Tls { server: String, source: TlsError },
    #[error("the conversation with {server} broke off: {source}")]
    Http { server: String, source: hyper::Error },
    #[error("the request for {server} cannot be made: {source}")]
    Request { server: String, source: hyper::http::Error },
    #[error("{server} answered {status} instead of a success")]
    Refused { server: String, status: StatusCode },
}

impl Webhook {
    /// Posts a JSON body, once. `key` tells the server which attempts belong together.
    pub(super) async fn post(&self, body: Vec<u8>, key: &str) -> Result<(), PostError> {
        let server = self.url.authority();
        match tokio::time::timeout(self.timeout, self.talk(body, key)).await {
            Ok(Ok(status)) if status.is_success() => Ok(()),
            Ok(Ok(status)) => Err(PostError::Refused { server, status }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(PostError::Late { server, after: self.timeout }),
        }
    }

    async fn talk(&self, body: Vec<u8>, key: &str) -> Result<StatusCode, PostError> {
        let server = || self.url.authority();
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.url.path)
            .header(header::HOST, server())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("lb-agent/", env!("CARGO_PKG_VERSION")))
            .header(header::CONNECTION, "close")
            // A structured field: a string (RFC 8941, 3.3.3).
            .header(IDEMPOTENCY_KEY, format!("\"{key}\""))
            .body(Full::new(Bytes::from(body)))
            .map_err(|source| PostError::Request { server: server(), source })?;
        let address = (self.url.host.as_str(), self.url.port);
        let stream = TcpStream::connect(address)
            .await
            .map_err(|source| PostError::Connect { server: server(), source })?;
        if !self.url.secure {
            return self.converse(stream, request).await;
        }
        let stream = tls::connect(stream, &self.url.host, self.ca_file.as_deref())
            .await
            .map_err(|source| PostError::Tls { server: server(), source })?;
        self.converse(stream, request).await
    }

    /// The status is all that counts of an answer.
    async fn converse(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        request: Request<Full<Bytes>>,
    ) -> Result<StatusCode, PostError> {
        let http = |source| PostError::Http { server: self.url.authority(), source };
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
        let answer = sender.send_request(request);
        // The connection is driven beside the question, and may end first with the answer in hand.
        tokio::pin!(answer, connection);
        let response = tokio::select! {
            response = &mut answer => response,
            _ = &mut connection => answer.await,
        };
        Ok(response.map_err(http)?.status())
    }
}
