//! How fast connections are moved: evenly, one at a time.

use std::time::{Duration, Instant};

/// Of a service on one node, whoever asks for it. In no 60 s are more moved than the budget says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    last: Option<Instant>,
}

impl Pace {
    /// When the next may be moved at so many a minute; at any time where none was yet.
    pub fn due(&self, per_minute: u32) -> Option<Instant> {
        self.last.map(|last| last + pause(per_minute))
    }

    /// Whether one may be moved now. If so it counts as moved.
    pub fn take(&mut self, now: Instant, per_minute: u32) -> bool {
        if self.due(per_minute).is_some_and(|due| now < due) {
            return false;
        }
        self.last = Some(now);
        true
    }
}

/// From one to the next: rounded up, so that one more never fits in a minute.
fn pause(per_minute: u32) -> Duration {
    const MINUTE_NS: u64 = 60_000_000_000;
    Duration::from_nanos(MINUTE_NS.div_ceil(u64::from(per_minute.max(1))))
}
