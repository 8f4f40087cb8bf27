//! All that is tracked, and what follows from it: how much it lowers the node's priority, and
//! whether the node may be Active. Pure.

use std::time::SystemTime;

use super::judge::{Judge, Outcome};
use crate::config::{BUILT_IN, Track, Watched};
use crate::hysteresis::State;

/// One thing that is tracked.
#[derive(Clone, Debug)]
pub struct Tracked {
    pub name: String,
    /// None for what is tracked always.
    pub watched: Option<Watched>,
    /// None: the node resigns while it fails.
    pub weight: Option<i16>,
    pub judge: Judge,
}

/// A state that an outcome changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    pub state: State,
}

#[derive(Clone, Debug)]
pub struct Board {
    tracked: Vec<Tracked>,
}

impl Board {
    /// Where the data path's state stands: interfaces, links, maps.
    pub const DATA_PATH: usize = 0;
    /// Where the synthetic packet stands.
    pub const PACKET: usize = 1;

    pub fn new(tracks: &[Track], now: SystemTime) -> Self {
        // What the agent knows by itself is true at once. A packet that went astray may have been
        // caught in a change of the maps.
        let [data_path, packet] = BUILT_IN;
        let own = [(data_path, 1, 1), (packet, 3, 3)].map(|(name, rise, fall)| Tracked {
            name: name.to_owned(),
            watched: None,
            weight: None,
            judge: Judge::new(rise, fall, now),
        });
        let configured = tracks.iter().map(|track| Tracked {
            name: track.name.clone(),
            watched: Some(track.watched.clone()),
            weight: track.weight,
            judge: Judge::new(track.rise, track.fall, now),
        });
        Self { tracked: own.into_iter().chain(configured).collect() }
    }

    /// What other tracks make of it. One that is the same goes on with what is known of it; of one that counts in
    /// another way that is the beginning. `doubt`: what is new counts as good until it was looked at `fall` times.
    pub fn follow(&self, tracks: &[Track], doubt: bool, now: SystemTime) -> Self {
        let mut next = Self::new(tracks, now);
        for tracked in &mut next.tracked {
            let known = self
                .tracked
                .iter()
                .find(|known| known.name == tracked.name && known.watched == tracked.watched);
            match known {
                Some(known) => tracked.judge = known.judge.with(&tracked.judge),
                None if doubt => tracked.judge.recall(true, "not looked at yet".to_owned()),
                None => {}
            }
        }
        next
    }

    pub fn tracked(&self) -> &[Tracked] {
        &self.tracked
    }

    /// Goes on with what another process of this node knew of a track; nothing where there is none of that name.
    pub fn recall(&mut self, name: &str, good: bool, reason: &str) {
        for tracked in self.tracked.iter_mut().filter(|tracked| tracked.name == name) {
            tracked.judge.recall(good, reason.to_owned());
        }
    }

    /// Takes what a look found.
    pub fn hear(&mut self, at: usize, outcome: Outcome, now: SystemTime) -> Option<Change> {
        let tracked = self.tracked.get_mut(at)?;
        tracked.judge.hear(outcome, now).then(|| Change { state: tracked.judge.state() })
    }

    /// The sum of the weights of what fails. What was not looked at yet lowers nothing.
    pub fn weight(&self) -> i32 {
        let down = self.tracked.iter().filter(|tracked| tracked.judge.state() == State::Down);
        down.filter_map(|tracked| tracked.weight).map(i32::from).sum()
    }

    /// Why the node must not be Active: what fails without a weight, or was not looked at yet.
    pub fn unfit(&self) -> Option<String> {
        let holds_back = |tracked: &&Tracked| {
            tracked.weight.is_none() && tracked.judge.state() != State::Healthy
        };
        let why: Vec<String> = self
            .tracked
            .iter()
            .filter(holds_back)
            .map(|tracked| format!("{}: {}", tracked.name, tracked.judge.reason()))
            .collect();
        (!why.is_empty()).then(|| why.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::track::judge::{Failure, Kind};

    fn track(name: &str, weight: Option<i16>) -> Track {
        let watched = Watched::Interface("ens34".to_owned());
        Track { name: name.to_owned(), watched, weight, rise: 1, fall: 1 }
    }

    fn board() -> Board {
        let tracks = [track("small", Some(-5)), track("large", Some(-20)), track("resign", None)];
        Board::new(&tracks, UNIX_EPOCH)
    }

    fn hear(board: &mut Board, name: &str, good: bool) -> Option<Change> {
        let at = board.tracked().iter().position(|t| t.name == name).expect(name);
        let reason = "why".to_owned();
        let outcome = match good {
            true => Outcome::Good(reason),
            false => Outcome::Bad(Failure { kind: Kind::Failed, reason }),
        };
        board.hear(at, outcome, UNIX_EPOCH)
    }

    fn all_good(board: &mut Board) {
        let names: Vec<String> = board.tracked().iter().map(|t| t.name.clone()).collect();
        for name in names {
            assert_eq!(hear(board, &name, true), Some(Change { state: State::Healthy }));
        }
    }

    #[test]
    fn a_node_stays_backup_until_all_that_makes_it_resign_is_known_to_be_good() {
        let mut board = board();
        let why = board.unfit().expect("nothing was looked at");
        assert!(why.contains("resign: not looked at yet"), "{why}");
        assert!(why.contains("synthetic-packet: not looked at yet"), "{why}");
        assert!(!why.contains("small"), "{why}");
        assert_eq!(board.weight(), 0);
        all_good(&mut board);
        assert_eq!(board.unfit(), None);
    }

    #[test]
    fn weights_lower_the_priority_and_nothing_else() {
        let mut board = board();
        all_good(&mut board);
        for (name, good, weight) in
            [("small", false, -5), ("large", false, -25), ("small", true, -20), ("large", true, 0)]
        {
            assert!(hear(&mut board, name, good).is_some());
            assert_eq!((board.weight(), board.unfit()), (weight, None), "{name}");
        }
    }

    #[test]
    fn without_a_weight_the_node_resigns_with_the_reason_and_keeps_its_priority() {
        let mut board = board();
        all_good(&mut board);
        hear(&mut board, "resign", false);
        assert_eq!((board.weight(), board.unfit()), (0, Some("resign: why".to_owned())));
        hear(&mut board, "resign", true);
        assert_eq!(board.unfit(), None);
    }

    #[test]
    fn the_data_path_counts_at_once_and_the_packet_after_three_failures() {
        let mut board = board();
        all_good(&mut board);
        let [data_path, packet] = BUILT_IN;
        assert_eq!(board.tracked()[Board::DATA_PATH].name, data_path);
        assert_eq!(board.tracked()[Board::PACKET].name, packet);
        for round in 1..=3 {
            let changed = hear(&mut board, packet, false).is_some();
            assert_eq!((changed, board.unfit().is_some()), (round == 3, round == 3), "{round}");
        }
        hear(&mut board, data_path, false);
        let both = "data-path: why; synthetic-packet: why";
        assert_eq!(board.unfit().as_deref(), Some(both));
    }

    #[test]
    fn an_outcome_for_a_place_that_does_not_exist_changes_nothing() {
        let mut board = board();
        assert_eq!(board.hear(99, Outcome::Good(String::new()), UNIX_EPOCH), None);
    }
}
