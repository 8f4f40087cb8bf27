//! Posting a notice to a server: HTTP/1.1, one connection for each attempt.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode, header};
use rustls::ClientConfig;
use thiserror::Error;
use tokio::net::TcpStream;

use crate::config::{Trust, Url};
use crate::web::tls::{self, TlsError};
use crate::web::{USER_AGENT, exchange};

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
            .header(header::USER_AGENT, USER_AGENT)
            .header(header::CONNECTION, "close")
            // A structured field: a string (RFC 8941, 3.3.3).
            .header(IDEMPOTENCY_KEY, format!("\"{key}\""))
            .body(Full::new(Bytes::from(body)))
            .map_err(|source| PostError::Request { server: server(), source })?;
        let address = (self.url.host.as_str(), self.url.port);
        let stream = TcpStream::connect(address)
            .await
            .map_err(|source| PostError::Connect { server: server(), source })?;
        let answer = if self.url.secure {
            let tls = |source| PostError::Tls { server: server(), source };
            let settings = self.settings().await.map_err(tls)?;
            let stream = tls::connect(stream, &self.url.host, settings).await.map_err(tls)?;
            exchange(stream, request).await
        } else {
            exchange(stream, request).await
        };
        Ok(answer.map_err(|source| PostError::Http { server: server(), source })?.status)
    }

    /// Authorities are read for each attempt: a changed file counts from the next one on.
    async fn settings(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let trust = self.ca_file.clone().map_or(Trust::System, Trust::Authorities);
        let reading = tokio::task::spawn_blocking(move || tls::settings(&trust, None)).await;
        reading.map_err(|error| TlsError::Reading(std::io::Error::other(error)))?
    }
}
