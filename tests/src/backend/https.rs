//! HTTPS like an API server's: short requests on kept connections, and watches that never end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::{Stream, StreamExt as _};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::tcp::accept;
use super::{Answer, canonical};

/// As a Kubernetes API server says it.
const SICK: &str = "[+]ping ok\n[-]etcd failed: reason withheld\nreadyz check failed\n";

type Body = BoxBody<Bytes, Infallible>;

/// Between a watch's lines where the client asks for nothing else.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);

/// From PEM files.
pub(super) fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor> {
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("no certificate in {}", certificate.display()))?;
    let key = PrivateKeyDer::from_pem_file(key)
        .with_context(|| format!("no key in {}", key.display()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("the certificate and the key do not fit")?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Accepts until told to leave; connections outlive the listener.
pub(super) async fn serve(
    listener: TcpListener,
    tls: TlsAcceptor,
    name: String,
    well: Arc<AtomicBool>,
    mut listening: watch::Receiver<bool>,
) {
    while let Some(stream) = accept(&listener, &mut listening).await {
        let (tls, name, well) = (tls.clone(), name.clone(), Arc::clone(&well));
        tokio::spawn(async move {
            // A client that goes away (a health check's bare connect) is no fault of the server's.
            let _ = converse(stream, tls, name, &well).await;
        });
    }
}

async fn converse(
    stream: TcpStream,
    tls: TlsAcceptor,
    backend: String,
    well: &AtomicBool,
) -> Result<()> {
    stream.set_nodelay(true)?;
    let client = canonical(stream.peer_addr()?);
    let local = canonical(stream.local_addr()?);
    let answer = Answer { backend, client, local };
    let stream = tls.accept(stream).await?;
    let service = service_fn(move |request| {
        let response = respond(&request, &answer, well.load(Ordering::Relaxed));
        async move { Ok::<_, Infallible>(response) }
    });
    hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await?;
    Ok(())
}

fn respond(request: &Request<Incoming>, answer: &Answer, well: bool) -> Response<Body> {
    match request.uri().path() {
        "/readyz" if !well => whole(StatusCode::INTERNAL_SERVER_ERROR, SICK),
        "/readyz" | "/livez" | "/healthz" => whole(StatusCode::OK, "ok"),
        "/" => match serde_json::to_string(answer) {
            Ok(text) => whole(StatusCode::OK, text),
            Err(error) => whole(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        },
        "/watch" => {
            let interval = request.uri().query().and_then(interval).unwrap_or(WATCH_INTERVAL);
            let frames = lines(answer.clone(), interval).map(|line| Ok(Frame::data(line)));
            Response::new(BodyExt::boxed(StreamBody::new(frames)))
        }
        path => whole(StatusCode::NOT_FOUND, format!("no {path} here")),
    }
}

fn whole(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(text.into()).boxed());
    *response.status_mut() = status;
    response
}

fn interval(query: &str) -> Option<Duration> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix("interval_ms="))?;
    Some(Duration::from_millis(value.parse().ok()?))
}

/// One line of a watch.
#[derive(serde::Serialize, serde::Deserialize)]
pub(crate) struct WatchLine {
    pub(crate) sequence: u64,
    pub(crate) backend: String,
    pub(crate) client: SocketAddr,
}

fn lines(answer: Answer, interval: Duration) -> impl Stream<Item = Bytes> + Send + Sync {
    futures::stream::unfold(0, move |sequence| {
        let line = WatchLine { sequence, backend: answer.backend.clone(), client: answer.client };
        async move {
            if sequence > 0 {
                tokio::time::sleep(interval).await;
            }
            let mut text = serde_json::to_vec(&line).ok()?;
            text.push(b'\n');
            Some((Bytes::from(text), sequence + 1))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_interval_is_read_among_other_parameters() {
        assert_eq!(interval("a=b&interval_ms=20"), Some(Duration::from_millis(20)));
        assert_eq!(interval("interval_ms=soon"), None);
        assert_eq!(interval(""), None);
    }
}
