//! Rise and fall: when results change a state. For backends that are checked and things that are
//! tracked alike. Pure: no clock, no sockets, no words.

/// What is known of something that is looked at again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// No look has found it well, and fewer than `fall` have found it wanting. The agent lets a
    /// backend take clients then: a restart must not stop traffic.
    Unknown,
    Healthy,
    Down,
}

/// The state of one such thing.
///
/// ```text
///             success                     fall failures in a row
///   Unknown ------------> Healthy --------------------------------> Down
///      |                     ^         rise successes in a row       | ^
///      |                     +---------------------------------------+ |
///      +---------------------------------------------------------------+
///                         fall failures in a row
/// ```
///
/// A result that confirms the state (a success where healthy, a failure where down) starts the
/// count towards the other one anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    state: State,
    rise: u32,
    fall: u32,
    /// Results in a row that speak against `state`; always less than what changes it.
    against: u32,
}

impl Machine {
    /// A machine that starts in `state`. A `rise` or `fall` of 0 is taken as 1.
    pub(crate) fn new(state: State, rise: u32, fall: u32) -> Self {
        Self { state, rise: rise.max(1), fall: fall.max(1), against: 0 }
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// Results in a row that speak against the state.
    pub(crate) fn against(&self) -> u32 {
        self.against
    }

    /// Takes one result. Returns how many results in a row changed the state, if they did.
    pub(crate) fn observe(&mut self, success: bool) -> Option<u32> {
        let (next, needed) = match (self.state, success) {
            (State::Healthy, true) | (State::Down, false) => {
                self.against = 0;
                return None;
            }
            (State::Unknown, true) => (State::Healthy, 1),
            (State::Down, true) => (State::Healthy, self.rise),
            (State::Unknown | State::Healthy, false) => (State::Down, self.fall),
        };
        self.against += 1;
        if self.against < needed {
            return None;
        }
        // An Unknown target may have failed before its first success: that is not part of a row.
        self.against = 0;
        self.state = next;
        Some(needed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::State::{Down, Healthy, Unknown};
    use super::*;

    /// Feeds `results` ('+' a success, '-' a failure) and returns the state after each.
    fn run(state: State, rise: u32, fall: u32, results: &str) -> Vec<State> {
        let mut machine = Machine::new(state, rise, fall);
        let after = |result| {
            machine.observe(result == '+');
            machine.state()
        };
        results.chars().map(after).collect()
    }

    #[test]
    fn every_transition() {
        let rows: [(State, u32, u32, &str, &[State]); 14] = [
            (Unknown, 2, 3, "+", &[Healthy]),
            (Unknown, 2, 3, "-", &[Unknown]),
            (Unknown, 2, 3, "--+", &[Unknown, Unknown, Healthy]),
            (Unknown, 2, 3, "---", &[Unknown, Unknown, Down]),
            (Unknown, 2, 1, "-", &[Down]),
            (Healthy, 2, 3, "+", &[Healthy]),
            (Healthy, 2, 3, "---", &[Healthy, Healthy, Down]),
            (Healthy, 2, 3, "--+--", &[Healthy; 5]),
            (Healthy, 2, 1, "-", &[Down]),
            (Down, 2, 3, "-", &[Down]),
            (Down, 2, 3, "++", &[Down, Healthy]),
            (Down, 2, 3, "+-+", &[Down; 3]),
            (Down, 1, 3, "+", &[Healthy]),
            (Unknown, 0, 0, "-+-", &[Down, Healthy, Down]),
        ];
        for (state, rise, fall, results, expected) in rows {
            let case = format!("{state:?}, rise {rise}, fall {fall}, {results}");
            assert_eq!(run(state, rise, fall, results), expected, "{case}");
        }
    }

    #[test]
    fn failures_before_the_first_success_do_not_count_after_it() {
        assert_eq!(run(Unknown, 2, 3, "--+--"), [Unknown, Unknown, Healthy, Healthy, Healthy]);
    }

    #[test]
    fn a_change_says_how_many_results_made_it() {
        let mut machine = Machine::new(Unknown, 2, 3);
        let changes = [true, false, false, false, true, true].map(|r| machine.observe(r));
        assert_eq!(changes, [Some(1), None, None, Some(3), None, Some(2)]);
    }

    /// How many of the last results are equal to the last one.
    fn row(results: &[bool]) -> u32 {
        let last = results.last();
        results.iter().rev().take_while(|r| Some(*r) == last).count() as u32
    }

    /// The state said in terms of the whole history, without counters: it follows the last row
    /// that was long enough to set one.
    fn by_history(rise: u32, fall: u32, results: &[bool]) -> State {
        let mut state = Unknown;
        for end in 1..=results.len() {
            let length = row(&results[..end]);
            state = match (results[end - 1], state) {
                (false, _) if length >= fall => Down,
                (true, Unknown) => Healthy,
                (true, _) if length >= rise => Healthy,
                (_, state) => state,
            };
        }
        state
    }

    proptest! {
        #[test]
        fn the_state_follows_from_the_rows_in_the_history(
            rise in 1u32..5, fall in 1u32..5, results in prop::collection::vec(any::<bool>(), 0..60),
        ) {
            let mut machine = Machine::new(Unknown, rise, fall);
            for end in 0..results.len() {
                let before = machine.state();
                let change = machine.observe(results[end]);
                prop_assert_eq!(machine.state(), by_history(rise, fall, &results[..=end]));
                prop_assert_eq!(change.is_some(), before != machine.state());
                prop_assert_ne!(machine.state() == Unknown, results[..=end].contains(&true)
                    || machine.state() == Down);
            }
        }

        #[test]
        fn states_change_at_most_once_in_rise_or_fall_checks(
            rise in 1u32..5, fall in 1u32..5, results in prop::collection::vec(any::<bool>(), 0..60),
        ) {
            let mut machine = Machine::new(Healthy, rise, fall);
            let changes = results.iter().filter(|r| machine.observe(**r).is_some()).count();
            prop_assert!(changes <= 2 * results.len() / (rise + fall) as usize + 1);
        }
    }
}
