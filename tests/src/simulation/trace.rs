//! The last things that happened, for who has to understand a violation.

use std::collections::VecDeque;
use std::fmt;

use lb_agent::vrrp::machine::Action;
use lb_agent::vrrp::moment::Moment;

use super::scenario::Event;

/// As many as make one story; a violation is seen soon after its cause.
const KEPT: usize = 70;

#[derive(Clone, Copy)]
pub(super) enum What {
    Started,
    Does(Action),
    Hears { from: usize, priority: u8 },
    Lost { to: usize },
    TimerFires,
    Wakes,
    Happens(Event),
}

#[derive(Clone, Copy)]
struct Note {
    at: Moment,
    /// None where it happens to the world.
    router: Option<usize>,
    what: What,
}

#[derive(Default)]
pub(super) struct Trace(VecDeque<Note>);

impl Trace {
    pub(super) fn note(&mut self, at: Moment, router: Option<usize>, what: What) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(Note { at, router, what });
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.0.iter().map(Note::to_string).collect()
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.at.since_origin().as_secs_f64() * 1000.0;
        match self.router {
            Some(router) => write!(f, "{ms:12.3} ms  router {router}  {}", self.what),
            None => write!(f, "{ms:12.3} ms  world     {}", self.what),
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started => f.write_str("starts"),
            Self::Does(action) => write!(f, "{action:?}"),
            Self::Hears { from, priority } => write!(f, "hears {priority} of router {from}"),
            Self::Lost { to } => write!(f, "what it sent to router {to} is lost"),
            Self::TimerFires => f.write_str("its timer fires"),
            Self::Wakes => f.write_str("wakes"),
            Self::Happens(event) => write!(f, "{event:?}"),
        }
    }
}
