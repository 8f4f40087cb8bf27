//! Very many connections at once, each of which should go on whatever happens to the balancers: those that talk,
//! and those that only listen to a server that says something now and then. For how long each stands still, and
//! how it ends, is noted.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::watcher;
use crate::backend::{PUSH_EVERY, SUBSCRIBE};
use crate::lab::Host;

/// What one that talks says, and gets back.
const WORD: &[u8] = b"and now?";

/// What keeps a connection alive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    /// The client asks, the server answers, and both rest.
    Talks,
    /// The server speaks, the client has nothing to say.
    Listens,
}

impl Manner {
    pub const ALL: [Self; 2] = [Self::Talks, Self::Listens];
}

/// How many of them go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Survival {
    pub all: usize,
    pub survived: usize,
    /// Of those that did not: how many were ended, and not only silent.
    pub ended: usize,
    /// Of those that did: the longest time in which one had nothing of its server.
    pub longest: Duration,
}

/// Owned: their connections end with them.
#[derive(Debug)]
pub struct Flock {
    runtime: Runtime,
    target: SocketAddr,
    sources: Vec<IpAddr>,
    members: Vec<Member>,
    heard: Arc<Heard>,
}

#[derive(Debug)]
struct Member {
    manner: Manner,
    task: JoinHandle<()>,
}

/// What each of them has heard, and who waits for that.
#[derive(Debug, Default)]
struct Heard {
    of: Mutex<Vec<Hearing>>,
    changed: Condvar,
}

#[derive(Clone, Copy, Debug)]
struct Hearing {
    last: Instant,
    /// The longest silence since it was last asked for.
    longest: Duration,
    ended: bool,
}

impl Hearing {
    fn begin() -> Self {
        Self { last: Instant::now(), longest: Duration::ZERO, ended: false }
    }

    /// It has been heard since then, and may be again.
    fn goes_on(&self, since: Instant) -> bool {
        !self.ended && self.last > since
    }
}

impl Heard {
    fn lock(&self) -> MutexGuard<'_, Vec<Hearing>> {
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, number: usize) {
        let now = Instant::now();
        let hearing = &mut self.lock()[number];
        hearing.longest = hearing.longest.max(now - hearing.last);
        hearing.last = now;
        self.changed.notify_all();
    }

    fn end(&self, number: usize) {
        self.lock()[number].ended = true;
        self.changed.notify_all();
    }
}

impl Flock {
    /// So many of each manner in a host, from its addresses in turn; all have been answered once.
    ///
    /// # Errors
    /// Where one cannot connect, or is not answered.
    pub fn start(host: &Host, target: SocketAddr, sources: &[IpAddr], each: usize) -> Result<Self> {
        let mut threads = tokio::runtime::Builder::new_multi_thread();
        let runtime = threads.worker_threads(1).enable_all().build();
        let runtime = runtime.context("no threads for many connections")?;
        let (sources, heard) = (sources.to_vec(), Arc::new(Heard::default()));
        let mut flock = Self { runtime, target, sources, members: Vec::new(), heard };
        let manners = Manner::ALL.into_iter().cycle().take(each * Manner::ALL.len());
        let streams = flock.open(host, &(0..each * Manner::ALL.len()).collect::<Vec<_>>())?;
        flock.heard.lock().resize(streams.len(), Hearing::begin());
        for (number, (stream, manner)) in streams.into_iter().zip(manners).enumerate() {
            let task = flock.spawn(number, stream, manner)?;
            flock.members.push(Member { manner, task });
        }
        Ok(flock)
    }

    /// Opens a new connection for each that has ended or not been heard since then: all go on again.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn replace_lost(&mut self, host: &Host, since: Instant) -> Result<()> {
        let lost: Vec<usize> = {
            let heard = self.heard.lock();
            (0..heard.len()).filter(|&number| !heard[number].goes_on(since)).collect()
        };
        for &number in &lost {
            self.members[number].task.abort();
        }
        for (stream, &number) in self.open(host, &lost)?.into_iter().zip(&lost) {
            self.heard.lock()[number] = Hearing::begin();
            let manner = self.members[number].manner;
            self.members[number].task = self.spawn(number, stream, manner)?;
        }
        Ok(())
    }

    /// From now on the longest silence of each is measured anew.
    pub fn measure_anew(&self) {
        for hearing in self.heard.lock().iter_mut() {
            hearing.longest = Duration::ZERO;
        }
    }

    /// Waits until all have been heard after this moment, or for so long. Returns what became of those of each
    /// manner.
    pub fn survival(&self, since: Instant, limit: Duration) -> [(Manner, Survival); 2] {
        let waits = |all: &mut Vec<Hearing>| {
            all.iter().any(|hearing| !hearing.ended && !hearing.goes_on(since))
        };
        let waited = self.heard.changed.wait_timeout_while(self.heard.lock(), limit, waits);
        let (heard, _) = waited.unwrap_or_else(PoisonError::into_inner);
        Manner::ALL.map(|manner| {
            let of = heard.iter().zip(&self.members).filter(|(_, member)| member.manner == manner);
            let of: Vec<Hearing> = of.map(|(hearing, _)| *hearing).collect();
            let going = of.iter().filter(|hearing| hearing.goes_on(since));
            let survival = Survival {
                all: of.len(),
                survived: going.clone().count(),
                ended: of.iter().filter(|hearing| hearing.ended).count(),
                longest: going.map(|hearing| hearing.longest).max().unwrap_or_default(),
            };
            (manner, survival)
        })
    }

    fn open(&self, host: &Host, numbers: &[usize]) -> Result<Vec<std::net::TcpStream>> {
        let source = |number: usize| self.sources.get(number % self.sources.len().max(1)).copied();
        let open = |number: &usize| Ok(watcher::open(self.target, source(*number))?.1);
        host.namespace().within(|| numbers.iter().map(open).collect())
    }

    fn spawn(
        &self,
        number: usize,
        stream: std::net::TcpStream,
        manner: Manner,
    ) -> Result<JoinHandle<()>> {
        stream.set_nonblocking(true).context("O_NONBLOCK")?;
        let heard = Arc::clone(&self.heard);
        let _inside = self.runtime.enter();
        let stream = TcpStream::from_std(stream).context("a stream of tokio's")?;
        Ok(self.runtime.spawn(async move {
            // However it ends.
            let _ = match manner {
                Manner::Talks => talk(stream, number, &heard).await,
                Manner::Listens => listen(stream, number, &heard).await,
            };
            heard.end(number);
        }))
    }
}

async fn talk(mut stream: TcpStream, number: usize, heard: &Heard) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut answer = [0; WORD.len()];
    loop {
        stream.write_all(WORD).await?;
        stream.read_exact(&mut answer).await?;
        heard.note(number);
        tokio::time::sleep(PUSH_EVERY).await;
    }
}

async fn listen(mut stream: TcpStream, number: usize, heard: &Heard) -> Result<()> {
    stream.write_all(&[SUBSCRIBE]).await?;
    let mut buffer = [0; 64];
    while stream.read(&mut buffer).await? > 0 {
        heard.note(number);
    }
    Ok(())
}
