//! What waits for one hook, in order, and what of it is on disk. Pure: [`spool`](super::spool)
//! carries out the [`Work`] that it names, and [`hook`](super::hook) delivers its first.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::Hash;

use super::notice::{Event, Notice, What};

/// Notices that wait. Beyond that old ones are folded: a thousand moves that nobody was told of are
/// best told as one. About half a megabyte.
pub(super) const WAITING_MAX: usize = 1024;
/// Files that could not be removed are remembered up to here; a further one may be told again.
const OBSOLETE_MAX: usize = 4 * WAITING_MAX;

#[derive(Debug)]
pub(super) struct Queue {
    node: String,
    run: String,
    next: u64,
    waiting: VecDeque<Entry>,
    /// Their files are to go.
    obsolete: BTreeSet<u64>,
    /// The last one that the hook has.
    delivered: u64,
    /// The same, as it stands on disk.
    noted: u64,
    folded: u64,
}

#[derive(Debug)]
struct Entry {
    notice: Notice,
    /// It is on disk as it is here.
    saved: bool,
    /// It may be on disk, in this form or an earlier one.
    tried: bool,
}

/// What is to be done on disk.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Work {
    pub(super) write: Vec<Notice>,
    /// The last one that was delivered, if that is news.
    pub(super) delivered: Option<u64>,
    /// Last of all.
    pub(super) remove: Vec<u64>,
}

/// What an earlier run left on disk.
#[derive(Debug, Default)]
pub(super) struct Leftovers {
    pub(super) delivered: u64,
    pub(super) notices: Vec<Notice>,
}

impl Queue {
    /// `run` is one that no other run had.
    pub(super) fn new(node: &str, run: &str, mut left: Leftovers) -> Self {
        left.notices.sort_by_key(|notice| notice.sequence);
        let last = left.notices.last().map_or(0, |notice| notice.sequence);
        let done = |notice: &Notice| notice.sequence <= left.delivered;
        let (obsolete, waiting): (Vec<_>, Vec<_>) = left.notices.into_iter().partition(done);
        let entry = |notice| Entry { notice, saved: true, tried: true };
        Self {
            node: node.to_owned(),
            run: run.to_owned(),
            next: last.max(left.delivered) + 1,
            waiting: waiting.into_iter().map(entry).collect(),
            obsolete: obsolete.iter().map(|notice| notice.sequence).collect(),
            delivered: left.delivered,
            noted: left.delivered,
            folded: 0,
        }
    }

    pub(super) fn push(&mut self, event: Event) {
        let notice = Notice::new(event, &self.node, &self.run, self.next);
        self.next += 1;
        self.waiting.push_back(Entry { notice, saved: false, tried: false });
        while self.waiting.len() > WAITING_MAX && self.fold() {}
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// How many were folded into later ones in this run.
    pub(super) const fn folded(&self) -> u64 {
        self.folded
    }

    /// The one to be delivered next.
    pub(super) fn first(&self) -> Option<&Notice> {
        self.waiting.front().map(|entry| &entry.notice)
    }

    /// The hook has the first one.
    pub(super) fn first_delivered(&mut self) {
        if let Some(entry) = self.waiting.pop_front() {
            self.delivered = entry.notice.sequence;
            self.forget(&entry);
        }
    }

    /// Folds the oldest one that has a later one to tell of it. Troubles before roles, and never the
    /// first, which may be on its way.
    fn fold(&mut self) -> bool {
        let Some((old, new)) = self.pair() else { return false };
        let Some(entry) = self.waiting.remove(old) else { return false };
        self.forget(&entry);
        // One was removed before it.
        let into = &mut self.waiting[new - 1];
        let folded = into.notice.folded.saturating_add(entry.notice.folded);
        into.notice.folded = folded.saturating_add(1);
        if let (What::Role { from: first, .. }, What::Role { from, .. }) =
            (&entry.notice.what, &mut into.notice.what)
        {
            *from = *first;
        }
        into.saved = false;
        self.folded += 1;
        true
    }

    /// The places of two that are folded, the older one first: alike troubles, else any troubles, else
    /// changes of one router's role. One pass over the queue for each.
    fn pair(&self) -> Option<(usize, usize)> {
        self.first_alike(|notice| match &notice.what {
            What::Trouble { trouble, .. } => Some((notice.router.key(), trouble)),
            What::Role { .. } => None,
        })
        .or_else(|| self.first_alike(|notice| (!notice.what.is_role()).then_some(())))
        .or_else(|| self.first_alike(|notice| notice.what.is_role().then(|| notice.router.key())))
    }

    fn first_alike<'q, K: Eq + Hash>(
        &'q self,
        key: impl Fn(&'q Notice) -> Option<K>,
    ) -> Option<(usize, usize)> {
        let mut seen = HashMap::new();
        let places = self.waiting.iter().enumerate().skip(1);
        let mut places = places.filter_map(|(at, entry)| Some((at, key(&entry.notice)?)));
        places.find_map(|(at, key)| seen.insert(key, at).map(|old| (old, at)))
    }

    fn forget(&mut self, entry: &Entry) {
        if entry.tried {
            self.obsolete.insert(entry.notice.sequence);
        }
        while self.obsolete.len() > OBSOLETE_MAX {
            self.obsolete.pop_first();
        }
    }

    /// Whether disk and queue differ.
    pub(super) fn is_unsaved(&self) -> bool {
        self.delivered > self.noted
            || !self.obsolete.is_empty()
            || self.waiting.iter().any(|entry| !entry.saved)
    }

    /// What disk and queue differ in. Whether it was done is told by [`done`](Self::done).
    pub(super) fn work(&mut self) -> Work {
        let mut write = Vec::new();
        for entry in self.waiting.iter_mut().filter(|entry| !entry.saved) {
            entry.tried = true;
            write.push(entry.notice.clone());
        }
        let delivered = (self.delivered > self.noted).then_some(self.delivered);
        Work { write, delivered, remove: self.obsolete.iter().copied().collect() }
    }

    pub(super) fn done(&mut self, work: &Work) {
        for written in &work.write {
            // Not where it was folded meanwhile.
            let entry = self.waiting.iter_mut().find(|entry| entry.notice == *written);
            if let Some(entry) = entry {
                entry.saved = true;
            }
        }
        self.noted = work.delivered.unwrap_or(self.noted);
        for sequence in &work.remove {
            self.obsolete.remove(sequence);
        }
    }
}
