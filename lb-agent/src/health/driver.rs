//! Makes the checks: one tokio task for each target.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use super::http::Settings;
use super::judge::{Judge, Outcome, Verdict};
use super::look::{self, Looks};
use super::script::Scripts;
use super::{Event, Silence, State, Target, pace, probe};
use crate::config::Check;

/// Bounds of a checker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Checks in flight. Each holds a file descriptor, and a process that nobody has granted more
    /// has 1024. With more targets than these that do not answer, checks come later than their
    /// interval says.
    pub(super) in_flight: usize,
    /// Scripts that run, of those: each is a process, and holds four descriptors.
    pub(super) scripts: usize,
    /// Events that wait to be read. A target whose event finds no room is not checked meanwhile.
    pub(super) events: usize,
}

const LIMITS: Limits = Limits { in_flight: 256, scripts: 32, events: 256 };

/// How often at most the log tells of checks that could not be made.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// Checks targets until it is dropped.
#[derive(Debug)]
pub struct Checker {
    runtime: Handle,
    shared: Arc<Shared>,
    tasks: Mutex<HashMap<Target, Task>>,
    /// What another process of this node knew, for the first targets.
    recalled: Mutex<HashMap<SocketAddr, Verdict>>,
}

/// What the tasks share.
#[derive(Debug)]
pub(super) struct Shared {
    permits: Semaphore,
    events: mpsc::Sender<Event>,
    checks: AtomicU64,
    settings: Settings,
    scripts: Scripts,
    complained: Mutex<Option<Instant>>,
}

/// A target's task, which ends with it.
#[derive(Debug)]
struct Task {
    handle: AbortHandle,
    verdict: Arc<Mutex<Option<Verdict>>>,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

impl Checker {
    /// Starts on the current tokio runtime, in the process's network namespace, without targets.
    ///
    /// The receiver gets every change of a target's state. Where it is not read for so long that
    /// its channel is full, checks wait; where it is dropped, a target's checks end with its next
    /// change. The channel ends when the checker is dropped.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start() -> (Self, mpsc::Receiver<Event>) {
        Self::with_limits(LIMITS)
    }

    pub(super) fn with_limits(limits: Limits) -> (Self, mpsc::Receiver<Event>) {
        let (events, receiver) = mpsc::channel(limits.events);
        let shared = Shared {
            permits: Semaphore::new(limits.in_flight),
            events,
            checks: AtomicU64::new(0),
            settings: Settings::default(),
            scripts: Scripts::new(limits.scripts),
            complained: Mutex::new(None),
        };
        let tasks = Mutex::new(HashMap::new());
        let recalled = Mutex::new(HashMap::new());
        (Self { runtime: Handle::current(), shared: Arc::new(shared), tasks, recalled }, receiver)
    }

    /// Has the first targets begin with what another process of this node knew of their addresses.
    pub fn recall(&self, known: impl IntoIterator<Item = (SocketAddr, State, String)>) {
        let known = known.into_iter();
        let verdicts = known.map(|(address, state, reason)| {
            (address, Verdict { state, reason, silence: Silence::None })
        });
        lock(&self.recalled).extend(verdicts);
    }

    /// Replaces the targets: those that stay keep their state, duplicates are checked once.
    ///
    /// A target with a new schedule for an address that was checked already takes over what is
    /// known of the address, and reports it as an event, so that a reload does not send clients to
    /// a backend that is down. Events of a target that is gone may still wait to be read.
    pub fn set_targets(&self, targets: impl IntoIterator<Item = Target>) {
        let wanted: HashSet<Target> = targets.into_iter().collect();
        let mut tasks = lock(&self.tasks);
        let mut known = known(&tasks);
        for (address, verdict) in lock(&self.recalled).drain() {
            known.entry(address).or_insert(verdict);
        }
        self.shared.settings.keep_only(wanted.iter().map(|target| &*target.check));
        self.shared.scripts.keep_only(wanted.iter());
        tasks.retain(|target, _| wanted.contains(target));
        let new: Vec<_> = wanted.into_iter().filter(|t| !tasks.contains_key(t)).collect();
        let beginners = new.len();
        for target in new {
            let verdict = known.get(&target.address).cloned();
            let task = self.begin(target.clone(), verdict, beginners);
            tasks.insert(target, task);
        }
    }

    /// Checks made since the start, whatever they found.
    pub fn checks_total(&self) -> u64 {
        self.shared.checks.load(Ordering::Relaxed)
    }

