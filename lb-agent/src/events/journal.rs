//! The ring of events: it keeps the last ones, and whoever reads on is told where it has lost some.

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::control::api::{Event, EventGap, EventLine, EventsBegin};

/// How many events are kept. With [`EVENT_BYTES_MAX`] each they take 2 MiB at the worst, and some 300 KiB as a rule.
const KEPT: usize = 2048;

/// Of the text of one event. A sentence of the agent's has some hundred.
pub(super) const EVENT_BYTES_MAX: usize = 1024;

/// As many numbers are left out where another agent follows: what the one before says meanwhile has some of
/// them, and is in its log alone.
const LEFT_OUT: u64 = 10_000;

/// The events of this process, and of those that it follows.
pub fn journal() -> Arc<Journal> {
    // As the log, there is one of it in a process.
    static JOURNAL: LazyLock<Arc<Journal>> = LazyLock::new(|| Arc::new(Journal::new(a_run())));
    Arc::clone(&JOURNAL)
}

fn a_run() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    format!("{:x}-{:x}", std::process::id(), since.unwrap_or_default().as_nanos())
}

/// The last events, numbered from 1 up without holes, but where one agent followed another.
#[derive(Debug)]
pub struct Journal {
    ring: Mutex<Ring>,
    state: watch::Sender<State>,
}

#[derive(Debug)]
struct Ring {
    run: String,
    events: VecDeque<Event>,
    newest: u64,
}

/// What wakes readers.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    newest: u64,
    /// Nobody is to wait for more.
    ended: bool,
}

/// Where a reader begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Begin {
    /// Behind the event of this number; with the oldest where absent.
    pub since: Option<u64>,
    /// Whose number that is; of the present run where absent.
    pub run: Option<String>,
}

impl Journal {
    pub fn new(run: String) -> Self {
        let ring = Ring { run, events: VecDeque::new(), newest: 0 };
        Self { ring: Mutex::new(ring), state: watch::Sender::new(State::default()) }
    }

    /// Nothing can panic that holds it; and if it did, the events would still be whole.
    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an event, whose number is given here; the oldest one goes where there are too many.
    pub(super) fn keep(&self, event: Event) {
        let mut ring = self.ring();
        ring.newest += 1;
        let sequence = ring.newest;
        ring.push(Event { sequence, ..event });
        drop(ring);
        self.state.send_modify(|state| state.newest = sequence);
    }

    /// The run and all that is kept, for an agent that is to follow.
    pub fn handed_over(&self) -> (String, Vec<Event>) {
        let ring = self.ring();
        (ring.run.clone(), ring.events.iter().cloned().collect())
    }

    /// Goes on with the events of an agent before this one, which have their numbers still.
    pub fn inherit(&self, run: String, before: Vec<Event>) {
        let mut ring = self.ring();
        let last = before.last().map_or(0, |event| event.sequence);
        let own = std::mem::replace(&mut ring.events, VecDeque::with_capacity(before.len()));
        let first = last.saturating_add(LEFT_OUT);
        before.into_iter().for_each(|event| ring.push(event));
        let own = own.into_iter().zip(first..);
        own.for_each(|(event, sequence)| ring.push(Event { sequence, ..event }));
        ring.newest = ring.events.back().map_or(first, |event| event.sequence).max(first);
        ring.run = run;
        let newest = ring.newest;
        drop(ring);
        self.state.send_modify(|state| state.newest = newest);
    }

    /// Whoever follows is told no more, and can ask the agent that comes.
    pub fn end(&self) {
        self.state.send_modify(|state| state.ended = true);
    }

    /// Begins to read: the line to begin with, and what the others come from.
    pub fn read(self: &Arc<Self>, begin: &Begin) -> (Vec<EventLine>, Reader) {
        let ring = self.ring();
        let oldest = ring.events.front().map_or(ring.newest + 1, |event| event.sequence);
        let (run, newest) = (ring.run.clone(), ring.newest);
        drop(ring);
        let mut lines = vec![EventLine::Begin(EventsBegin { run: run.clone(), oldest, newest })];
        let is_anothers = begin.run.as_ref().is_some_and(|theirs| *theirs != run);
        let after = match begin.since {
            Some(since) if !is_anothers && since <= newest => since,
            Some(_) => {
                let reason = "these are the events of another run of the agent, from its beginning \
                              as far as they are kept; what was last before is in its log";
                let gap = EventGap { missed: None, reason: reason.to_owned() };
                lines.push(EventLine::Gap(gap));
                oldest - 1
            }
            None => oldest - 1,
        };
        (lines, Reader { journal: Arc::clone(self), state: self.state.subscribe(), after })
    }
}

impl Ring {
    fn push(&mut self, event: Event) {
        if self.events.len() >= KEPT {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }
}

/// Reads on from where it was.
#[derive(Debug)]
pub struct Reader {
    journal: Arc<Journal>,
    state: watch::Receiver<State>,
    after: u64,
}

/// Events that are copied at a time while nobody else can add any.
const AT_A_TIME: usize = 64;

impl Reader {
    /// The next lines, as far as there are any; a hole in the numbers is a line, too.
    pub fn read_on(&mut self) -> Vec<EventLine> {
        let ring = self.journal.ring();
        let at = ring.events.partition_point(|event| event.sequence <= self.after);
        let oldest = at == 0;
        let events: Vec<Event> = ring.events.range(at..).take(AT_A_TIME).cloned().collect();
        drop(ring);
        let mut lines = Vec::with_capacity(events.len());
        for (place, event) in events.into_iter().enumerate() {
            let missed = event.sequence - self.after - 1;
            if missed > 0 {
                lines.push(EventLine::Gap(gap(missed, oldest && place == 0)));
            }
            self.after = event.sequence;
            lines.push(EventLine::Event(event));
        }
        lines
    }

