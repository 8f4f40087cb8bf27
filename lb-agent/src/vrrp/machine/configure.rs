//! Other parameters for a router that takes part, as a changed file says them: none of it is a change of state.
//! What the others have yet to hear, or to be told themselves, is bridged.

use std::time::Duration;

use super::{Action, Machine, Parameters, Priority, State, Timer, parameters, rules};
use crate::vrrp::moment::Moment;

/// An Active router that advertises less often from now on, and says so at the pace before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bridge {
    /// Shorter than the interval.
    pace: Duration,
    /// How many more advertisements leave at it.
    left: u32,
}

impl Machine {
    /// Takes other parameters on.
    ///
    /// An Active router stays Active and advertises at once, so that the others hear what is new: with version 3
    /// they wait by the interval that they hear (RFC 9568, 6.4.2). Where that is longer than before it is said a few
    /// times at the pace before, since one that missed it would wait for too short a time. A Backup's timer runs on;
    /// one that was about to take over, and is not to by what it is now, listens anew.
    ///
    /// Nodes are told one after the other, so what those say who have yet to be told is still taken: see
    /// [`hear`](Self::hear).
    pub fn configure(&mut self, parameters: Parameters, now: Moment) -> Vec<Action> {
        if parameters == self.parameters {
            return Vec::new();
        }
        // By what it promised the others until now.
        let mut actions = self.yield_if_overslept(now);
        let pace = self.pace();
        let before = std::mem::replace(&mut self.parameters, parameters);
        match self.state {
            // It begins with them.
            State::Initialize => {}
            State::Backup => self.reconsider((before.priority, before.preempt_delay), now),
            State::Active if self.is_said_otherwise(&before) => {
                self.bridge = (pace < self.parameters.interval)
                    .then_some(Bridge { pace, left: parameters::MISSED });
                self.timer = Timer::Advertise(now + self.pace());
                actions.push(Action::Advertise(self.parameters.priority));
            }
            State::Active => {}
        }
        self.remember(before);
        actions
    }

    /// Between two advertisements of this router, as long as it is Active: the interval, but for a moment after that
    /// became longer.
    pub fn pace(&self) -> Duration {
        self.bridge.map_or(self.parameters.interval, |bridge| bridge.pace)
    }

    /// The interval until the next advertisement, when one leaves.
    pub(super) fn step(&mut self) -> Duration {
        self.bridge = self.bridge.and_then(|Bridge { pace, left }| {
            let left = left.checked_sub(1).filter(|left| *left > 0)?;
            Some(Bridge { pace, left })
        });
        self.pace()
    }

    fn is_said_otherwise(&self, before: &Parameters) -> bool {
        let said = |of: &Parameters| {
            (of.version, of.router_id, of.priority, of.interval, of.address, of.authentication)
        };
        said(&self.parameters) != said(before) || self.parameters.addresses != before.addresses
    }

    /// A Backup that was about to take over from an Active router, and is not to any more, listens anew.
    pub(super) fn reconsider(
        &mut self,
        (priority, preempt_delay): (Priority, Duration),
        now: Moment,
    ) {
        let Some(since) = self.outranking_since else { return };
        if self.parameters.priority < priority || !self.preempts() {
            self.outranking_since = None;
        }
        let took_over = now.since(since) >= preempt_delay;
        if took_over && (self.outranking_since.is_none() || !self.takes_over(now)) {
            self.wait_for_down(now);
        }
    }

    /// Keeps what the others still go by, until one of them goes by what is new. Where nobody has yet it is what
    /// was before that, too.
    fn remember(&mut self, before: Parameters) {
        let known = self.former.take().map_or(before, |former| *former);
        let Parameters { interval, addresses, authentication, .. } = known;
        let former = Parameters { interval, addresses, authentication, ..self.parameters.clone() };
        self.former = rules::refuse_one_another(&former, &self.parameters).then(|| former.into());
    }
}
