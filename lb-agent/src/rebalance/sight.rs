//! Since when connections are there. The kernel does not say how old a socket is: what is known is when it was seen
//! first, and when it was not there yet.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// What is known of when a connection began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    /// It was there.
    pub there: Instant,
    /// It was not, where that is known.
    pub not_there: Option<Instant>,
}

impl Sight {
    /// It is at least so old.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.there)
    }

    /// Whether it certainly began after that.
    pub fn is_after(&self, moment: Instant) -> bool {
        self.not_there.is_some_and(|not_there| not_there >= moment)
    }
}

/// The connections at one address of a service, by their sockets' cookies, which the kernel never gives twice. As
/// many as there are sockets: each takes a hundredth of what its socket does.
#[derive(Clone, Debug, Default)]
pub struct Sights {
    of: HashMap<u64, Sight>,
    /// When the last look began.
    looked: Option<Instant>,
}

impl Sights {
    /// Takes what a look found, that began and ended at these times: all that there are.
    pub fn note(&mut self, begun: Instant, ended: Instant, cookies: impl Iterator<Item = u64>) {
        // One that came while the look before went on may have been passed over by it.
        let new = Sight { there: ended, not_there: self.looked };
        let of = cookies.map(|cookie| (cookie, self.of.get(&cookie).copied().unwrap_or(new)));
        self.of = of.collect();
        self.looked = Some(begun);
    }

    pub fn of(&self, cookie: u64) -> Option<Sight> {
        self.of.get(&cookie).copied()
    }
}