    /// Checks an address once, for at most `timeout`, and tells what was found together with `subject`. The checks in
    /// flight are bounded as those of the targets are.
    pub fn look<S: Clone + Send + 'static>(
        &self,
        address: SocketAddr,
        check: Arc<Check>,
        timeout: Duration,
        looks: &Looks<S>,
        subject: S,
    ) {
        let shared = Arc::clone(&self.shared);
        let look = look::look(shared, (address, check, timeout), looks.clone(), subject);
        self.runtime.spawn(look);
    }

    fn begin(&self, target: Target, known: Option<Verdict>, beginners: usize) -> Task {
        let state = known.as_ref().map_or(State::Unknown, |verdict| verdict.state);
        let silence = known.as_ref().map_or(Silence::None, |verdict| verdict.silence);
        let verdict = Arc::new(Mutex::new(known));
        let watch = Watch {
            judge: Judge::new(&target.schedule, state, silence),
            target,
            beginners,
            verdict: verdict.clone(),
            shared: self.shared.clone(),
        };
        Task { handle: self.runtime.spawn(watch.run()).abort_handle(), verdict }
    }
}

/// What is known of each address. Where schedules disagree it counts as healthy, until the new one
/// has found out for itself.
fn known(tasks: &HashMap<Target, Task>) -> HashMap<SocketAddr, Verdict> {
    let mut known: HashMap<SocketAddr, Verdict> = HashMap::new();
    for (target, task) in tasks {
        let Some(verdict) = lock(&task.verdict).clone() else { continue };
        let entry = known.entry(target.address).or_insert_with(|| verdict.clone());
        if verdict.state == State::Healthy {
            *entry = verdict;
        }
    }
    known
}

/// What these locks guard is whole between any two statements, so a panic elsewhere does not spoil
/// it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The checks of one target.
struct Watch {
    target: Target,
    /// So many began together, with this one.
    beginners: usize,
    judge: Judge,
    verdict: Arc<Mutex<Option<Verdict>>>,
    shared: Arc<Shared>,
}

impl Watch {
    /// Ends when it has something to report and nobody reads events any more.
    async fn run(mut self) {
        let mut next = Instant::now() + pace::first_delay(&self.target, self.beginners);
        if lock(&self.verdict).is_some() && !self.report(None).await {
            return;
        }
        let mut unchecked = None;
        for round in 0.. {
            sleep_until(next).await;
            let (start, outcome) = self.check().await;
            next = start + pace::pause(&self.target, round, self.beginners);
            let why_not = match &outcome {
                Outcome::NotChecked(why) => Some(why.clone()),
                _ => None,
            };
            let verdict = self.judge.hear(outcome);
            if verdict.is_none() && why_not == unchecked {
                continue;
            }
            if verdict.is_some() {
                *lock(&self.verdict) = verdict;
            }
            unchecked.clone_from(&why_not);
            if !self.report(why_not).await {
                return;
            }
        }
    }

    /// One check, when its turn comes. The turn ends with the check: a full channel holds up the
    /// targets that have something to say, not the others.
    async fn check(&self) -> (Instant, Outcome) {
        let Target { address, check, schedule } = &self.target;
        let (start, outcome) = self.shared.check(*address, check, schedule.timeout).await;
        if let Outcome::NotChecked(why) = &outcome {
            self.shared.complain(&self.target, why);
        }
        (start, outcome)
    }

    /// Tells what is known; false where nobody is told any more.
    async fn report(&self, unchecked: Option<String>) -> bool {
        let known = lock(&self.verdict).clone();
        let not_yet = || Verdict {
            state: State::Unknown,
            reason: "not checked yet".to_owned(),
            silence: Silence::None,
        };
        let Verdict { state, reason, silence } = known.unwrap_or_else(not_yet);
        let event = Event { target: self.target.clone(), state, reason, unchecked, silence };
        self.shared.events.send(event).await.is_ok()
    }
}

impl Shared {
    /// Makes a check when its turn comes, for at most `limit`. When it began, and what came of it.
    pub(super) async fn check(
        &self,
        address: SocketAddr,
        check: &Check,
        limit: Duration,
    ) -> (Instant, Outcome) {
        let _script = self.scripts.permit(check).await;
        let _permit = self.permits.acquire().await;
        let start = Instant::now();
        let outcome = match check {
            Check::Script(script) => self.scripts.run(address, script, limit).await,
            Check::Tcp | Check::Http(_) => {
                probe::probe(address, check, &self.settings, limit).await
            }
        };
        self.checks.fetch_add(1, Ordering::Relaxed);
        (start, outcome)
    }

    fn complain(&self, target: &Target, why: &str) {
        let mut complained = lock(&self.complained);
        if complained.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY) {
            *complained = Some(Instant::now());
            tracing::warn!(address = %target.address, "backends keep their state unchecked: {why}");
        }
    }
}
