//! A client of the lab that makes load and keeps books: which backends answered, whom they saw,
//! what failed and why, and the longest silence. It runs as `lb-lab client`; [`Load`] is a
//! scenario's handle to one.

mod asker;
mod connection;
mod flock;
mod gap;
mod load;
mod ownership;
mod prober;
mod report;
mod returner;
mod stream;
mod watcher;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::backend::Mode;
use crate::lab::{Host, Lab, Process};

pub use asker::Asker;
pub use flock::{Flock, Manner, Survival};
pub use load::run;
pub use ownership::Ownership;
pub use prober::{Probe, Prober};
pub use report::{Report, Streams};
pub use returner::{Returner, Returners};
pub use watcher::{End, Watchers};

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Connections {
    /// One connection for each worker, opened again only when it breaks.
    KeepAlive,
    /// A new connection (for UDP, a new socket) for each request.
    PerRequest,
}

/// The arguments of `lb-lab client`.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// Address and port to talk to: the VIP's.
    #[arg(long)]
    pub target: SocketAddr,
    #[arg(long, value_enum, default_value = "https")]
    pub mode: Mode,
    /// PEM file of the authority to trust (https).
    #[arg(long)]
    pub ca: Option<PathBuf>,
    #[arg(long, value_enum, default_value = "keep-alive")]
    pub connections: Connections,
    /// Requests at the same time.
    #[arg(long, default_value_t = 1)]
    pub concurrency: u32,
    /// Own addresses, taken in turn; the kernel's choice without any.
    #[arg(long)]
    pub source: Vec<IpAddr>,
    /// Watches to keep open (https).
    #[arg(long, default_value_t = 0)]
    pub streams: u32,
    /// What a watch is asked to send a line every so often.
    #[arg(long, default_value_t = 20)]
    pub stream_interval_ms: u64,
    /// After this a request has failed.
    #[arg(long, default_value_t = 3000)]
    pub timeout_ms: u64,
    /// Each worker rests so long after a request.
    #[arg(long, default_value_t = 0)]
    pub pause_ms: u64,
    /// Ends after so many requests; 0 is no limit.
    #[arg(long, default_value_t = 0)]
    pub count: u64,
    /// Ends after so long, or when the standard input ends.
    #[arg(long, default_value_t = 120_000)]
    pub duration_ms: u64,
    /// UDP sockets are not connected: the destination is named with each datagram.
    #[arg(long)]
    pub unconnected: bool,
    /// Every connection of a worker has the same own port, and the server closes first (tcp).
    #[arg(long, requires = "source")]
    pub same_port: bool,
    /// Every packet has IPv6 destination options (tcp).
    #[arg(long)]
    pub destination_options: bool,
    /// Bytes of each echo of TCP or UDP, at least 16.
    #[arg(long, default_value_t = 64)]
    pub payload_bytes: u32,
}

impl Arguments {
    /// The defaults of the command line.
    pub fn new(target: SocketAddr, mode: Mode) -> Self {
        Self {
            target,
            mode,
            ca: None,
            connections: Connections::KeepAlive,
            concurrency: 1,
            source: Vec::new(),
            streams: 0,
            stream_interval_ms: 20,
            timeout_ms: 3000,
            pause_ms: 0,
            count: 0,
            duration_ms: 120_000,
            unconnected: false,
            same_port: false,
            destination_options: false,
            payload_bytes: 64,
        }
    }

    fn words(&self) -> Vec<String> {
        let connections = match self.connections {
            Connections::KeepAlive => "keep-alive",
            Connections::PerRequest => "per-request",
        };
        let mut words: Vec<String> = vec![
            format!("--target={}", self.target),
            format!("--mode={}", self.mode.name()),
            format!("--connections={connections}"),
            format!("--concurrency={}", self.concurrency),
            format!("--streams={}", self.streams),
            format!("--stream-interval-ms={}", self.stream_interval_ms),
            format!("--timeout-ms={}", self.timeout_ms),
            format!("--pause-ms={}", self.pause_ms),
            format!("--count={}", self.count),
            format!("--duration-ms={}", self.duration_ms),
            format!("--payload-bytes={}", self.payload_bytes),
        ];
        words.extend(self.ca.iter().map(|path| format!("--ca={}", path.display())));
        words.extend(self.source.iter().map(|address| format!("--source={address}")));
        words.extend(self.same_port.then(|| "--same-port".to_owned()));
        words.extend(self.destination_options.then(|| "--destination-options".to_owned()));
        words.extend(self.unconnected.then(|| "--unconnected".to_owned()));
        words
    }
}

