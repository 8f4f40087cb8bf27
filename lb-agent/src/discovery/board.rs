//! What those who ask have heard last, until the agent's loop takes it: of each service one answer, the latest, so that
//! nothing queues however fast a source changes its mind.

use std::collections::BTreeMap;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::Notify;

use super::Answer;

/// How asking goes, for one service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Condition {
    /// When something was heard last that can be relied on.
    pub heard: Option<SystemTime>,
    /// Since when nothing was, and why; None while all is well.
    pub failing: Option<(SystemTime, String)>,
    pub answers: u64,
    pub failures: u64,
}

#[derive(Debug, Default)]
struct Line {
    condition: Condition,
    /// Not taken yet.
    answer: Option<Answer>,
}

#[derive(Debug, Default)]
pub struct Board {
    lines: Mutex<BTreeMap<String, Line>>,
    news: Notify,
}

impl Board {
    fn lines(&self) -> MutexGuard<'_, BTreeMap<String, Line>> {
        // Each change is whole: a panic elsewhere spoils nothing.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what a service's backends are said to be.
    pub(super) fn answered(&self, service: &str, answer: Answer) {
        let mut lines = self.lines();
        let line = lines.entry(service.to_owned()).or_default();
        line.answer = Some(answer);
        line.condition.answers += 1;
        line.condition.heard = Some(SystemTime::now());
        line.condition.failing = None;
        drop(lines);
        self.news.notify_one();
    }

    /// Notes that what was said before still holds. Says nothing of a service that nothing was heard of.
    #[cfg(feature = "kubernetes")]
    pub(super) fn confirmed(&self, service: &str) {
        if let Some(line) = self.lines().get_mut(service)
            && line.condition.heard.is_some()
        {
            line.condition.heard = Some(SystemTime::now());
            line.condition.failing = None;
        }
    }

    pub(super) fn failed(&self, service: &str, why: String) {
        let mut lines = self.lines();
        let condition = &mut lines.entry(service.to_owned()).or_default().condition;
        condition.failures += 1;
        let since = condition.failing.take().map_or_else(SystemTime::now, |(since, _)| since);
        condition.failing = Some((since, why));
    }

    pub(super) fn forget(&self, service: &str) {
        self.lines().remove(service);
    }

    /// Has whoever waits look, though nothing was heard.
    pub fn wake(&self) {
        self.news.notify_one();
    }

    /// Returns when there is something to take.
    pub async fn changed(&self) {
        self.news.notified().await;
    }

    /// The answers that were not taken yet.
    pub fn take(&self) -> Vec<(String, Answer)> {
        let mut lines = self.lines();
        let answers = lines.iter_mut();
        answers
            .filter_map(|(name, line)| Some((name.clone(), mem::take(&mut line.answer)?)))
            .collect()
    }

    /// How asking goes for a service.
    pub fn condition(&self, service: &str) -> Condition {
        self.lines().get(service).map_or_else(Condition::default, |line| line.condition.clone())
    }
}
