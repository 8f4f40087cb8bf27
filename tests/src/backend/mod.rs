//! Real servers for the lab, which say who they are and whom they see: an API-server-like HTTPS
//! server, TCP and UDP echo. The server side runs as `lb-lab backend`; [`Backend`] is a scenario's
//! handle to one.

pub mod api_server;
mod https;
pub mod receiver;
mod tcp;
mod udp;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::RcvBufForce;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::sync::watch;

use crate::lab::certificate::Certificate;
use crate::lab::{Host, Lab, Process};

pub(crate) use https::WatchLine;
pub(crate) use tcp::{FAREWELL, PUSH_EVERY, SUBSCRIBE};

/// How long a server may take to start on a loaded machine.
const START: Duration = Duration::from_secs(20);

/// What a UDP server takes in while it does not run.
const UDP_BUFFER_BYTES: usize = 4 << 20;

/// What a server says on its output when it listens, and after each order has been carried out.
const READY: &str = "ready";
/// On its input: close the listeners, keep the connections.
const LEAVE: &str = "leave";
/// On its input: listen again.
const JOIN: &str = "join";
/// On its input: say at `/readyz` that something is wrong, and serve all the same.
const SICKEN: &str = "sicken";
/// On its input: say that all is well.
const RECOVER: &str = "recover";

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
pub enum Mode {
    /// HTTP/1.1 over TLS: `/` answers with an [`Answer`], `/readyz` with "ok" unless told otherwise, and
    /// `/watch?interval_ms=N` sends a line with a number every N milliseconds without end.
    Https,
    /// Says an [`Answer`] in the first line, then echoes, or speaks by itself where it is asked to.
    Tcp,
    /// Answers each datagram with the datagram, a line feed and an [`Answer`].
    Udp,
}

impl Mode {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// What a backend tells its client.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// Who it is.
    pub backend: String,
    /// Whom it sees (`getpeername`).
    pub client: SocketAddr,
    /// Its own socket's address (`getsockname`); for UDP, what it is bound to.
    pub local: SocketAddr,
}

/// The arguments of `lb-lab backend`.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// Who it says it is.
    #[arg(long)]
    pub name: String,
    #[arg(long, value_enum, default_value = "https")]
    pub mode: Mode,
    /// Where it listens; may be given several times.
    #[arg(long, required = true)]
    pub listen: Vec<SocketAddr>,
    /// PEM file of its certificate (https).
    #[arg(long)]
    pub certificate: Option<PathBuf>,
    /// PEM file of its key (https).
    #[arg(long)]
    pub key: Option<PathBuf>,
}

/// Serves until it is killed or its standard input ends.
///
/// # Errors
/// Where it cannot listen, or its certificate is wrong.
pub async fn serve(arguments: Arguments) -> Result<()> {
    let (orders, listening) = watch::channel(true);
    let well = Arc::new(AtomicBool::new(true));
    start(&arguments, &listening, &well).await?;
    say(READY)?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await.context("cannot read orders")? {
        match line.trim() {
            LEAVE => {
                // Returns once every listener has been dropped with its receiver.
                orders.send_replace(false);
                while orders.receiver_count() > 1 {
                    tokio::task::yield_now().await;
                }
            }
            JOIN => {
                orders.send_replace(true);
                start(&arguments, &listening, &well).await?;
            }
            SICKEN => well.store(false, Ordering::Relaxed),
            RECOVER => well.store(true, Ordering::Relaxed),
            other => bail!("unknown order {other:?}: say {LEAVE}, {JOIN}, {SICKEN} or {RECOVER}"),
        }
        say(READY)?;
    }
    Ok(())
}

async fn start(
    arguments: &Arguments,
    listening: &watch::Receiver<bool>,
    well: &Arc<AtomicBool>,
) -> Result<()> {
    for &address in &arguments.listen {
        let name = arguments.name.clone();
        let at = || format!("cannot listen on {address}");
        match arguments.mode {
            Mode::Https => {
                let files = (arguments.certificate.as_deref(), arguments.key.as_deref());
                let (Some(certificate), Some(key)) = files else {
                    bail!("https needs --certificate and --key");
                };
                let tls = https::acceptor(certificate, key)?;
                let listener = tokio::net::TcpListener::bind(address).await.with_context(at)?;
                let well = Arc::clone(well);
                tokio::spawn(https::serve(listener, tls, name, well, listening.clone()));
            }
            Mode::Tcp => {
                let listener = tokio::net::TcpListener::bind(address).await.with_context(at)?;
                tokio::spawn(tcp::serve(listener, name, listening.clone()));
            }
            Mode::Udp => {
                let socket = tokio::net::UdpSocket::bind(address).await.with_context(at)?;
                // A datagram in pieces takes a page for each where the kernel copied them.
                setsockopt(&socket, RcvBufForce, &UDP_BUFFER_BYTES).context("SO_RCVBUFFORCE")?;
                tokio::spawn(udp::serve(socket, name, listening.clone()));
            }
        }
    }
    Ok(())
}

fn say(line: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{line}").context("cannot write to the output")
}

/// A mapped IPv4 address as the plain one that it stands for.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// A running server in a host. Owned: killed on drop.
#[derive(Debug)]
pub struct Backend {
    process: Process,
}

impl Backend {
    /// Starts one and waits until it listens.
    ///
    /// # Errors
    /// Where it does not come up; its log is quoted.
    pub fn start(
        lab: &Lab,
        host: &Host,
        mode: Mode,
        listen: &[SocketAddr],
        certificate: Option<&Certificate>,
    ) -> Result<Self> {
        let mut command = lab.tool();
        command.args(["backend", "--name", host.name(), "--mode", mode.name()]);
        for address in listen {
            command.arg("--listen").arg(address.to_string());
        }
        if let Some(certificate) = certificate {
            command.arg("--certificate").arg(&certificate.server);
            command.arg("--key").arg(&certificate.server_key);
        }
        let process = host.spawn(&format!("backend-{}", mode.name()), command)?;
        let backend = Self { process };
        backend.await_ready()?;
        Ok(backend)
    }

    /// Closes its listeners; connections go on. Done when this returns.
    ///
    /// # Errors
    /// Where it does not obey.
    pub fn leave(&mut self) -> Result<()> {
        self.order(LEAVE)
    }

    /// Listens again. Done when this returns.
    ///
    /// # Errors
    /// Where it does not obey.
    pub fn join(&mut self) -> Result<()> {
        self.order(JOIN)
    }

    /// From now on it says at `/readyz` whether all is well (https).
    ///
    /// # Errors
    /// Where it does not obey.
    pub fn say_well(&mut self, well: bool) -> Result<()> {
        self.order(if well { RECOVER } else { SICKEN })
    }

    fn order(&mut self, order: &str) -> Result<()> {
        self.process.say(order)?;
        self.await_ready()
    }

    /// Kills it, as a crash would: the kernel resets its connections.
    ///
    /// # Errors
    /// Where it had ended before.
    pub fn kill(self) -> Result<()> {
        self.process.kill()
    }

    fn await_ready(&self) -> Result<()> {
        let line = self.process.line(START)?;
        if line == READY { Ok(()) } else { bail!("the backend said {line:?}") }
    }
}
