//! What a router does about an advertisement that it hears.

use std::net::IpAddr;

use super::{Action, Machine, Parameters, Reason, Rivals, State, Timer};
use crate::vrrp::identity::{Priority, Version};
use crate::vrrp::moment::Moment;
use crate::vrrp::packet::Advertisement;

/// Why an advertisement was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Refusal {
    #[error("it has another password or none, so one of the two is configured wrongly")]
    Authentication,
    #[error("it has another interval; with version 2 both routers become active then")]
    Interval,
    #[error("it lists other virtual addresses")]
    Addresses,
    #[error(
        "it announces none of this node's virtual addresses, so another group has the same router_id: \
         choose another one here or there"
    )]
    DuplicateRouterId,
    #[error(
        "it comes from this node's own address, so another machine has that address or the link returns what is sent"
    )]
    OwnAddress,
}

impl Refusal {
    /// Its name in counters.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Authentication => "authentication",
            Self::Interval => "interval",
            Self::Addresses => "addresses",
            Self::DuplicateRouterId => "duplicate_router_id",
            Self::OwnAddress => "own_address",
        }
    }
}

/// RFC 9568, 7.1, and RFC 3768, 7.1, as far as they need the configuration.
fn check(
    parameters: &Parameters,
    source: IpAddr,
    advertisement: &Advertisement,
) -> Result<(), Refusal> {
    if source == parameters.address {
        return Err(Refusal::OwnAddress);
    }
    let owner = advertisement.priority == Priority::OWNER;
    if !owner && disjoint(&parameters.addresses, &advertisement.addresses) {
        // RFC 9568, 7.1, lets a router check the addresses. To hear a stranger as the Active router
        // would leave this node's addresses to nobody.
        return Err(Refusal::DuplicateRouterId);
    }
    if advertisement.authentication != parameters.authentication {
        return Err(Refusal::Authentication);
    }
    // Version 3 never refuses an interval: a Backup adopts it.
    if parameters.version == Version::V2 && advertisement.interval != parameters.interval {
        return Err(Refusal::Interval);
    }
    if parameters.same_addresses && !owner && !same(&parameters.addresses, &advertisement.addresses)
    {
        return Err(Refusal::Addresses);
    }
    Ok(())
}

/// Whether advertisements by the one are refused by the other.
pub(super) fn refuse_one_another(one: &Parameters, other: &Parameters) -> bool {
    one.authentication != other.authentication
        || other.version == Version::V2 && one.interval != other.interval
        || disjoint(&one.addresses, &other.addresses)
        || other.same_addresses && !same(&one.addresses, &other.addresses)
}

fn disjoint(ours: &[IpAddr], theirs: &[IpAddr]) -> bool {
    !ours.iter().any(|address| theirs.contains(address))
}

/// Whether both list the same addresses; their order is of no account.
fn same(ours: &[IpAddr], theirs: &[IpAddr]) -> bool {
    ours.len() == theirs.len() && ours.iter().all(|address| theirs.contains(address))
}

impl Machine {
    /// Whether it is for this router, by what that is or what it was until the others were told.
    pub(super) fn check(
        &mut self,
        source: IpAddr,
        advertisement: &Advertisement,
    ) -> Result<(), Refusal> {
        let now = check(&self.parameters, source, advertisement);
        let Some(former) = &self.former else { return now };
        match check(former, source, advertisement) {
            Ok(()) => Ok(()),
            Err(_) => {
                if now.is_ok() {
                    self.former = None;
                }
                now
            }
        }
    }

    /// Whether an advertisement lists just this router's addresses.
    pub fn lists_the_same(&self, advertisement: &Advertisement) -> bool {
        same(&self.parameters.addresses, &advertisement.addresses)
    }

    /// RFC 9568, 6.4.2.
    pub(super) fn hear_as_backup(
        &mut self,
        source: IpAddr,
        heard: &Advertisement,
        now: Moment,
    ) -> Vec<Action> {
        if heard.priority == Priority::RESIGN {
            self.active_resigned = true;
            self.outranking_since = None;
            let skew = self.parameters.skew(self.parameters.priority, self.active_interval);
            self.timer = Timer::Down(now + skew);
            return Vec::new();
        }
        // Whoever advertises is Active: a router that handed over has its successor.
        let released = self.release(Reason::Succeeded { by: source });
        if heard.priority < self.parameters.priority && self.takes_over(now) {
            // Discarded: the timer runs on, and this router takes over when it fires.
            return released.into_iter().collect();
        }
        if heard.priority >= self.parameters.priority {
            self.outranking_since = None;
        }
        self.active_resigned = false;
        self.adopt(heard);
        self.wait_for_down(now);
        released.into_iter().collect()
    }

    /// Whether an Active router of lower priority is to be followed by this one now.
    pub(super) fn takes_over(&mut self, now: Moment) -> bool {
        if !self.preempts() || self.held_back {
            return false;
        }
        let since = *self.outranking_since.get_or_insert(now);
        now.since(since) >= self.parameters.preempt_delay
    }

    /// RFC 9568, 6.1: who owns the addresses preempts, whatever the setting says.
    pub(super) fn preempts(&self) -> bool {
        self.parameters.preempt || self.parameters.priority == Priority::OWNER
    }

    /// RFC 9568, 6.4.3.
    pub(super) fn hear_as_active(
        &mut self,
        source: IpAddr,
        heard: &Advertisement,
        now: Moment,
    ) -> Vec<Action> {
        let own = self.parameters.priority;
        if heard.priority == Priority::RESIGN {
            self.timer = Timer::Advertise(now + self.pace());
            return vec![Action::Advertise(own)];
        }
        let outranked = heard.priority > own
            || heard.priority == own && is_greater(source, self.parameters.address);
        if outranked {
            let reason = Reason::Outranked { by: source, priority: heard.priority };
            self.enter(State::Backup, reason, now);
            self.adopt(heard);
            self.wait_for_down(now);
            return self.release(reason).into_iter().collect();
        }
        // The rival has announced the addresses as its own: the link must hear otherwise.
        match self.parameters.rivals {
            Rivals::Answer => vec![Action::Advertise(own), Action::Announce],
            Rivals::Ignore => vec![Action::Announce],
        }
    }

    /// `Active_Adver_Interval` is the heard one in version 3; in version 2 it is the same anyway.
    fn adopt(&mut self, heard: &Advertisement) {
        self.active_interval = heard.interval;
    }
}

/// RFC 9568, 6.4.3: as unsigned numbers in network order.
fn is_greater(one: IpAddr, other: IpAddr) -> bool {
    match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => one.octets() > other.octets(),
        (IpAddr::V6(one), IpAddr::V6(other)) => one.octets() > other.octets(),
        _ => false,
    }
}
