//! Where the agent is asked: its Unix socket, and the address for metrics. Both outlive the process where
//! another agent follows, so that nobody who asks finds nobody.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::error::AgentError;
use crate::config::Config;
use crate::control::server::{self, Peer};

/// How long an ending agent goes on to answer what it was asked before.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// The listening sockets.
#[derive(Debug)]
pub(super) struct Doors {
    pub(super) socket: PathBuf,
    control: UnixListener,
    pub(super) metrics: Option<SocketAddr>,
    scraped: Option<TcpListener>,
}

/// They are served until this is closed.
#[derive(Debug)]
pub(super) struct Open {
    closing: watch::Sender<bool>,
    serving: Vec<JoinHandle<()>>,
}

impl Doors {
    /// Opens what the configuration says.
    pub(super) fn open(config: &Config) -> Result<Self, AgentError> {
        Self::open_but(config, None, None)
    }

    /// Opens what the configuration says, but for what is open already.
    pub(super) fn inherit(
        config: &Config,
        (socket, metrics): (&PathBuf, Option<SocketAddr>),
        descriptors: Vec<OwnedFd>,
    ) -> Result<Self, AgentError> {
        let mut descriptors = descriptors.into_iter();
        let control = descriptors.next().filter(|_| *socket == config.control.socket);
        let scraped = descriptors.next().filter(|_| metrics == config.metrics.listen);
        Self::open_but(config, control, scraped)
    }

    fn open_but(
        config: &Config,
        control: Option<OwnedFd>,
        scraped: Option<OwnedFd>,
    ) -> Result<Self, AgentError> {
        let socket = config.control.socket.clone();
        let group = config.control.group.as_deref();
        let control = match control {
            Some(open) => {
                server::grant(&socket, group)?;
                open.into()
            }
            None => server::listen(&socket, group)?,
        };
        let metrics = config.metrics.listen;
        let scraped = match (metrics, scraped) {
            (None, _) => None,
            (Some(_), Some(open)) => Some(open.into()),
            (Some(address), None) => {
                let bound = TcpListener::bind(address);
                Some(bound.map_err(|source| AgentError::Metrics { address, source })?)
            }
        };
        Ok(Self { socket, control, metrics, scraped })
    }

    /// In the order in which [`inherit`](Self::inherit) takes them.
    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let scraped = self.scraped.as_ref().map(|listener| listener.as_fd());
        [self.control.as_fd()].into_iter().chain(scraped).collect()
    }

    /// Answers whoever asks.
    pub(super) fn serve(&self, commands: &mpsc::Sender<server::Command>) -> io::Result<Open> {
        let (closing, closed) = watch::channel(false);
        let end = move || {
            let mut closed = closed.clone();
            async move {
                // A sender that is gone means the same.
                let _ = closed.wait_for(|closed| *closed).await;
            }
        };
        self.control.set_nonblocking(true)?;
        let listener = tokio::net::UnixListener::from_std(self.control.try_clone()?)?;
        let routes = server::routes(commands.clone());
        let routes = routes.into_make_service_with_connect_info::<Peer>();
        let served = axum::serve(listener, routes).with_graceful_shutdown(end());
        let mut serving = vec![tokio::spawn(async move {
            if let Err(error) = served.await {
                warn!(%error, "the control socket ended");
            }
        })];
        if let Some(listener) = &self.scraped {
            let address = listener.local_addr().ok();
            info!(?address, "metrics");
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener.try_clone()?)?;
            let routes = server::public_routes(commands.clone());
            let served = axum::serve(listener, routes).with_graceful_shutdown(end());
            serving.push(tokio::spawn(async move {
                if let Err(error) = served.await {
                    warn!(%error, "the metrics address ended");
                }
            }));
        }
        Ok(Open { closing, serving })
    }
}

impl Open {
    /// Whoever asks from now on waits for the next who answers.
    pub(super) fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Waits until everybody has the answer to what was asked before, for a moment at most.
    pub(super) async fn finish(self) {
        self.close();
        let all = futures::future::join_all(self.serving);
        if tokio::time::timeout(LAST_ANSWERS, all).await.is_err() {
            info!("somebody at the control socket is left without an answer");
        }
    }
}
