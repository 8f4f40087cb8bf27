//! What two routers of one virtual router said on the wire while the role went from one to the other,
//! and how long that should take by their protocol.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::Result;

use super::shape::{Family, NIC, address, vip};
use super::stage::Stage;
use super::tally::rounded;
use crate::lab::Host;
use crate::lab::capture::{Advertisement, Capture, Direction, Frame};

/// More than a timer is late on a loaded machine.
const TOLERANCE: f64 = 1.05;
/// And what a successor may take to run at all, where five in a hundred are too little to tell.
const GRACE: Duration = Duration::from_millis(20);

/// For scenarios that do not care what is served.
pub(super) const SERVICE: &str = "[[service]]\nname = \"api\"\nport = 8443\n\
    backends = [\"192.168.139.133:6443\"]\n[service.health]\nenabled = false\n";

/// How the routers speak.
pub(super) struct Protocol {
    pub(super) router_id: u8,
    pub(super) version: u8,
    pub(super) interval: Duration,
    pub(super) unicast: bool,
    pub(super) password: Option<&'static str>,
    pub(super) families: &'static [Family],
}

impl Protocol {
    /// RFC 9568, 6.1; RFC 3768, 6.1.
    pub(super) fn skew(&self, priority: u8) -> Duration {
        let interval = if self.version == 2 { Duration::from_secs(1) } else { self.interval };
        interval * (256 - u32::from(priority)) / 256
    }

    /// `lb.toml` of masters, each with its number and priority, but for the services.
    pub(super) fn configuration(&self, masters: &[(u8, u8)], preempt: bool) -> String {
        let Self { router_id, version, interval, unicast, password, families } = self;
        let vips: Vec<String> = families.iter().map(|&family| vip(family).to_string()).collect();
        let interval_ms = interval.as_millis();
        let mut text = format!(
            "interface = \"{NIC}\"\nvirtual_addresses = {vips:?}\n[vrrp]\nrouter_id = {router_id}\n\
             version = {version}\nadvertisement_interval = \"{interval_ms}ms\"\n\
             preempt = {preempt}\nunicast = {unicast}\n"
        );
        if let Some(password) = password {
            let _ = writeln!(text, "auth_pass = \"{password}\"");
        }
        for (master, priority) in masters {
            let [v4, v6] = Family::BOTH.map(|family| address(&format!("master{master}"), family));
            let _ = write!(
                text,
                "[[node]]\nname = \"master{master}\"\naddress = \"{v4}\"\naddresses = [\"{v6}\"]\n\
                 priority = {priority}\n"
            );
        }
        text
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    Ours,
    Peer,
}

/// Why the role moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Change {
    /// The Active router is gone without a word.
    Crash,
    /// It said so.
    Resignation,
    /// One of higher priority came.
    Preemption,
}

impl Change {
    const fn name(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Resignation => "resignation",
            Self::Preemption => "preemption",
        }
    }
}

/// Both machines' wires.
pub(super) struct Watch {
    ours: Capture,
    peer: Capture,
}

impl Watch {
    pub(super) fn start(ours: &Host, peer: &Host) -> Result<Self> {
        Ok(Self { ours: ours.capture(NIC)?, peer: peer.capture(NIC)? })
    }

    pub(super) fn stop(self) -> Result<Seen> {
        let mut said = Vec::new();
        for (side, capture) in [(Side::Ours, self.ours), (Side::Peer, self.peer)] {
            for frame in capture.stop()?.frames {
                if frame.direction == Direction::FromHost
                    && let Some(word) = word(&frame)
                {
                    said.push(Said { at: frame.at, side, word });
                }
            }
        }
        said.sort_by_key(|said| said.at);
        Ok(Seen { said })
    }
}

/// How a router says that it is Active, or no more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Word {
    Advertisement(Advertisement),
    /// That it has the address. The only one by unicast to a router that is gone: nobody tells the
    /// MAC to send the advertisement to.
    Announcement(IpAddr),
}

impl Word {
    const fn is_resignation(self) -> bool {
        matches!(self, Self::Advertisement(advertisement) if advertisement.priority == 0)
    }

    fn is_of(self, protocol: &Protocol, family: Family) -> bool {
        match self {
            Self::Announcement(address) => address == vip(family),
            Self::Advertisement(Advertisement { source, version, router_id, .. }) => {
                source.is_ipv4() == (family == Family::V4)
                    && (version, router_id) == (protocol.version, protocol.router_id)
            }
        }
    }
}

fn word(frame: &Frame) -> Option<Word> {
    let advertisement = frame.advertisement().map(Word::Advertisement);
    advertisement.or_else(|| frame.announcement().map(Word::Announcement))
}

#[derive(Clone, Copy, Debug)]
struct Said {
    at: Duration,
    side: Side,
    word: Word,
}

/// What both said, oldest first.
pub(super) struct Seen {
    said: Vec<Said>,
}

/// Who is Active after a change.
#[derive(Clone, Copy, Debug)]
pub(super) struct Successor {
    pub(super) side: Side,
    pub(super) name: &'static str,
    pub(super) priority: u8,
    /// For how long nobody can hear that it is Active, but for the announced address.
    pub(super) mute: Duration,
}

