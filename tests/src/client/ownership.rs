//! Who answered for an address, and when: what a recording of [`super::asker`]'s questions tells.
//! Pure.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::asker::ASK_INTERVAL;
use crate::lab::Mac;
use crate::lab::capture::{Direction, Frame, Recording};

/// An ARP packet about the address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Said {
    Asked,
    Answered(Mac),
    Announced(Mac),
}

impl Said {
    const fn answer(self) -> Option<Mac> {
        match self {
            Self::Answered(mac) => Some(mac),
            _ => None,
        }
    }
}

/// All that was said, in order, with the moment of each.
#[derive(Debug, Default)]
pub struct Ownership {
    said: Vec<(Duration, Said)>,
}

impl Ownership {
    /// `own` is the asker's MAC.
    pub(super) fn of(recording: &Recording, own: Mac, address: Ipv4Addr) -> Self {
        let read = |frame: &Frame| Some((frame.at, said(frame, own, address)?));
        let mut said: Vec<_> = recording.frames.iter().filter_map(read).collect();
        said.sort_by_key(|(at, _)| *at);
        Self { said }
    }

    pub fn questions(&self) -> usize {
        self.said.iter().filter(|(_, said)| *said == Said::Asked).count()
    }

    /// For how long two machines answered the same questions: as many milliseconds as questions had
    /// two answers.
    pub fn dual(&self) -> Duration {
        let (mut doubled, mut answered) = (0, BTreeSet::new());
        for (_, said) in &self.said {
            match said {
                Said::Asked => {
                    doubled += u32::from(answered.len() > 1);
                    answered.clear();
                }
                Said::Answered(mac) => {
                    answered.insert(*mac);
                }
                Said::Announced(_) => {}
            }
        }
        ASK_INTERVAL * (doubled + u32::from(answered.len() > 1))
    }

    /// The first announcement by a machine.
    pub fn announced(&self, by: Mac) -> Option<Duration> {
        self.said.iter().find(|(_, said)| *said == Said::Announced(by)).map(|(at, _)| *at)
    }

    /// Who gave the last answer before a moment.
    pub fn owner(&self, before: Duration) -> Option<Mac> {
        let earlier = self.said.iter().take_while(|(at, _)| *at < before);
        earlier.filter_map(|(_, said)| said.answer()).last()
    }

    /// The last answer of a machine.
    pub fn last_answer(&self, of: Mac) -> Option<Duration> {
        self.said.iter().rfind(|(_, said)| *said == Said::Answered(of)).map(|(at, _)| *at)
    }

    /// Answers from `since` on: those of `owner`, and all others.
    pub fn answers(&self, since: Duration, owner: Mac) -> (usize, usize) {
        let late = self.said.iter().filter(|(at, _)| *at >= since);
        late.fold((0, 0), |(own, other), (_, said)| match said {
            Said::Answered(mac) if *mac == owner => (own + 1, other),
            Said::Answered(_) => (own, other + 1),
            _ => (own, other),
        })
    }

    /// Who answered, one after the other; each as often as it came to do so anew.
    pub fn owners(&self) -> Vec<Mac> {
        let mut owners: Vec<Mac> = self.said.iter().filter_map(|(_, said)| said.answer()).collect();
        owners.dedup();
        owners
    }
}

fn said(frame: &Frame, own: Mac, address: Ipv4Addr) -> Option<Said> {
    let bytes = &frame.bytes;
    let arp = bytes.get(14..42).filter(|_| bytes[12..14] == [0x08, 0x06])?;
    let (operation, sender) = (arp[7], Ipv4Addr::from([arp[14], arp[15], arp[16], arp[17]]));
    let mac: Mac = arp[8..14].try_into().ok()?;
    let target = Ipv4Addr::from([arp[24], arp[25], arp[26], arp[27]]);
    if frame.direction == Direction::FromHost {
        return (operation == 1 && mac == own && target == address).then_some(Said::Asked);
    }
    if sender != address {
        return None;
    }
    let to_us = operation == 2 && frame.destination_mac() == Some(own);
    Some(if to_us { Said::Answered(mac) } else { Said::Announced(mac) })
}

#[cfg(test)]
mod tests {
    use super::super::asker::question;
    use super::*;

    const OWN: Mac = [9; 6];
    const ONE: Mac = [1; 6];
    const TWO: Mac = [2; 6];
    const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 150);
    const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

    fn frame(at_us: u64, direction: Direction, bytes: Vec<u8>) -> Frame {
        Frame { at: Duration::from_micros(at_us), direction, bytes }
    }

    fn ask(at_us: u64) -> Frame {
        frame(at_us, Direction::FromHost, question(OWN, CLIENT, VIP))
    }

    fn answer(at_us: u64, mac: Mac) -> Frame {
        let mut bytes = question(mac, VIP, CLIENT);
        bytes[..6].copy_from_slice(&OWN);
        bytes[21] = 2;
        frame(at_us, Direction::ToHost, bytes)
    }

    fn announce(at_us: u64, mac: Mac) -> Frame {
        frame(at_us, Direction::ToHost, question(mac, VIP, VIP))
    }

    fn of(frames: Vec<Frame>) -> Ownership {
        Ownership::of(&Recording { frames }, OWN, VIP)
    }

    #[test]
    fn a_clean_move_has_no_double_answer_and_two_owners() {
        let clean = of(vec![ask(0), answer(50, ONE), ask(1000), ask(2000), answer(2050, TWO)]);
        assert_eq!(clean.dual(), Duration::ZERO);
        assert_eq!(clean.owners(), [ONE, TWO]);
        assert_eq!(clean.questions(), 3);
    }

    #[test]
    fn the_owner_at_a_moment_gave_the_last_answer_before_it() {
        let frames =
            vec![ask(0), answer(50, ONE), ask(1000), announce(1020, TWO), answer(1050, TWO)];
        let seen = of(frames);
        let owner = |at_us| seen.owner(Duration::from_micros(at_us));
        assert_eq!([owner(50), owner(51)], [None, Some(ONE)]);
        assert_eq!([owner(1050), owner(1051)], [Some(ONE), Some(TWO)]);
    }

    #[test]
    fn each_question_with_two_answers_counts_also_the_last_one() {
        let both = |at| [ask(at), answer(at + 50, ONE), answer(at + 60, TWO)];
        let frames = [0, 1000, 2000].into_iter().flat_map(both).collect();
        assert_eq!(of(frames).dual(), 3 * ASK_INTERVAL);
    }

    #[test]
    fn answers_after_an_announcement_are_told_by_whose_they_are() {
        let frames = vec![
            ask(0),
            answer(50, ONE),
            announce(70, TWO),
            ask(1000),
            answer(1050, TWO),
            ask(2000),
            answer(2050, ONE),
        ];
        let seen = of(frames);
        let since = seen.announced(TWO).unwrap();
        assert_eq!(seen.answers(since, TWO), (1, 1));
        assert_eq!(seen.announced(ONE), None);
        assert_eq!(seen.last_answer(ONE), Some(Duration::from_micros(2050)));
    }

    #[test]
    fn packets_about_other_addresses_and_short_ones_are_nothing() {
        let other = frame(0, Direction::ToHost, question(ONE, CLIENT, VIP));
        let mut short = question(ONE, VIP, VIP);
        short.truncate(41);
        assert!(of(vec![other, frame(1, Direction::ToHost, short)]).said.is_empty());
    }
}
