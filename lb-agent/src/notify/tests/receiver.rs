//! The other ends: a directory with scripts, and an HTTP or HTTPS server, each of which notes what it
//! was told.

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::config::{Notify, NotifyEvent, NotifyWay, Url};
use crate::notify::notice::Notice;
use crate::web::testbed;

/// Longer than anything here takes on a busy machine.
pub(super) const LIMIT: Duration = Duration::from_secs(20);

/// A directory of the test's own, removed with it.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("notify-{}-{number}", std::process::id()));
        fs::create_dir(&path).expect("a new directory");
        Self(path)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A script that may be run.
    pub(super) fn script(&self, body: &str) -> PathBuf {
        let path = self.path("script");
        // Another name first: a file that is being written cannot be run.
        let new = self.path("new");
        fs::write(&new, format!("#!/bin/sh\n{body}\n")).expect("a writable directory");
        fs::set_permissions(&new, Permissions::from_mode(0o755)).expect("our own file");
        fs::rename(new, &path).expect("a writable directory");
        path
    }

    /// A script that notes its input, a line for each notice.
    pub(super) fn noting_script(&self) -> PathBuf {
        self.script(&format!("cat >>{}", self.path("told").display()))
    }

    pub(super) fn told(&self) -> Vec<Notice> {
        let text = fs::read_to_string(self.path("told")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("a notice")).collect()
    }
}

impl AsRef<Path> for Scratch {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A request as a server saw it.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) notice: Notice,
}

pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) requests: mpsc::UnboundedReceiver<Request>,
    /// What it answers.
    status: Arc<AtomicU16>,
}

type Noted = (mpsc::UnboundedSender<Request>, Arc<AtomicU16>);

async fn take(
    State((requests, status)): State<Noted>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: String,
) -> StatusCode {
    let notice = serde_json::from_str(&body).expect("a notice");
    let path = uri.to_string();
    // Where the test does not look any more, nobody misses it.
    let _ = requests.send(Request { method, path, headers, notice });
    StatusCode::from_u16(status.load(Ordering::SeqCst)).expect("the test's own")
}

impl Server {
    pub(super) async fn start(status: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a socket");
        let (server, routes) = Self::make(address, status);
        tokio::spawn(async move { axum::serve(listener, routes).await });
        server
    }

    /// With TLS. Returns the authority of its certificate, in PEM.
    pub(super) async fn start_tls(status: u16) -> (Self, String) {
        let certified = testbed::certificate("127.0.0.1");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let (server, routes) = Self::make(listener.local_addr().expect("a socket"), status);
        testbed::serve(listener, routes, &certified, None);
        (server, certified.cert.pem())
    }

    fn make(address: SocketAddr, status: u16) -> (Self, Router) {
        let (sender, requests) = mpsc::unbounded_channel();
        let status = Arc::new(AtomicU16::new(status));
        let routes = Router::new().fallback(take).with_state((sender, Arc::clone(&status)));
        (Self { address, requests, status }, routes)
    }

    pub(super) fn answer(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    pub(super) async fn next(&mut self) -> Request {
        let next = tokio::time::timeout(LIMIT, self.requests.recv()).await;
        next.expect("a request in time").expect("a server that runs")
    }

    pub(super) fn hook(&self) -> Notify {
        self.hook_with(false, None)
    }

    pub(super) fn hook_with(&self, secure: bool, ca_file: Option<PathBuf>) -> Notify {
        let (host, port) = (self.address.ip().to_string(), self.address.port());
        let url = Url { secure, host, port, path: "/hook?a=b".to_owned() };
        hook("web", NotifyWay::Webhook { url, ca_file })
    }
}

pub(super) fn script_hook(path: PathBuf) -> Notify {
    hook("script", NotifyWay::Script { path, arguments: Vec::new(), user: None })
}

fn hook(name: &str, way: NotifyWay) -> Notify {
    let events = vec![NotifyEvent::Role, NotifyEvent::Trouble];
    Notify { name: name.to_owned(), way, events, timeout: Duration::from_secs(5) }
}