impl Seen {
    /// Claims that the role went over once, in the time that the protocol gives for it.
    pub(super) fn judge(
        &self,
        stage: &mut Stage,
        protocol: &Protocol,
        family: Family,
        successor: Successor,
        change: Change,
    ) {
        let said = self.said.iter().filter(|said| said.word.is_of(protocol, family));
        let said: Vec<Said> = said.copied().collect();
        let (least, most) = bounds(protocol, successor.priority, change);
        let gap = gap(&said, successor.side, successor.mute, change);
        let (name, word, family) = (successor.name, change.name(), family.name());
        let text = format!("{name} follows once and in time, by {word} ({family})");
        let seen = match gap {
            Some(gap) => format!("{gap:.0?} after the last word, {least:.0?} to {most:.0?}"),
            None => format!("they said {}", summary(&said)),
        };
        stage.claim(&text, gap.is_some_and(|gap| gap >= least && gap <= most), seen);
        if let Some(gap) = gap {
            let name = format!("{word}_to_{name}_{family}_ms").to_lowercase();
            stage.figure(&name, rounded(gap.as_secs_f64() * 1000.0));
        }
    }
}

/// How long the successor may be silent.
fn bounds(protocol: &Protocol, priority: u8, change: Change) -> (Duration, Duration) {
    let interval = protocol.interval;
    let skew = protocol.skew(priority);
    match change {
        Change::Crash => (interval * 3, (interval * 3 + skew).mul_f64(TOLERANCE)),
        Change::Resignation => (Duration::ZERO, skew.mul_f64(TOLERANCE) + GRACE),
        // Its timer is not the other one's, whose next word is due an interval after the last.
        Change::Preemption => (Duration::ZERO, interval.mul_f64(TOLERANCE) + GRACE),
    }
}

/// From the last word of the one before, its resignation where it resigned, to the first one of `to`;
/// none where they did not speak one after the other.
fn gap(said: &[Said], to: Side, mute: Duration, change: Change) -> Option<Duration> {
    let is_word = |said: &&Said| !said.word.is_resignation();
    let words: Vec<_> = said.iter().filter(is_word).collect();
    let first = words.iter().position(|said| said.side == to)?;
    let audible = words[first].at + mute.mul_f64(TOLERANCE);
    if words[first..].iter().any(|said| said.side != to && said.at > audible) {
        return None;
    }
    let last = match change {
        Change::Resignation => said.iter().rfind(|said| !is_word(said) && said.side != to)?,
        _ => words[..first].last()?,
    };
    words[first].at.checked_sub(last.at)
}

fn summary(said: &[Said]) -> String {
    let start = said.first().map(|said| said.at).unwrap_or_default();
    let words: Vec<String> = said
        .iter()
        .map(|said| {
            let milliseconds = (said.at - start).as_millis();
            let word = match said.word {
                Word::Announcement(_) => "announcement".to_owned(),
                Word::Advertisement(advertisement) => advertisement.priority.to_string(),
            };
            format!("at {milliseconds} ms {:?} {word}", said.side)
        })
        .collect();
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(list: &[(u64, Side, u8)]) -> Vec<Said> {
        let source = "192.0.2.1".parse().unwrap();
        let all = list.iter().map(|&(at_ms, side, priority)| Said {
            at: Duration::from_millis(at_ms),
            side,
            word: Word::Advertisement(Advertisement {
                source,
                version: 3,
                router_id: 51,
                priority,
            }),
        });
        all.collect()
    }

    #[test]
    fn a_crash_counts_from_the_last_word() {
        let said = said(&[(0, Side::Peer, 90), (100, Side::Peer, 90), (450, Side::Ours, 80)]);
        let expected = Some(Duration::from_millis(350));
        assert_eq!(gap(&said, Side::Ours, Duration::ZERO, Change::Crash), expected);
        assert_eq!(
            gap(&said, Side::Ours, Duration::ZERO, Change::Resignation),
            None,
            "nobody resigned"
        );
        assert_eq!(
            gap(&said, Side::Peer, Duration::ZERO, Change::Crash),
            None,
            "it went the other way"
        );
    }

    #[test]
    fn a_resignation_counts_from_itself() {
        let said = said(&[(0, Side::Peer, 90), (30, Side::Peer, 0), (90, Side::Ours, 80)]);
        let expected = Some(Duration::from_millis(60));
        assert_eq!(gap(&said, Side::Ours, Duration::ZERO, Change::Resignation), expected);
    }

    #[test]
    fn two_who_speak_in_turn_are_two_who_are_active() {
        let said = said(&[
            (0, Side::Peer, 90),
            (10, Side::Ours, 80),
            (100, Side::Peer, 90),
            (110, Side::Ours, 80),
        ]);
        assert_eq!(gap(&said, Side::Ours, Duration::ZERO, Change::Crash), None);
        let mute = Duration::from_millis(100);
        let of_a_mute = gap(&said, Side::Ours, mute, Change::Preemption);
        assert_eq!(of_a_mute, Some(Duration::from_millis(10)));
    }

    #[test]
    fn the_configuration_is_one_that_the_agent_accepts() {
        let interval = Duration::from_secs(2);
        let v2 = Protocol {
            router_id: 51,
            version: 2,
            interval,
            unicast: true,
            password: Some("secret"),
            families: &[Family::V4],
        };
        let v3 =
            Protocol { version: 3, unicast: false, password: None, families: &Family::BOTH, ..v2 };
        for protocol in [v2, v3] {
            let head = protocol.configuration(&[(1, 100), (2, 90)], true);
            let text = format!("{head}{SERVICE}");
            let config = lb_agent::config::Config::parse(&text);
            assert!(config.is_ok(), "{text}\n{config:?}");
        }
    }
}
