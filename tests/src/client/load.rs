//! The client's workers and their end.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::io::AsyncReadExt as _;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use super::connection::Connection;
use super::report::Books;
use super::{Arguments, Connections, Line, Shared, stream};

/// Between two reports.
const REPORT: Duration = Duration::from_millis(100);

/// After a connection was refused, so that a dead target is not hammered.
const REFUSED_PAUSE: Duration = Duration::from_millis(10);

/// Makes the load and prints reports, one JSON object a line, the last one as `finished`.
///
/// # Errors
/// Where the arguments don't fit; failed requests are in the report.
pub async fn run(arguments: Arguments) -> Result<()> {
    let tls = arguments.ca.as_deref().map(connector).transpose()?;
    let duration = Duration::from_millis(arguments.duration_ms);
    let shared = Arc::new(Shared { arguments, tls, books: Books::new().into() });
    let (stop, stopping) = watch::channel(false);
    let mut tasks = JoinSet::new();
    for number in 0..u64::from(shared.arguments.streams) {
        tasks.spawn(stream::keep(Arc::clone(&shared), number, stopping.clone()));
    }
    let mut workers = JoinSet::new();
    let started = Arc::new(AtomicU64::new(0));
    for number in 0..u64::from(shared.arguments.concurrency) {
        let (shared, started) = (Arc::clone(&shared), Arc::clone(&started));
        workers.spawn(work(shared, number, started, stopping.clone()));
    }
    let reporter = tokio::spawn(report(Arc::clone(&shared)));
    let mut sink = Vec::new();
    let mut input = tokio::io::stdin();
    tokio::select! {
        () = sleep(duration) => {}
        _ = input.read_to_end(&mut sink) => {}
        () = all(&mut workers), if !workers.is_empty() => {}
    }
    stop.send_replace(true);
    all(&mut workers).await;
    all(&mut tasks).await;
    reporter.abort();
    // Aborted between two lines: wait, so that its last line is whole.
    let _ = reporter.await;
    print(&Line::Finished(shared.books().close()))?;
    std::io::stdout().flush()?;
    // The thread that reads the standard input cannot be stopped.
    std::process::exit(0)
}

async fn all(tasks: &mut JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
}

async fn report(shared: Arc<Shared>) {
    loop {
        sleep(REPORT).await;
        let report = shared.books().report();
        if print(&Line::Running(report)).is_err() {
            return;
        }
    }
}

fn print(line: &Line) -> Result<()> {
    let text = serde_json::to_string(line)?;
    writeln!(std::io::stdout(), "{text}").context("cannot write to the output")
}

fn connector(ca: &Path) -> Result<TlsConnector> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca)
        .with_context(|| format!("no certificate in {}", ca.display()))?
    {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // Every connection is a whole one, whichever backend it reaches.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// A connection and, once it has answered, whose it is.
struct Held {
    connection: Connection,
    backend: Option<String>,
}

async fn work(
    shared: Arc<Shared>,
    number: u64,
    started: Arc<AtomicU64>,
    stop: watch::Receiver<bool>,
) {
    let arguments = &shared.arguments;
    let mut held: Option<Held> = None;
    let mut turn = number;
    while !*stop.borrow() {
        if arguments.count > 0 && started.fetch_add(1, Ordering::Relaxed) >= arguments.count {
            return;
        }
        shared.books().begun(number);
        let current = match held.take() {
            Some(held) => Some(held),
            None => open(&shared, turn).await,
        };
        turn += u64::from(arguments.concurrency);
        let Some(current) = current else {
            shared.books().ended(number);
            sleep(REFUSED_PAUSE).await;
            continue;
        };
        held = ask(&shared, current).await;
        shared.books().ended(number);
        if arguments.connections == Connections::PerRequest
            && let Some(last) = held.take()
            && arguments.same_port
        {
            say_farewell(&shared, last).await;
        }
        if arguments.pause_ms > 0 {
            sleep(Duration::from_millis(arguments.pause_ms)).await;
        }
    }
}

/// None where it failed, which is in the books then.
async fn open(shared: &Arc<Shared>, turn: u64) -> Option<Held> {
    let limit = Duration::from_millis(shared.arguments.timeout_ms);
    let opened = timeout(limit, Connection::open(shared, shared.source(turn))).await;
    match opened.context("timed out").and_then(|opened| opened) {
        Ok(connection) => {
            shared.books().connected();
            Some(Held { connection, backend: None })
        }
        Err(error) => {
            shared.books().refused(reason("connect", &error));
            None
        }
    }
}

async fn say_farewell(shared: &Arc<Shared>, held: Held) {
    let limit = Duration::from_millis(shared.arguments.timeout_ms);
    let left = timeout(limit, held.connection.farewell()).await;
    if let Err(error) = left.context("timed out").and_then(|left| left) {
        shared.books().failed(reason("close", &error));
    }
}

/// None where the connection is of no more use.
async fn ask(shared: &Arc<Shared>, mut held: Held) -> Option<Held> {
    let limit = Duration::from_millis(shared.arguments.timeout_ms);
    let asked = timeout(limit, held.connection.request()).await;
    match asked.context("timed out").and_then(|asked| asked) {
        Ok(answer) => {
            shared.books().answered(&answer, held.connection.own, held.connection.peer);
            held.backend = Some(answer.backend);
            Some(held)
        }
        Err(error) => {
            let mut books = shared.books();
            books.failed(reason("request", &error));
            if let Some(backend) = &held.backend {
                books.broke(backend);
            }
            None
        }
    }
}

/// A short text by which failures are counted.
pub(super) fn reason(stage: &str, error: &anyhow::Error) -> String {
    format!("{stage}: {error:#}")
}
