//! What happens in one simulation: who takes part, over which network, and what goes wrong when.
//!
//! ```text
//! start        quiet       rough        heal          checked      end
//!   |---- bound ----|-- 1 to 6 faults --|---- bound ----|-- stays --|
//! ```

mod draw;

use std::fmt;
use std::time::Duration;

use lb_agent::vrrp::machine::Parameters;
use lb_agent::vrrp::moment::Moment;

pub(super) const MOST_ROUTERS: usize = 5;

/// An Active router of ours announces the addresses again after so many intervals.
pub(super) const ANNOUNCED_EVERY: u32 = 10;

/// A lease lasts for so many intervals after it was renewed.
pub(super) const LEASED_FOR: u32 = 2;

/// Whose implementation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Ours,
    Keepalived,
    Frr,
}

#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) kind: Kind,
    pub(super) parameters: Parameters,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parameters { version, priority, interval, address, .. } = &self.parameters;
        let Parameters { preempt, preempt_delay, rivals, .. } = &self.parameters;
        let preempts = if *preempt { "preempts after" } else { "does not preempt," };
        write!(
            f,
            "{:?}, version {version}, {address}, priority {priority}, {interval:?}, {preempts} \
             {preempt_delay:?}, {rivals:?}",
            self.kind
        )
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Network {
    /// The longest; every packet takes another time.
    pub(super) delay: Duration,
    /// In the rough part.
    pub(super) loss_percent: u8,
    /// In the rough part.
    pub(super) duplication_percent: u8,
    /// Whether packets of one sender arrive in the order in which they were sent.
    pub(super) in_order: bool,
}

/// What happens to the world. Routers are named by their index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Event {
    Start(usize),
    /// It ends without a word. Its lease runs out by itself.
    Crash(usize),
    /// It ends as told to.
    ShutDown(usize),
    /// It does nothing for a while; what arrives waits.
    Stall(usize),
    Wake(usize),
    Resign(usize),
    HoldBack(usize, bool),
    SetPriority(usize, u8),
    /// Packets of the first do not reach the second, or do again.
    Block(usize, usize, bool),
    /// The rough part begins.
    Roughen,
    /// Everything is well from now on, apart from those that are gone.
    Heal,
    /// One router must be Active now, and stay so.
    Settled,
    End,
}

#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) seed: u64,
    pub(super) members: Vec<Member>,
    pub(super) network: Network,
    /// In the order of time.
    pub(super) events: Vec<(Moment, Event)>,
    /// Crashed and not to be restarted.
    pub(super) gone: Vec<usize>,
}

impl Scenario {
    pub(super) fn interval(&self) -> Duration {
        self.members.iter().map(|member| member.parameters.interval).max().unwrap_or_default()
    }

    /// Whether nothing is ever lost or blocked.
    pub(super) fn is_gentle(&self) -> bool {
        self.network.loss_percent == 0
            && !self.events.iter().any(|(_, event)| matches!(event, Event::Block(..)))
    }

    /// Otherwise leases may overlap even so: a router that starts waits for three of its own
    /// intervals, in which the Active one may have no turn. Both RFCs expect one interval.
    pub(super) fn has_one_interval(&self) -> bool {
        let interval = self.interval();
        self.members.iter().all(|member| member.parameters.interval == interval)
    }

    /// How long it may take until one router is Active for good, from when all is well. With `I` for
    /// the longest interval, `D` for the longest delay and `P` for the longest preempt delay:
    ///
    /// ```text
    ///   D       what was sent before has arrived
    /// + 4 I     the first timer fires: a down interval is 3 I and a skew of 1 I at most
    /// + I + D   two Active routers have heard each other
    /// + I + P   the best Backup has heard a worse Active router for long enough, by its next
    ///           advertisement
    /// + 4 I     its timer, which the last advertisement before that has set anew, fires
    /// + I + D   the one that it outranks has heard that
    /// + D       what was under way then has arrived
    /// ```
    pub(super) fn bound(&self) -> Duration {
        let delays = self.members.iter().map(|member| member.parameters.preempt_delay);
        self.interval() * 11 + self.network.delay * 4 + delays.max().unwrap_or_default()
    }
}