    /// Waits until there is more; false where there will be nothing.
    pub async fn more(&mut self) -> bool {
        let after = self.after;
        let woken = self.state.wait_for(|state| state.ended || state.newest > after).await;
        woken.is_ok_and(|state| !state.ended)
    }
}

fn gap(missed: u64, overwritten: bool) -> EventGap {
    let reason = match overwritten {
        true => format!("{missed} events were not read in time: {KEPT} are kept; the log has them"),
        false => {
            "another agent has followed here: what the one before said meanwhile is in its log \
                  alone"
                .to_owned()
        }
    };
    EventGap { missed: overwritten.then_some(missed), reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::api::Severity;

    fn event(sentence: &str) -> Event {
        Event {
            sequence: 0,
            at: 1.5,
            severity: Severity::Information,
            kind: None,
            sentence: sentence.to_owned(),
            fields: serde_json::Map::new(),
        }
    }

    fn journal_of(count: usize) -> Arc<Journal> {
        let journal = Arc::new(Journal::new("a".to_owned()));
        (0..count).for_each(|number| journal.keep(event(&number.to_string())));
        journal
    }

    /// The numbers that a reader gets, and -1 for each gap.
    fn numbers(reader: &mut Reader) -> Vec<i64> {
        let mut numbers = Vec::new();
        loop {
            let lines = reader.read_on();
            if lines.is_empty() {
                return numbers;
            }
            numbers.extend(lines.iter().map(|line| match line {
                EventLine::Event(event) => event.sequence as i64,
                EventLine::Gap(_) => -1,
                EventLine::Begin(_) => panic!("a beginning in the middle"),
            }));
        }
    }

    #[test]
    fn whoever_asks_for_nothing_in_particular_gets_what_is_kept_without_a_gap() {
        let journal = journal_of(KEPT + 5);
        let (begin, mut reader) = journal.read(&Begin::default());
        let EventLine::Begin(begin) = &begin[0] else { panic!("{begin:?}") };
        assert_eq!((begin.oldest, begin.newest), (6, KEPT as u64 + 5));
        let numbers = numbers(&mut reader);
        assert_eq!((numbers.len(), numbers[0]), (KEPT, 6));
    }

    #[test]
    fn whoever_was_too_slow_is_told_how_many_it_has_missed() {
        let journal = journal_of(3);
        let (_, mut reader) = journal.read(&Begin { since: Some(2), run: None });
        assert_eq!(numbers(&mut reader), [3]);
        (0..KEPT + 7).for_each(|_| journal.keep(event("")));
        let EventLine::Gap(gap) = &reader.read_on()[0] else { panic!("no gap") };
        assert_eq!(gap.missed, Some(7));
    }

    #[test]
    fn numbers_of_another_run_are_none_of_this_one() {
        let journal = journal_of(3);
        for (since, run) in [(2, Some("b".to_owned())), (9, None), (9, Some("a".to_owned()))] {
            let (begin, mut reader) = journal.read(&Begin { since: Some(since), run });
            assert!(matches!(&begin[1], EventLine::Gap(gap) if gap.missed.is_none()), "{begin:?}");
            assert_eq!(numbers(&mut reader), [1, 2, 3]);
        }
        let run = Some("a".to_owned());
        let (begin, mut reader) = journal.read(&Begin { since: Some(2), run });
        assert_eq!((begin.len(), numbers(&mut reader)), (1, vec![3]));
    }

    #[test]
    fn who_follows_an_agent_goes_on_with_its_numbers_behind_a_gap_that_is_told() {
        let before = journal_of(3);
        let own = journal_of(2);
        let (_, mut follower) = before.read(&Begin::default());
        assert_eq!(numbers(&mut follower), [1, 2, 3]);
        let (run, events) = before.handed_over();
        // Too late to be handed over.
        before.keep(event("last words"));
        assert_eq!(numbers(&mut follower), [4]);
        own.inherit(run, events);
        let begin = Begin { since: Some(4), run: Some("a".to_owned()) };
        let (_, mut follower) = own.read(&begin);
        let first = LEFT_OUT as i64 + 3;
        assert_eq!(numbers(&mut follower), [-1, first, first + 1]);
        own.keep(event("more"));
        assert_eq!(numbers(&mut follower), [first + 2]);
    }

    #[tokio::test]
    async fn a_reader_waits_for_what_is_next_and_for_the_end() {
        let journal = journal_of(1);
        let (_, mut reader) = journal.read(&Begin::default());
        assert_eq!(numbers(&mut reader), [1]);
        let waiting = tokio::spawn(async move { (reader.more().await, reader) });
        tokio::task::yield_now().await;
        journal.keep(event("more"));
        let (more, mut reader) = waiting.await.unwrap();
        assert!(more);
        assert_eq!(numbers(&mut reader), [2]);
        journal.end();
        assert!(!reader.more().await);
    }
}
