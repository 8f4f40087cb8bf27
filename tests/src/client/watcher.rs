//! Clients that have asked for something and wait for it: each reads from its connection, sends nothing, and
//! notes when and how it ends.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use crate::backend::Answer;
use crate::lab::Host;

/// For a connection to open, and its server to answer.
const OPENING: Duration = Duration::from_secs(5);

const ASKED: &[u8] = b"anything new?";

/// How a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// By the other side.
    Closed,
    /// By a reset, or by this side's own kernel.
    Reset,
    Other(ErrorKind),
}

/// Owned: their connections end with them.
#[derive(Debug)]
pub struct Watchers {
    all: Vec<Watcher>,
    ends: Arc<Ends>,
}

#[derive(Debug)]
struct Watcher {
    backend: String,
    stream: TcpStream,
}

/// When and how each has ended, and who waits for that.
#[derive(Debug, Default)]
struct Ends {
    of: Mutex<Vec<Option<(SystemTime, End)>>>,
    changed: Condvar,
}

impl Ends {
    fn lock(&self) -> MutexGuard<'_, Vec<Option<(SystemTime, End)>>> {
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watchers {
    /// So many in a host, from its addresses in turn, or from what the kernel chooses; all have been answered
    /// once.
    ///
    /// # Errors
    /// Where one cannot connect, or is not answered.
    pub fn start(
        host: &Host,
        target: SocketAddr,
        sources: &[IpAddr],
        count: usize,
    ) -> Result<Self> {
        let source = |number: usize| sources.get(number % sources.len().max(1)).copied();
        let open = |number| {
            let (backend, stream) = open(target, source(number))?;
            Ok(Watcher { backend, stream })
        };
        let all: Vec<Watcher> = host.namespace().within(|| (0..count).map(open).collect())?;
        let ends = Arc::new(Ends::default());
        ends.lock().resize(count, None);
        for (number, watcher) in all.iter().enumerate() {
            let (stream, ends) = (watcher.stream.try_clone()?, Arc::clone(&ends));
            std::thread::spawn(move || {
                let how = wait(stream);
                ends.lock()[number] = Some((SystemTime::now(), how));
                ends.changed.notify_all();
            });
        }
        Ok(Self { all, ends })
    }

    /// Whose each of them is, in their order.
    pub fn backends(&self) -> impl Iterator<Item = &str> {
        self.all.iter().map(|watcher| watcher.backend.as_str())
    }

    /// How many of them are whose.
    pub fn of(&self, backend: &str) -> usize {
        self.all.iter().filter(|watcher| watcher.backend == backend).count()
    }

    /// When and how those of a backend have ended that have.
    pub fn ends(&self, backend: &str) -> Vec<(SystemTime, End)> {
        let ends = self.ends.lock();
        let its = self.all.iter().zip(&*ends).filter(|(watcher, _)| watcher.backend == backend);
        its.filter_map(|(_, end)| *end).collect()
    }

    /// How many of all others have ended.
    pub fn others_ended(&self, backend: &str) -> usize {
        let ends = self.ends.lock();
        let others = self.all.iter().zip(&*ends).filter(|(watcher, _)| watcher.backend != backend);
        others.filter(|(_, end)| end.is_some()).count()
    }

    /// Waits until all of a backend have ended, or for so long. Returns how many have.
    pub fn await_ends(&self, backend: &str, limit: Duration) -> usize {
        let all = self.of(backend);
        let its: Vec<usize> =
            (0..self.all.len()).filter(|&number| self.all[number].backend == backend).collect();
        let ended =
            |ends: &[Option<_>]| its.iter().filter(|&&number| ends[number].is_some()).count();
        let waits = |ends: &mut Vec<Option<_>>| ended(ends) < all;
        let waited = self.ends.changed.wait_timeout_while(self.ends.lock(), limit, waits);
        let (ends, _) = waited.unwrap_or_else(PoisonError::into_inner);
        ended(&ends)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // Its thread ends with that; where it has ended, so has this.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// A connection to an echo server that has answered, and the server's name.
pub(super) fn open(target: SocketAddr, source: Option<IpAddr>) -> Result<(String, TcpStream)> {
    let family = if target.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // It bounds `connect` as well (socket(7)).
    setsockopt(&socket, sockopt::SendTimeout, &TimeVal::new(OPENING.as_secs() as i64, 0))?;
    if let Some(source) = source {
        bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(source, 0)))?;
    }
    connect(socket.as_raw_fd(), &SockaddrStorage::from(target)).context("a watcher connects")?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(OPENING))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line).context("a watcher is greeted")?;
    let answer: Answer = serde_json::from_str(&line).context("a greeting")?;
    stream.write_all(ASKED)?;
    let mut echo = [0; ASKED.len()];
    reader.read_exact(&mut echo).context("a watcher is answered")?;
    ensure!(echo == ASKED, "an echo of something else");
    stream.set_read_timeout(None)?;
    Ok((answer.backend, stream))
}

pub(super) fn wait(mut stream: TcpStream) -> End {
    let mut buffer = [0; 64];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return End::Closed,
            Ok(_) => {}
            Err(error) => match error.kind() {
                ErrorKind::Interrupted => {}
                ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => return End::Reset,
                kind => return End::Other(kind),
            },
        }
    }
}
