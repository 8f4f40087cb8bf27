//! The client's books.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::backend::Answer;

/// A stream that was silent for longer does not talk, a request that takes longer is stuck.
const SLOW: Duration = Duration::from_secs(1);

/// What became of the requests. Times are milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Tried, the failed ones among them.
    pub requests: u64,
    pub failed: u64,
    /// Those that have been under way for more than a second, their connections' opening included.
    pub stuck: u64,
    /// Failures by reason.
    pub failures: BTreeMap<String, u64>,
    /// Opened with success.
    pub connections: u64,
    /// Failures to open one; each is a failed request too.
    pub connect_errors: u64,
    /// Answers by backend.
    pub backends: BTreeMap<String, u64>,
    /// Answers by the client's address that the backend saw.
    pub client_addresses: BTreeMap<IpAddr, u64>,
    /// Answers by the client's own address.
    pub own_addresses: BTreeMap<IpAddr, u64>,
    /// Answers whose backend saw another address or port than the client's own.
    pub mismatched: u64,
    /// Answers by the backend's socket's own address.
    pub local_addresses: BTreeMap<SocketAddr, u64>,
    /// Answers by what the client's socket believes to talk to (`getpeername`).
    pub peers: BTreeMap<SocketAddr, u64>,
    /// Connections that broke after they had answered, by backend.
    pub broken: BTreeMap<String, u64>,
    /// The longest time between two answers, over all workers.
    pub longest_gap_ms: f64,
    pub streams: Streams,
    pub elapsed_ms: f64,
}

/// What became of the watches.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Streams {
    /// Those that sent a first line.
    pub opened: u64,
    /// Those that ended, stalled, skipped a number, or never opened.
    pub broken: u64,
    pub reasons: BTreeMap<String, u64>,
    pub lines: u64,
    /// Those that have said something within the last second.
    pub talking: u64,
    /// The longest time between two lines of one stream.
    pub longest_gap_ms: f64,
    /// Opened ones by backend.
    pub backends: BTreeMap<String, u64>,
    /// Broken ones by backend, as far as they had opened.
    pub broken_backends: BTreeMap<String, u64>,
}

impl Report {
    /// For people.
    pub fn summary(&self) -> String {
        format!(
            "{} requests, {} failed {:?}, {} connections, backends {:?}; {} streams, {} broken {:?}",
            self.requests,
            self.failed,
            self.failures,
            self.connections,
            self.backends,
            self.streams.opened,
            self.streams.broken,
            self.streams.reasons,
        )
    }

    /// Connections that broke.
    pub fn connections_broken(&self) -> u64 {
        self.broken.values().sum()
    }
}

/// A report that is being written.
#[derive(Debug)]
pub(super) struct Books {
    report: Report,
    begun: Instant,
    last_answer: Option<Instant>,
    /// Since when each worker has been at its request, by its number.
    under_way: BTreeMap<u64, Instant>,
    /// When each open stream last said something, by its number.
    lines: BTreeMap<u64, Instant>,
}

impl Books {
    pub(super) fn new() -> Self {
        Self {
            report: Report::default(),
            begun: Instant::now(),
            last_answer: None,
            under_way: BTreeMap::new(),
            lines: BTreeMap::new(),
        }
    }

    /// As it stands.
    pub(super) fn report(&mut self) -> Report {
        self.report.elapsed_ms = milliseconds(self.begun, Instant::now());
        let slow = |times: &BTreeMap<u64, Instant>| {
            times.values().filter(|time| time.elapsed() > SLOW).count()
        };
        self.report.stuck = slow(&self.under_way) as u64;
        self.report.streams.talking = (self.lines.len() - slow(&self.lines)) as u64;
        self.report.clone()
    }

    /// The silence at the end counts as well.
    pub(super) fn close(&mut self) -> Report {
        self.note_gap(Instant::now());
        self.report()
    }

    pub(super) const fn connected(&mut self) {
        self.report.connections += 1;
    }

    pub(super) fn begun(&mut self, worker: u64) {
        self.under_way.insert(worker, Instant::now());
    }

    pub(super) fn ended(&mut self, worker: u64) {
        self.under_way.remove(&worker);
    }

    pub(super) fn answered(&mut self, answer: &Answer, own: SocketAddr, peer: SocketAddr) {
        let now = Instant::now();
        self.note_gap(now);
        self.last_answer = Some(now);
        let report = &mut self.report;
        report.requests += 1;
        *report.backends.entry(answer.backend.clone()).or_default() += 1;
        *report.client_addresses.entry(answer.client.ip()).or_default() += 1;
        *report.own_addresses.entry(own.ip()).or_default() += 1;
        *report.local_addresses.entry(answer.local).or_default() += 1;
        *report.peers.entry(peer).or_default() += 1;
        report.mismatched += u64::from(answer.client != own);
    }

    pub(super) fn refused(&mut self, reason: String) {
        self.report.connect_errors += 1;
        self.failed(reason);
    }

    pub(super) fn failed(&mut self, reason: String) {
        self.report.requests += 1;
        self.report.failed += 1;
        *self.report.failures.entry(reason).or_default() += 1;
    }

    /// A connection that had answered before is gone.
    pub(super) fn broke(&mut self, backend: &str) {
        *self.report.broken.entry(backend.to_owned()).or_default() += 1;
    }

    pub(super) fn stream_opened(&mut self, backend: &str) {
        let streams = &mut self.report.streams;
        streams.opened += 1;
        *streams.backends.entry(backend.to_owned()).or_default() += 1;
    }

    pub(super) fn stream_line(&mut self, number: u64) {
        self.report.streams.lines += 1;
        self.lines.insert(number, Instant::now());
    }

    pub(super) fn stream_gap(&mut self, from: Instant) {
        let gap = &mut self.report.streams.longest_gap_ms;
        *gap = gap.max(milliseconds(from, Instant::now()));
    }

    pub(super) fn stream_broke(&mut self, number: u64, backend: Option<String>, reason: String) {
        self.lines.remove(&number);
        let streams = &mut self.report.streams;
        streams.broken += 1;
        *streams.reasons.entry(reason).or_default() += 1;
        if let Some(backend) = backend {
            *streams.broken_backends.entry(backend).or_default() += 1;
        }
    }

    fn note_gap(&mut self, now: Instant) {
        if let Some(last) = self.last_answer {
            let gap = &mut self.report.longest_gap_ms;
            *gap = gap.max(milliseconds(last, now));
        }
    }
}

fn milliseconds(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_names_another_client_is_a_mismatch() {
        let own = "192.0.2.1:1000".parse().unwrap();
        let peer = "192.0.2.9:80".parse().unwrap();
        let answer = |client: &str| Answer {
            backend: "a".to_owned(),
            client: client.parse().unwrap(),
            local: peer,
        };
        let mut books = Books::new();
        books.answered(&answer("192.0.2.1:1000"), own, peer);
        books.answered(&answer("192.0.2.1:1001"), own, peer);
        books.failed("a reason".to_owned());
        let report = books.close();
        assert_eq!((report.requests, report.failed, report.mismatched), (3, 1, 1));
        assert_eq!(report.backends["a"], 2);
    }
}