/// A line of the client's output.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Line {
    Running(Report),
    Finished(Report),
}

/// How long a client may be silent: it reports ten times a second.
const SILENCE: Duration = Duration::from_secs(20);

/// A running client in a host. Owned: killed on drop.
#[derive(Debug)]
pub struct Load {
    process: Process,
    latest: Report,
    finished: bool,
}

impl Load {
    /// # Errors
    /// Where it cannot be run.
    pub fn start(lab: &Lab, host: &Host, arguments: &Arguments) -> Result<Self> {
        let mut command = lab.tool();
        command.arg("client").args(arguments.words());
        let process = host.spawn("client", command)?;
        Ok(Self { process, latest: Report::default(), finished: false })
    }

    /// Runs one to its end, which `count` or `duration_ms` bounds.
    ///
    /// # Errors
    /// Where it fails as a process; failed requests are in the report.
    pub fn complete(lab: &Lab, host: &Host, arguments: &Arguments) -> Result<Report> {
        let mut load = Self::start(lab, host, arguments)?;
        while !load.finished {
            load.read()?;
        }
        Ok(load.latest)
    }

    /// The newest report that has come.
    ///
    /// # Errors
    /// Where its output is wrong.
    pub fn latest(&mut self) -> Result<&Report> {
        while let Some(line) = self.process.try_line() {
            self.take(&line)?;
        }
        Ok(&self.latest)
    }

    /// Waits until a report satisfies the condition.
    ///
    /// # Errors
    /// Where none does in time; `what` says in the message what was awaited.
    pub fn wait_until(
        &mut self,
        what: &str,
        limit: Duration,
        condition: impl Fn(&Report) -> bool,
    ) -> Result<&Report> {
        let deadline = Instant::now() + limit;
        while !condition(&self.latest) {
            if self.finished || Instant::now() > deadline {
                bail!("{what}: not within {limit:?}; {}", self.latest.summary());
            }
            self.read()?;
        }
        Ok(&self.latest)
    }

    /// Lets it run until it has made so many more requests.
    ///
    /// # Errors
    /// Where it does not, in time.
    pub fn run_for_requests(&mut self, more: u64, limit: Duration) -> Result<()> {
        let goal = self.latest()?.requests + more;
        self.wait_until(&format!("{more} more requests"), limit, |r| r.requests >= goal)?;
        Ok(())
    }

    /// Lets it finish what is under way and returns its books.
    ///
    /// # Errors
    /// Where it does not end.
    pub fn stop(mut self) -> Result<Report> {
        self.process.close_input();
        while !self.finished {
            self.read()?;
        }
        Ok(self.latest)
    }

    fn read(&mut self) -> Result<()> {
        let line = self.process.line(SILENCE)?;
        self.take(&line)
    }

    fn take(&mut self, line: &str) -> Result<()> {
        let line: Line =
            serde_json::from_str(line).with_context(|| format!("the client said {line:?}"))?;
        (self.latest, self.finished) = match line {
            Line::Running(report) => (report, false),
            Line::Finished(report) => (report, true),
        };
        Ok(())
    }
}

/// What workers and streams share.
struct Shared {
    arguments: Arguments,
    tls: Option<tokio_rustls::TlsConnector>,
    books: std::sync::Mutex<report::Books>,
}

impl Shared {
    fn books(&self) -> std::sync::MutexGuard<'_, report::Books> {
        self.books.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The own address of the n-th worker.
    fn source(self: &Arc<Self>, number: u64) -> Option<IpAddr> {
        let sources = &self.arguments.source;
        let index = number.checked_rem(sources.len() as u64)?;
        usize::try_from(index).ok().and_then(|index| sources.get(index)).copied()
    }
}
