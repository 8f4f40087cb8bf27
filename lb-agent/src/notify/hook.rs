//! One hook: its queue, and the task that delivers and keeps what is in it.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify as Bell, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::deliver::Way;
use super::notice::Event;
use super::pace;
use super::queue::{Leftovers, Queue, Work};
use super::spool::{Spool, SpoolError};
use crate::config::{Notify, NotifyEvent};

/// A disk that failed is tried again this often.
const SPOOL_RETRY: Duration = Duration::from_secs(5);

/// A hook, as the rest of the agent sees it.
#[derive(Debug)]
pub(super) struct Hook {
    name: String,
    kind: &'static str,
    events: Vec<NotifyEvent>,
    shared: Arc<Shared>,
    closing: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// Whoever forgets to close it leaves nothing running, and what waits on disk.
impl Drop for Hook {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What is told of a hook.
#[derive(Clone, PartialEq, Debug)]
pub struct HookStatus {
    pub name: String,
    /// `script` or `webhook`.
    pub kind: &'static str,
    /// Since the agent's start, as the next two.
    pub delivered: u64,
    pub failed_attempts: u64,
    pub folded: u64,
    pub waiting: usize,
    pub failing: Option<Failing>,
    /// Why notices do not outlive the agent.
    pub spool_trouble: Option<String>,
}

/// The first notice has not been taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failing {
    pub since: SystemTime,
    /// What went wrong last.
    pub why: String,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Rings where a notice was offered.
    bell: Bell,
}

#[derive(Debug)]
struct State {
    queue: Queue,
    delivered: u64,
    failed_attempts: u64,
    failing: Option<Failing>,
    spool_trouble: Option<String>,
}

impl Shared {
    /// Held for a moment only, never across a wait.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hook {
    /// `run` is the run of the agent that this is.
    pub(super) async fn start(
        notify: &Notify,
        way: Way,
        (node, run): (&str, &str),
        directory: PathBuf,
    ) -> Self {
        let name = notify.name.clone();
        let spool = Arc::new(Spool::new(directory));
        let reader = Arc::clone(&spool);
        let (left, spool_trouble) = match blocking(move || reader.read()).await {
            Ok(left) => (left, None),
            Err(trouble) => {
                tracing::warn!(hook = name, %trouble, "notices do not outlive the agent");
                (Leftovers::default(), Some(trouble))
            }
        };
        if let Err(trouble) = way.foresee() {
            tracing::warn!(hook = name, %trouble, "a notify hook cannot be told anything");
        }
        let queue = Queue::new(node, run, left);
        if queue.len() > 0 {
            tracing::info!(hook = name, waiting = queue.len(), "notices of an earlier run wait");
        }
        let state = State { queue, delivered: 0, failed_attempts: 0, failing: None, spool_trouble };
        let shared = Arc::new(Shared { state: Mutex::new(state), bell: Bell::new() });
        let (closing, closed) = watch::channel(false);
        let kind = way.name();
        let task = Task {
            name: name.clone(),
            way: Arc::new(tokio::sync::Mutex::new(way)),
            spool,
            shared: Arc::clone(&shared),
            closed,
            attempt: None,
            failures: 0,
            retry_at: Instant::now(),
            writing: None,
            write_at: Instant::now(),
        };
        let task = tokio::spawn(task.run());
        Self { name, kind, events: notify.events.clone(), shared, closing, task }
    }

    pub(super) fn offer(&self, event: &Event) {
        let kind = if event.what.is_role() { NotifyEvent::Role } else { NotifyEvent::Trouble };
        if self.events.contains(&kind) {
            self.shared.state().queue.push(event.clone());
            self.shared.bell.notify_one();
        }
    }

    pub(super) fn status(&self) -> HookStatus {
        let state = self.shared.state();
        HookStatus {
            name: self.name.clone(),
            kind: self.kind,
            delivered: state.delivered,
            failed_attempts: state.failed_attempts,
            folded: state.queue.folded(),
            waiting: state.queue.len(),
            failing: state.failing.clone(),
            spool_trouble: state.spool_trouble.clone(),
        }
    }

    pub(super) async fn close(&self, limit: Duration) {
        self.closing.send_replace(true);
        // The task holds the other end until it has ended.
        if timeout(limit, self.closing.closed()).await.is_err() {
            // What it is at goes on waiting on disk.
            self.task.abort();
            self.closing.closed().await;
        }
        let waiting = self.shared.state().queue.len();
        if waiting > 0 {
            tracing::info!(hook = self.name, waiting, "notices wait for the next start");
        }
    }
}

/// Work on disk in progress: what it is, and how it ends.
type Writing = (Work, JoinHandle<Result<(), SpoolError>>);

struct Task {
    name: String,
    /// Locked by one attempt at a time.
    way: Arc<tokio::sync::Mutex<Way>>,
    spool: Arc<Spool>,
    shared: Arc<Shared>,
    closed: watch::Receiver<bool>,
    attempt: Option<JoinHandle<Result<(), String>>>,
    /// In a row.
    failures: u32,
    retry_at: Instant,
    writing: Option<Writing>,
    write_at: Instant,
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(attempt) = &self.attempt {
            attempt.abort();
        }
    }
}

