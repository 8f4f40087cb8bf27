//! What clients' own connections say of a backend: nginx's `max_fails` and `fail_timeout`. Pure: `now` is an
//! argument.
//!
//! ```text
//!            max_fails refusals, or as many SYNs without an answer
//!            and a failed check, within fail_timeout
//!   In ---------------------------------------------------------------> Out
//!    ^ ^                                                               |  | ^
//!    | |        `rise` checks in a row that pass, where it is checked  |  | |
//!    | +---------------------------------------------------------------+  | | one more
//!    |                                                                    | |
//!    +------------------- Tried <-----------------------------------------+ |
//!      fail_timeout         |       fail_timeout after the last failure     |
//!      without a failure    +-----------------------------------------------+
//! ```

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::config::duration_text;

/// A suspicion that a check did not bear out is not checked again for so long: what keeps on sending SYNs twice
/// costs a check a second.
const SUSPECTED_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// How a service judges by its clients' connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// 0 is never.
    pub max_fails: u32,
    pub fail_timeout: Duration,
    /// Of a service that is checked: how many checks in a row bring a backend back, and how long there is between
    /// two.
    pub checks: Option<(u32, Duration)>,
}

/// How a connection failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    Refused,
    Unanswered,
}

/// What is known of one backend from its connections.
#[derive(Debug, Default)]
pub struct Witness {
    /// When the last ones failed; as many as can matter.
    refused: VecDeque<Instant>,
    unanswered: VecDeque<Instant>,
    out: Option<Out>,
    /// It was out, and one failure before this is enough.
    tried_until: Option<Instant>,
    /// When checks brought it back that had never failed.
    believed: Option<Instant>,
    /// When it is to be checked next.
    look_at: Option<Instant>,
    /// When the check began that runs.
    looking: Option<Instant>,
    /// No suspicion is checked before.
    trusted_until: Option<Instant>,
}

#[derive(Debug)]
struct Out {
    since: Instant,
    until: Instant,
    reason: String,
    /// Checks in a row that passed since it is out.
    passed: u32,
    /// One has failed since.
    failed: bool,
}

impl Witness {
    /// Why it is out, if it is.
    pub fn reason(&self) -> Option<&str> {
        self.out.as_ref().map(|out| out.reason.as_str())
    }

    /// So many connections failed since the last time.
    pub fn failed(&mut self, failure: Failure, count: u64, now: Instant, rules: &Rules) {
        self.pass(now, rules);
        if count == 0 || rules.max_fails == 0 {
            return;
        }
        if let Some(out) = &mut self.out {
            out.until = now + rules.fail_timeout;
            return;
        }
        let tried = self.tried_until.is_some();
        let times = match failure {
            Failure::Refused => &mut self.refused,
            Failure::Unanswered => &mut self.unanswered,
        };
        let enough = note(times, count, now, rules) || tried;
        match failure {
            Failure::Refused if enough => self.put_out(said(failure, tried, rules), now, rules),
            Failure::Unanswered
                if enough
                    && self.looking.is_none()
                    && self.trusted_until.is_none_or(|until| until <= now) =>
            {
                self.look_at = Some(now);
            }
            _ => {}
        }
    }

    /// What a check found that was made for this: nothing where it could not be made.
    pub fn looked(&mut self, outcome: Option<Result<(), &str>>, now: Instant, rules: &Rules) {
        let begun = self.looking.take();
        self.pass(now, rules);
        let Some(out) = &mut self.out else {
            match outcome {
                Some(Err(why)) if !self.unanswered.is_empty() && rules.max_fails > 0 => {
                    let tried = self.tried_until.is_some();
                    let reason = format!("{}; {why}", said(Failure::Unanswered, tried, rules));
                    self.put_out(reason, now, rules);
                    if let Some(out) = &mut self.out {
                        out.failed = true;
                    }
                }
                _ => {
                    self.unanswered.clear();
                    self.trusted_until = Some(now + SUSPECTED_AGAIN_AFTER);
                }
            }
            return;
        };
        match outcome {
            // One that began before says nothing of what came then.
            _ if begun.is_none_or(|begun| begun < out.since) => {}
            Some(Ok(())) => out.passed += 1,
            Some(Err(_)) => (out.passed, out.failed) = (0, true),
            None => {}
        }
        let Some((rise, interval)) = rules.checks else { return };
        let (passed, failed) = (out.passed, out.failed);
        let may_believe = failed || self.believed.is_none();
        if passed >= rise && may_believe {
            self.forget();
            self.believed = (!failed).then_some(now);
        } else {
            self.look_at = Some(now + interval);
        }
    }

    /// Lets time pass until now.
    pub fn pass(&mut self, now: Instant, rules: &Rules) {
        if rules.max_fails == 0 {
            self.forget();
            self.believed = None;
        }
        if self.out.as_ref().is_some_and(|out| out.until <= now) {
            self.forget();
            self.tried_until = Some(now + rules.fail_timeout);
        }
        if self.tried_until.is_some_and(|until| until <= now) {
            self.tried_until = None;
        }
        // Out again within the same time after it was brought back is what this is for.
        if self.out.is_none() && self.believed.is_some_and(|at| at + rules.fail_timeout <= now) {
            self.believed = None;
        }
    }

    /// Whether a check is to be made now; whoever asks makes it.
    pub fn takes_look(&mut self, now: Instant) -> bool {
        let due = self.looking.is_none() && self.look_at.is_some_and(|at| at <= now);
        if due {
            self.looking = Some(now);
            self.look_at = None;
        }
        due
    }

    /// When something happens by itself next.
    pub fn next(&self) -> Option<Instant> {
        let look = self.look_at.filter(|_| self.looking.is_none());
        [self.out.as_ref().map(|out| out.until), look].into_iter().flatten().min()
    }

    fn put_out(&mut self, reason: String, now: Instant, rules: &Rules) {
        self.refused.clear();
        self.unanswered.clear();
        self.tried_until = None;
        let until = now + rules.fail_timeout;
        self.out = Some(Out { since: now, until, reason, passed: 0, failed: false });
        self.look_at = rules.checks.map(|_| now);
    }

    /// In, as if nothing had happened, but for what is believed.
    fn forget(&mut self) {
        let believed = self.believed;
        *self = Self { believed, looking: self.looking, ..Self::default() };
    }
}

/// Notes failures; whether they are enough.
fn note(times: &mut VecDeque<Instant>, count: u64, now: Instant, rules: &Rules) -> bool {
    let most = rules.max_fails as usize;
    for _ in 0..count.min(u64::from(rules.max_fails)) {
        times.push_back(now);
    }
    let is_old = |at: &Instant| now.saturating_duration_since(*at) >= rules.fail_timeout;
    while times.len() > most || times.front().is_some_and(is_old) {
        times.pop_front();
    }
    times.len() >= most
}

fn said(failure: Failure, tried: bool, rules: &Rules) -> String {
    let window = duration_text(rules.fail_timeout);
    let fails = rules.max_fails;
    match (failure, tried) {
        (Failure::Refused, false) => {
            format!("refused {fails} of its last connections within {window}")
        }
        (Failure::Refused, true) => format!("refused again when it was tried after {window}"),
        (Failure::Unanswered, false) => {
            format!("left {fails} of its last connections unanswered within {window}")
        }
        (Failure::Unanswered, true) => {
            format!("left a connection unanswered when it was tried after {window}")
        }
    }
}
