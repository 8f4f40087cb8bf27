//! Clients that wait as [watchers](super::Watchers) do, and come again from the same address whenever their
//! connection ends, as a client of Kubernetes does.

use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, bail};

use super::watcher::{End, open, wait};
use crate::lab::Host;

/// From one try to connect to the next.
const AGAIN: Duration = Duration::from_millis(50);

/// One of them, as it stands.
#[derive(Clone, Debug, Default)]
pub struct Returner {
    /// Whose it is; none while it has no connection.
    pub backend: Option<String>,
    /// When its connections ended, whose they were, and how.
    pub ends: Vec<(SystemTime, String, End)>,
}

/// Owned: their connections end with them, and none comes again.
#[derive(Debug)]
pub struct Returners {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    over: bool,
    all: Vec<(Returner, Option<TcpStream>)>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Returners {
    /// One from each of these addresses of a host.
    ///
    /// # Errors
    /// Where the host's namespace cannot be entered.
    pub fn start(host: &Host, target: SocketAddr, sources: &[IpAddr]) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        shared.lock().all.resize_with(sources.len(), Default::default);
        // A thread belongs to the namespace of the one that starts it.
        host.namespace().within(|| {
            for (number, &source) in sources.iter().enumerate() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || go_on(&shared, number, target, source));
            }
            Ok(())
        })?;
        Ok(Self { shared })
    }

    /// All of them, in the order of their addresses.
    pub fn all(&self) -> Vec<Returner> {
        self.shared.lock().all.iter().map(|(returner, _)| returner.clone()).collect()
    }

    /// Waits until all have a connection, and to a backend that is meant.
    ///
    /// # Errors
    /// Where they do not in time.
    pub fn await_all(&self, limit: Duration, meant: impl Fn(&str) -> bool) -> Result<()> {
        let deadline = Instant::now() + limit;
        let is_there = |(one, _): &(Returner, _)| one.backend.as_deref().is_some_and(&meant);
        let mut state = self.shared.lock();
        while !state.all.iter().all(is_there) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let there = state.all.iter().filter(|one| is_there(one)).count();
                bail!("{there} of {} have a connection within {limit:?}", state.all.len());
            }
            let waited = self.shared.changed.wait_timeout(state, left);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }
}

impl Drop for Returners {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.over = true;
        for stream in state.all.iter().filter_map(|(_, stream)| stream.as_ref()) {
            // Its thread ends with that; where it has ended, so has this.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Until all are over.
fn go_on(shared: &Shared, number: usize, target: SocketAddr, source: IpAddr) {
    loop {
        let Ok((backend, stream)) = open(target, Some(source)) else {
            if shared.lock().over {
                return;
            }
            std::thread::sleep(AGAIN);
            continue;
        };
        let Ok(reader) = stream.try_clone() else { return };
        {
            let mut state = shared.lock();
            if state.over {
                return;
            }
            state.all[number] = {
                let (known, _) = std::mem::take(&mut state.all[number]);
                (Returner { backend: Some(backend.clone()), ..known }, Some(stream))
            };
        }
        shared.changed.notify_all();
        let end = wait(reader);
        let mut state = shared.lock();
        if state.over {
            return;
        }
        let (one, stream) = &mut state.all[number];
        (one.backend, *stream) = (None, None);
        one.ends.push((SystemTime::now(), backend, end));
    }
}