impl Task {
    /// Until the agent ends and everything is on disk.
    async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        loop {
            self.begin_writing();
            self.begin_attempt();
            if self.has_ended() {
                return;
            }
            let (waits, unsaved) = self.waits();
            let closing = *self.closed.borrow();
            tokio::select! {
                () = shared.bell.notified() => {}
                result = ended(self.attempt.as_mut()) => self.conclude(result),
                result = ended(self.writing.as_mut().map(|(_, writing)| writing)) => {
                    self.written(result);
                }
                () = sleep_until(self.retry_at), if waits => {}
                () = sleep_until(self.write_at), if unsaved => {}
                // A sender that is gone without a word means the same.
                _ = self.closed.changed(), if !closing => self.write_at = Instant::now(),
            }
        }
    }

    /// Whether it waits to try again: to deliver, and to write.
    fn waits(&self) -> (bool, bool) {
        let state = self.shared.state();
        let given_up = self.failures > 0 && *self.closed.borrow();
        let waits = self.attempt.is_none() && state.queue.len() > 0 && !given_up;
        (waits, self.writing.is_none() && state.queue.is_unsaved())
    }

    /// On closing, a hook that fails is not waited for: what it was to be told is on disk.
    fn has_ended(&self) -> bool {
        if !*self.closed.borrow() || self.attempt.is_some() || self.writing.is_some() {
            return false;
        }
        let state = self.shared.state();
        let saved = !state.queue.is_unsaved() || state.spool_trouble.is_some();
        saved && (state.queue.len() == 0 || state.failing.is_some())
    }

    fn begin_attempt(&mut self) {
        let waits_to_try_again = self.failures > 0 && *self.closed.borrow();
        if self.attempt.is_some() || waits_to_try_again || Instant::now() < self.retry_at {
            return;
        }
        let Some(notice) = self.shared.state().queue.first().cloned() else { return };
        let way = Arc::clone(&self.way);
        self.attempt = Some(tokio::spawn(async move { way.lock().await.deliver(&notice).await }));
    }

    fn conclude(&mut self, result: Result<(), String>) {
        self.attempt = None;
        let hook = &self.name;
        let mut state = self.shared.state();
        match result {
            Ok(()) => {
                self.failures = 0;
                state.queue.first_delivered();
                state.delivered += 1;
                if state.failing.take().is_some() {
                    tracing::info!(
                        hook,
                        waiting = state.queue.len(),
                        "a notify hook is told again"
                    );
                }
            }
            Err(why) => {
                self.failures = self.failures.saturating_add(1);
                self.retry_at = Instant::now() + pace::pause(self.failures, chance());
                state.failed_attempts += 1;
                let news = state.failing.as_ref().is_none_or(|failing| failing.why != why);
                if news {
                    tracing::warn!(hook, why, "a notify hook did not take a notice");
                }
                let since = state.failing.as_ref().map(|failing| failing.since);
                let since = since.unwrap_or_else(SystemTime::now);
                state.failing = Some(Failing { since, why });
            }
        }
    }

    fn begin_writing(&mut self) {
        if self.writing.is_some() || Instant::now() < self.write_at {
            return;
        }
        let work = {
            let mut state = self.shared.state();
            if !state.queue.is_unsaved() {
                return;
            }
            state.queue.work()
        };
        let (spool, copy) = (Arc::clone(&self.spool), work.clone());
        let writing = tokio::task::spawn_blocking(move || spool.carry_out(&copy));
        self.writing = Some((work, writing));
    }

    fn written(&mut self, result: Result<(), String>) {
        let Some((work, _)) = self.writing.take() else { return };
        let hook = &self.name;
        let mut state = self.shared.state();
        match result {
            Ok(()) => {
                state.queue.done(&work);
                if state.spool_trouble.take().is_some() {
                    tracing::info!(hook, "notices outlive the agent again");
                }
            }
            Err(trouble) => {
                self.write_at = Instant::now() + SPOOL_RETRY;
                if state.spool_trouble.as_ref() != Some(&trouble) {
                    tracing::warn!(hook, trouble, "notices do not outlive the agent");
                }
                state.spool_trouble = Some(trouble);
            }
        }
    }
}

/// How a task ends that may not be there; then never.
async fn ended<E: ToString>(task: Option<&mut JoinHandle<Result<(), E>>>) -> Result<(), String> {
    match task {
        None => std::future::pending().await,
        Some(task) => match task.await {
            Ok(result) => result.map_err(|error| error.to_string()),
            // A panic, which has been printed.
            Err(error) => Err(error.to_string()),
        },
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SpoolError> + Send + 'static,
) -> Result<T, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

fn chance() -> f64 {
    (random() >> 11) as f64 / (1u64 << 53) as f64
}

/// By the keys of the standard library's hash tables, which come from the system's randomness.
pub(super) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
