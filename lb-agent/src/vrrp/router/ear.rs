//! What a virtual router hears: whether it is believed, what is wrong with it, and who sends it.

use std::fmt::Display;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use super::Running;
use crate::netlink::Mac;
use crate::vrrp::event::Happening;
use crate::vrrp::identity::{Priority, Version};
use crate::vrrp::link::{Link, Reach, Received};
use crate::vrrp::machine::{Refusal, State};
use crate::vrrp::moment::Moment;
use crate::vrrp::packet::{self, Advertisement};
use crate::vrrp::status::{Heard, notice};
use crate::vrrp::trouble::Trouble;
use crate::vrrp::waiter::Woken;

/// Packets that one turn takes from a link: more wait for the next, so that a flood of them delays
/// no timer.
const PACKETS_PER_TURN: usize = 64;
/// Impostors are looked for this often.
const LOOK: Duration = Duration::from_millis(100);

impl Running {
    /// Takes what has arrived, if something has.
    pub(in crate::vrrp) fn listen(&mut self, woken: &Woken, now: Moment) {
        if !self.link.as_ref().is_some_and(|link| woken.has_packets(link)) {
            return;
        }
        for _ in 0..PACKETS_PER_TURN {
            let Some(link) = &mut self.link else { return };
            match link.receive() {
                Ok(Some(received)) => self.hear(&received, now),
                Ok(None) => return,
                Err(error) => {
                    self.note_obstacle(error.to_string());
                    return;
                }
            }
        }
    }

    /// Who sends in this node's name, which the kernel lets no socket hear.
    pub(in crate::vrrp) fn look_for_impostors(&mut self, now: Moment) {
        if now < self.look_at {
            return;
        }
        self.look_at = now + LOOK;
        if let Some(mac) = self.link.as_mut().and_then(Link::take_impostor) {
            let own = self.machine.parameters().address;
            self.count_refusal(Refusal::OwnAddress.name());
            let sentence = refused(&Refusal::OwnAddress);
            self.trouble(Refusal::OwnAddress.name(), (own, Some(mac)), sentence, now);
        }
    }

    fn hear(&mut self, received: &Received, now: Moment) {
        let source = received.envelope.source;
        let Some((version, advertisement)) = self.read(received, now) else { return };
        let own = self.machine.parameters();
        if advertisement.router_id != own.router_id {
            // Another virtual router of the link.
            return;
        }
        if version != own.version {
            let expected = own.version;
            let sentence = format!("it speaks version {version}, this node version {expected}");
            self.refuse("other_version", source, &sentence, now);
            return;
        }
        match self.machine.hear(source, &advertisement, now) {
            Ok(actions) => {
                self.figures.received += 1;
                let (priority, at) = (advertisement.priority, SystemTime::now());
                self.heard = Some(Heard { from: source, priority, at, moment: now });
                self.carry_out(actions, now);
                self.look_closer(source, &advertisement, now);
            }
            Err(refusal) => self.refuse(refusal.name(), source, &refusal, now),
        }
    }

    /// What is a packet for a router of this version and not from a stranger (RFC 9568, 7.1).
    fn read(&mut self, received: &Received, now: Moment) -> Option<(Version, Advertisement)> {
        let envelope = &received.envelope;
        if envelope.ttl != 255 {
            let sentence = format!("its TTL is {} instead of 255: it was routed", envelope.ttl);
            self.refuse("ttl", envelope.source, &sentence, now);
            return None;
        }
        if let Reach::Unicast(peers) = &self.reach
            && !peers.contains(&envelope.source)
        {
            self.refuse("unknown_source", envelope.source, &"it is no node of the file", now);
            return None;
        }
        match packet::parse(envelope, &received.payload) {
            Ok(read) => Some(read),
            Err(error) => {
                self.refuse(error.name(), envelope.source, &error, now);
                None
            }
        }
    }

    /// What a person should know about an advertisement that was taken.
    fn look_closer(&mut self, source: IpAddr, heard: &Advertisement, now: Moment) {
        let parameters = self.machine.parameters();
        let (own, interval) = (parameters.priority, parameters.interval);
        // Who outranks this one has just made it a Backup.
        if self.machine.state() == State::Active && heard.priority != Priority::RESIGN {
            let theirs = heard.priority;
            let sentence = format!(
                "two nodes are active: it has priority {theirs}, this one {own}; if that lasts, one \
                 of them does not hear the other"
            );
            self.notice(notice::SPLIT_BRAIN, source, sentence, now);
        }
        if !self.is_member(source) {
            let sentence =
                "it takes part and is no [[node]] of the file: add it, or choose another \
                            router_id"
                    .to_owned();
            self.notice(notice::STRANGER, source, sentence, now);
        }
        if !self.machine.lists_the_same(heard) {
            let theirs: Vec<String> = heard.addresses.iter().map(ToString::to_string).collect();
            let sentence = format!(
                "it announces the virtual addresses {}, which are not just this node's",
                theirs.join(", ")
            );
            self.notice(notice::ADDRESSES_DIFFER, source, sentence, now);
        }
        // In version 2 such an advertisement was refused.
        if heard.interval != interval {
            let theirs = heard.interval;
            let sentence = format!("it advertises every {theirs:?}, this node every {interval:?}");
            self.notice(notice::INTERVAL_DIFFERS, source, sentence, now);
        }
    }

    /// Link-local addresses are in no file.
    fn is_member(&self, source: IpAddr) -> bool {
        let link_local = matches!(source, IpAddr::V6(v6) if v6.is_unicast_link_local());
        link_local || self.members.contains(&source)
    }

    fn refuse(&mut self, kind: &'static str, source: IpAddr, why: &dyn Display, now: Moment) {
        self.count_refusal(kind);
        let mac = self.origin(source);
        self.trouble(kind, (source, mac), refused(why), now);
    }

    fn count_refusal(&mut self, kind: &'static str) {
        *self.figures.refused.entry(kind).or_default() += 1;
    }

    fn notice(&mut self, kind: &'static str, source: IpAddr, sentence: String, now: Moment) {
        *self.figures.noticed.entry(kind).or_default() += 1;
        let mac = self.origin(source);
        self.trouble(kind, (source, mac), sentence, now);
    }

    fn origin(&mut self, source: IpAddr) -> Option<Mac> {
        self.link.as_mut()?.origin(source)
    }

    fn trouble(
        &mut self,
        kind: &'static str,
        (rival, mac): (IpAddr, Option<Mac>),
        sentence: String,
        now: Moment,
    ) {
        let at = SystemTime::now();
        let trouble = Trouble { kind, rival, mac, sentence, count: 1, first: at, last: at };
        if let Some(trouble) = self.troubles.note(trouble, now) {
            self.tell(Happening::Trouble(trouble));
        }
    }
}

fn refused(why: &dyn Display) -> String {
    format!("an advertisement was refused: {why}")
}
