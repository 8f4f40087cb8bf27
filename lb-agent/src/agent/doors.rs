//! Where the agent is asked: its Unix socket, and the address for metrics. Both outlive the process where
//! another agent follows, so that nobody who asks finds nobody.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
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
    scraped: watch::Sender<Option<Arc<Scraped>>>,
}

/// The address for metrics.
#[derive(Debug)]
pub(super) struct Scraped {
    address: SocketAddr,
    listener: TcpListener,
}

impl Scraped {
    pub(super) fn open(address: SocketAddr) -> Result<Self, AgentError> {
        let bound = TcpListener::bind(address);
        let listener = bound.map_err(|source| AgentError::Metrics { address, source })?;
        Ok(Self { address, listener })
    }
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
        let scraped = match (config.metrics.listen, scraped) {
            (None, _) => None,
            (Some(address), Some(open)) => Some(Scraped { address, listener: open.into() }),
            (Some(address), None) => Some(Scraped::open(address)?),
        };
        Ok(Self { socket, control, scraped: watch::Sender::new(scraped.map(Arc::new)) })
    }

    /// Has metrics asked for there from now on, or nowhere.
    pub(super) fn move_metrics(&self, scraped: Option<Scraped>) {
        self.scraped.send_replace(scraped.map(Arc::new));
    }

    pub(super) fn metrics(&self) -> Option<SocketAddr> {
        self.scraped.borrow().as_ref().map(|scraped| scraped.address)
    }

    pub(super) fn scraped(&self) -> Option<Arc<Scraped>> {
        self.scraped.borrow().clone()
    }

    /// In the order in which [`inherit`](Self::inherit) takes them.
    pub(super) fn descriptors<'a>(&'a self, scraped: Option<&'a Scraped>) -> Vec<BorrowedFd<'a>> {
        let scraped = scraped.map(|scraped| scraped.listener.as_fd());
        [self.control.as_fd()].into_iter().chain(scraped).collect()
    }

    /// Answers whoever asks.
    pub(super) fn serve(&self, commands: &mpsc::Sender<server::Command>) -> io::Result<Open> {
        let (closing, closed) = watch::channel(false);
        self.control.set_nonblocking(true)?;
        let listener = tokio::net::UnixListener::from_std(self.control.try_clone()?)?;
        let routes = server::routes(commands.clone());
        let routes = routes.into_make_service_with_connect_info::<Peer>();
        let end = closing_of(closed.clone());
        let served = axum::serve(listener, routes).with_graceful_shutdown(end);
        let control = tokio::spawn(async move {
            if let Err(error) = served.await {
                warn!(%error, "the control socket ended");
            }
        });
        let metrics =
            tokio::spawn(serve_metrics(self.scraped.subscribe(), closed, commands.clone()));
        Ok(Open { closing, serving: vec![control, metrics] })
    }
}

/// Until nobody is to be served any more. A sender that is gone means the same.
async fn closing_of(mut closed: watch::Receiver<bool>) {
    let _ = closed.wait_for(|closed| *closed).await;
}

/// Answers at the address for metrics, wherever that is.
async fn serve_metrics(
    mut scraped: watch::Receiver<Option<Arc<Scraped>>>,
    closed: watch::Receiver<bool>,
    commands: mpsc::Sender<server::Command>,
) {
    // Whoever asks at the address before is still answered what was asked.
    let mut serving = JoinSet::new();
    loop {
        let now = scraped.borrow_and_update().clone();
        if let Some(here) = now {
            let mut moved = scraped.clone();
            let closing = closing_of(closed.clone());
            let end = async move {
                tokio::select! {
                    () = closing => {}
                    _ = moved.changed() => {}
                }
            };
            if let Err(error) = here.serve(&mut serving, end, &commands) {
                warn!(%error, address = %here.address, "metrics are not served");
            }
        }
        tokio::select! {
            () = closing_of(closed.clone()) => break,
            moved = scraped.changed() => if moved.is_err() {
                break;
            },
        }
    }
    while serving.join_next().await.is_some() {}
}

impl Scraped {
    fn serve(
        &self,
        serving: &mut JoinSet<()>,
        end: impl Future<Output = ()> + Send + 'static,
        commands: &mpsc::Sender<server::Command>,
    ) -> io::Result<()> {
        self.listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(self.listener.try_clone()?)?;
        info!(address = %self.address, "metrics");
        let routes = server::public_routes(commands.clone());
        let served = axum::serve(listener, routes).with_graceful_shutdown(end);
        serving.spawn(async move {
            if let Err(error) = served.await {
                warn!(%error, "the metrics address ended");
            }
        });
        Ok(())
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

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    fn free() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    }

    async fn connects(address: SocketAddr) -> bool {
        tokio::task::spawn_blocking(move || TcpStream::connect(address).is_ok()).await.unwrap()
    }

    #[tokio::test]
    async fn metrics_move_and_an_address_in_use_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (one, other) = (free(), free());
        let text = format!(
            "{}\n[metrics]\nlisten = \"{one}\"\n[control]\nsocket = {:?}\n",
            include_str!("../../tests/fixtures/config/taken/ten-lines.toml"),
            directory.path().join("socket"),
        );
        let config = Config::parse(&text).unwrap_or_else(|error| panic!("{}", error.report("")));
        let doors = Doors::open(&config).unwrap();
        let (commands, _inbox) = mpsc::channel(1);
        let open = doors.serve(&commands).unwrap();
        assert!(Scraped::open(one).is_err(), "it is in use");
        doors.move_metrics(Some(Scraped::open(other).unwrap()));
        assert!(connects(other).await);
        assert_eq!(doors.metrics(), Some(other));
        doors.move_metrics(None);
        // Whoever listened there has ended once the address is free.
        let free = async {
            while Scraped::open(other).is_err() || Scraped::open(one).is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LAST_ANSWERS, free).await.expect("nobody listens there any more");
        drop(doors);
        open.finish().await;
    }
}
