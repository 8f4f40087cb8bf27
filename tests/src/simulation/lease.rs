//! The leases of our routers, and whether two of them are valid at once.
//!
//! A lease ends [`LEASED_FOR`](super::scenario::LEASED_FOR) intervals after it was last renewed. The
//! driver renews it every half interval; here it is renewed until the very moment when its router
//! falls asleep, which is the worst of all phases that the half intervals may have.

use std::time::Duration;

use lb_agent::vrrp::moment::Moment;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lease {
    None,
    Renewed,
    /// Its router sleeps or is dead.
    RunsOut(Moment),
}

/// Why a router's lease began while another's was valid.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Cause {
    /// The other one had resigned and held on until it hears its successor.
    HandingOver,
    /// It has the higher priority and preempts, or owns the addresses; or it follows one that did,
    /// and resigned soon after.
    Preemption,
    /// It had the higher priority when it last heard the other one, and has a lower one by now; its
    /// timer ran on. The models of other routers do so; ours listens anew.
    LoweredMeanwhile,
    /// It heard a resignation, not of the other one but of that one's predecessor, which arrived
    /// late. A finding about the machine, which heeds anybody's resignation, as RFC 9568, 6.4.2,
    /// has it.
    StaleResignation,
    /// The other one became Active as late as its first advertisement may have been under way.
    Race,
    /// The other one, Active before, advertised late: it may have been under way.
    LateAdvertisement,
    /// None that the protocol knows.
    Unexplained,
}

/// Two leases that were valid at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Overlap {
    pub(super) old: usize,
    pub(super) new: usize,
    pub(super) cause: Cause,
    pub(super) since: Moment,
    /// When one of the two became Active or got another priority for the last time: the other one
    /// cannot know before it hears of it.
    pub(super) decided: Moment,
    pub(super) lasted: Duration,
    /// Whether one of the two slept or was dead meanwhile, so that it could not yield.
    pub(super) asleep: bool,
}

pub(super) struct Leases {
    leases: Vec<Lease>,
    open: Vec<Overlap>,
    closed: Vec<Overlap>,
}

impl Leases {
    pub(super) fn new(routers: usize) -> Self {
        Self { leases: vec![Lease::None; routers], open: Vec::new(), closed: Vec::new() }
    }

    /// The router renews its lease from now on; `cause` says why it may although another holds.
    pub(super) fn renew(&mut self, router: usize, now: Moment, cause: impl Fn(usize) -> Cause) {
        self.expire(now);
        let before = std::mem::replace(&mut self.leases[router], Lease::Renewed);
        if before != Lease::None {
            return;
        }
        for (old, lease) in self.leases.iter().enumerate() {
            if old == router || *lease == Lease::None {
                continue;
            }
            self.open.push(Overlap {
                old,
                new: router,
                cause: cause(old),
                since: now,
                decided: now,
                lasted: Duration::ZERO,
                asleep: matches!(lease, Lease::RunsOut(_)),
            });
        }
    }

    /// The router became Active, or has another priority.
    pub(super) fn decide(&mut self, router: usize, now: Moment) {
        self.overlaps_of(router).for_each(|overlap| overlap.decided = now);
    }

    fn overlaps_of(&mut self, router: usize) -> impl Iterator<Item = &mut Overlap> {
        self.open.iter_mut().filter(move |o| o.old == router || o.new == router)
    }

    /// The router renews no more until it wakes.
    pub(super) fn leave(&mut self, router: usize, now: Moment, lasts: Duration) {
        self.expire(now);
        if self.leases[router] == Lease::Renewed {
            self.leases[router] = Lease::RunsOut(now + lasts);
            self.overlaps_of(router).for_each(|overlap| overlap.asleep = true);
        }
    }

    pub(super) fn revoke(&mut self, router: usize, now: Moment) {
        self.expire(now);
        self.end(router, now);
    }

    /// Overlaps that are over by now.
    pub(super) fn take_closed(&mut self, now: Moment) -> Vec<Overlap> {
        self.expire(now);
        std::mem::take(&mut self.closed)
    }

    /// Overlaps that last.
    pub(super) fn open(&self, now: Moment) -> impl Iterator<Item = Overlap> {
        self.open.iter().map(move |open| Overlap { lasted: now.since(open.since), ..*open })
    }

    /// In the order of time: the first to end ends the overlap.
    fn expire(&mut self, now: Moment) {
        let next = |leases: &[Lease]| {
            let ends = leases.iter().enumerate().filter_map(|(router, lease)| match lease {
                Lease::RunsOut(at) if *at <= now => Some((*at, router)),
                _ => None,
            });
            ends.min()
        };
        while let Some((at, router)) = next(&self.leases) {
            self.end(router, at);
        }
    }

    fn end(&mut self, router: usize, at: Moment) {
        self.leases[router] = Lease::None;
        let ended = self.open.extract_if(.., |o| o.old == router || o.new == router);
        self.closed.extend(
            ended
                .map(|overlap| Overlap { lasted: at.since(overlap.since), ..overlap })
                .filter(|overlap| !overlap.lasted.is_zero()),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::after_origin(Duration::from_secs(seconds))
    }

    const LASTS: Duration = Duration::from_secs(2);

    #[test]
    fn a_lease_that_ran_out_overlaps_with_no_later_one() {
        let mut leases = Leases::new(2);
        leases.renew(0, at(0), |_| Cause::Unexplained);
        leases.leave(0, at(5), LASTS);
        leases.renew(1, at(7), |_| Cause::Unexplained);
        assert_eq!(leases.take_closed(at(9)).len() + leases.open(at(9)).count(), 0);
    }

    #[test]
    fn two_leases_overlap_until_one_ends() {
        let mut leases = Leases::new(2);
        leases.renew(0, at(0), |_| Cause::Unexplained);
        leases.renew(1, at(3), |_| Cause::Race);
        leases.revoke(0, at(4));
        let closed = leases.take_closed(at(4));
        assert_eq!((closed[0].old, closed[0].new, closed[0].cause), (0, 1, Cause::Race));
        assert_eq!((closed[0].lasted, closed[0].asleep), (Duration::from_secs(1), false));
    }

    #[test]
    fn the_lease_of_a_sleeper_overlaps_until_it_runs_out() {
        let mut leases = Leases::new(2);
        leases.renew(0, at(0), |_| Cause::Unexplained);
        leases.leave(0, at(5), LASTS);
        leases.renew(1, at(6), |_| Cause::Preemption);
        let closed = leases.take_closed(at(9));
        assert_eq!((closed[0].lasted, closed[0].asleep), (Duration::from_secs(1), true));
    }
}
