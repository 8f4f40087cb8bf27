//! Runs the scripts: one tokio task for each, one run after the other.

use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use super::board::Tracked;
use super::judge::Outcome;
use super::script::Check;
use crate::config::{Script, Watched};

/// Outcomes that wait to be read. A script whose outcome finds no room is not run meanwhile.
const QUEUE: usize = 64;

/// What a run found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Where the track stands on the board.
    pub at: usize,
    pub outcome: Outcome,
}

/// Runs scripts until it is dropped; those that run then are killed.
#[derive(Debug)]
pub struct Watcher {
    tasks: Vec<AbortHandle>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Watcher {
    /// Starts on the current tokio runtime, with a run of each script. The receiver gets the outcome
    /// of every run.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn start(tracked: &[Tracked]) -> (Self, mpsc::Receiver<Event>) {
        let (events, receiver) = mpsc::channel(QUEUE);
        let scripts =
            tracked.iter().enumerate().filter_map(|(at, tracked)| match &tracked.watched {
                Some(Watched::Script(script)) => Some((at, script.clone())),
                _ => None,
            });
        let tasks = scripts
            .map(|(at, script)| tokio::spawn(watch(at, script, events.clone())).abort_handle())
            .collect();
        (Self { tasks }, receiver)
    }
}

/// Ends when nobody reads events any more.
async fn watch(at: usize, script: Script, events: mpsc::Sender<Event>) {
    let interval = script.interval;
    let mut check = Check::new(script);
    let mut next = Instant::now();
    loop {
        sleep_until(next).await;
        let start = Instant::now();
        let outcome = check.run().await;
        if events.send(Event { at, outcome }).await.is_err() {
            return;
        }
        next = start + interval;
    }
}
