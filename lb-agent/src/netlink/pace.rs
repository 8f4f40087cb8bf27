//! How often a neighbour that doesn't answer is asked for again. Pure: `now` is an argument.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// The kernel itself asks three times within three seconds before it gives up.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// Doubles the pause after each probe of one neighbour, from a second to half a minute.
///
/// Holds an entry for each neighbour that is wanted and unresolved: as many as there are
/// backends, at most, since [`retain`](Self::retain) forgets the others.
#[derive(Debug, Default)]
pub struct ProbePace {
    next: HashMap<(u32, IpAddr), (Instant, Duration)>,
}

impl ProbePace {
    /// Whether to probe a neighbour now; counts it as probed.
    pub fn due(&mut self, now: Instant, ifindex: u32, ip: IpAddr) -> bool {
        let (at, pause) = self.next.entry((ifindex, ip)).or_insert((now, FIRST));
        if now < *at {
            return false;
        }
        *at = now + *pause;
        *pause = (*pause * 2).min(LONGEST);
        true
    }

    /// When the first of the waiting neighbours is due again.
    pub fn next_due(&self) -> Option<Instant> {
        self.next.values().map(|(at, _)| *at).min()
    }

    /// Forgets every neighbour that is not wanted any more: resolved, or of no backend.
    pub fn retain(&mut self, wanted: impl Fn(u32, IpAddr) -> bool) {
        self.next.retain(|&(ifindex, ip), _| wanted(ifindex, ip));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_half_a_minute() {
        let mut pace = ProbePace::default();
        let start = Instant::now();
        let ip = [192, 0, 2, 1].into();
        let seconds = (0..120).filter(|&s| pace.due(start + Duration::from_secs(s), 2, ip));
        assert_eq!(seconds.collect::<Vec<_>>(), [0, 1, 3, 7, 15, 31, 61, 91]);
        assert_eq!(pace.next_due(), Some(start + Duration::from_secs(121)));
    }

    #[test]
    fn a_neighbour_that_was_forgotten_is_probed_at_once() {
        let mut pace = ProbePace::default();
        let now = Instant::now();
        let ip = [192, 0, 2, 1].into();
        assert!(pace.due(now, 2, ip));
        assert!(!pace.due(now, 2, ip));
        pace.retain(|_, _| false);
        assert_eq!(pace.next_due(), None);
        assert!(pace.due(now, 2, ip));
    }
}
