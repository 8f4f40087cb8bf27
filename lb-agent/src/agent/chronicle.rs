//! For whoever observes this node: events, and verdicts on packets that are events; flows, explanations and metrics.

use std::net::SocketAddr;
use std::sync::Arc;

use lb_common::counter::Verdict;
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant};
use tracing::{info, warn};

use super::core::Agent;
use crate::control::api;
use crate::control::server::Command;
use crate::events::{Begin, Journal, Reader, journal};
use crate::health::State;

/// Verdicts that a person should know of when they fall, since connections fail by them.
const ALARMING: [(Verdict, &str); 4] = [
    (Verdict::NatExhausted, "connections are refused, since no NAT port is free: widen nat.ports"),
    (
        Verdict::NatFull,
        "connections are refused, since the map of NAT flows is full: raise nat.flows",
    ),
    (Verdict::NoBackend, "connections are refused, since no backend accepts (lbctl backends)"),
    (
        Verdict::Inconsistent,
        "packets are passed, since the maps disagree: a defect of this program",
    ),
];

/// The same is said again after this, with how often it fell meanwhile.
const AGAIN: Duration = Duration::from_secs(60);

/// What was said of such verdicts.
#[derive(Debug, Default)]
pub(super) struct Alarms([Alarm; ALARMING.len()]);

#[derive(Clone, Copy, Debug, Default)]
struct Alarm {
    /// The count that was told; none before the first look.
    told: Option<u64>,
    at: Option<Instant>,
}

impl Alarm {
    /// How many are to be told of, if it is time to.
    fn hear(&mut self, count: u64, now: Instant) -> Option<u64> {
        let told = *self.told.get_or_insert(count);
        let due = self.at.is_none_or(|at| now.duration_since(at) >= AGAIN);
        if count == told || !due {
            return None;
        }
        *self = Self { told: Some(count), at: Some(now) };
        Some(count.wrapping_sub(told))
    }
}

impl Agent {
    /// Answers those who only look.
    pub(super) fn observed(&self, command: Command) {
        match command {
            Command::Events(request, lines) => tell_events(&journal(), request, lines),
            Command::Explain(request, reply) => drop(reply.send(self.explain(&request))),
            Command::Flows(request, lines, reply) => {
                drop(reply.send(self.list_flows(request, lines)));
            }
            Command::Metrics(reply) => {
                if let Ok(text) = self.metrics() {
                    drop(reply.send(text));
                }
            }
            // All others change something, or are answered by the loop.
            _ => {}
        }
    }

    /// Looks whether such verdicts fell.
    pub(super) fn hear_alarms(&mut self) {
        // What cannot be read now is read the next time.
        let Ok(counts) = self.dataplane.verdicts() else { return };
        let now = Instant::now();
        for (alarm, (verdict, sentence)) in self.alarms.0.iter_mut().zip(ALARMING) {
            let count = counts.get(verdict as usize).copied().unwrap_or_default();
            if let Some(packets) = alarm.hear(count, now) {
                warn!(event = "packets", verdict = verdict.name(), packets, "{sentence}");
            }
        }
    }
}

/// Says that checks have found a backend in another state than before.
pub(super) fn tell_health(backend: SocketAddr, before: State, state: State, reason: &str) {
    match state {
        state if state == before => {}
        State::Down => warn!(event = "backend-down", %backend, reason, "backend is down"),
        _ => info!(event = "backend-healthy", %backend, reason, "backend is healthy"),
    }
}

/// Tells events, beside the loop, until there are no more or nobody takes them.
fn tell_events(
    journal: &Arc<Journal>,
    request: api::EventsRequest,
    lines: mpsc::Sender<api::EventLine>,
) {
    let api::EventsRequest { since, run, follow } = request;
    let (begin, reader) = journal.read(&Begin { since, run });
    tokio::spawn(tell(begin, reader, follow, lines));
}

async fn tell(
    mut next: Vec<api::EventLine>,
    mut reader: Reader,
    follow: bool,
    lines: mpsc::Sender<api::EventLine>,
) {
    loop {
        for line in next {
            if lines.send(line).await.is_err() {
                return;
            }
        }
        next = reader.read_on();
        if !next.is_empty() {
            continue;
        }
        if !follow {
            return;
        }
        tokio::select! {
            more = reader.more() => if !more { return },
            () = lines.closed() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_told_when_it_falls_and_then_once_a_minute_with_how_often() {
        let mut alarm = Alarm::default();
        let begun = Instant::now();
        let after = |seconds| begun + Duration::from_secs(seconds);
        // What fell before the agent came is nothing that happens.
        assert_eq!(alarm.hear(7, after(0)), None);
        assert_eq!(alarm.hear(9, after(1)), Some(2));
        assert_eq!(alarm.hear(12, after(2)), None);
        assert_eq!(alarm.hear(13, after(60)), None);
        assert_eq!(alarm.hear(13, after(61)), Some(4));
        assert_eq!(alarm.hear(13, after(200)), None);
        assert_eq!(alarm.hear(14, after(201)), Some(1));
    }
}
