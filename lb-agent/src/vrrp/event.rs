//! What happens to virtual routers, told to the rest of the agent: logged, shown and passed on
//! there, so that nothing of it delays an advertisement.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::SystemTime;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::identity::{Priority, RouterId, Version};
use super::machine::State;
use super::trouble::Trouble;

/// Events that may wait in the channel, and as many again with the thread. An agent whose loop is
/// that far behind has not run for minutes.
pub const QUEUE: usize = 256;

/// Something that happened to one virtual router.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub router_id: RouterId,
    pub version: Version,
    pub interface: String,
    /// The source of this node's advertisements; its family is the router's.
    pub address: IpAddr,
    /// This node's, at that time.
    pub priority: Priority,
    pub at: SystemTime,
    pub happening: Happening,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Happening {
    /// It has another state.
    Transition { from: State, to: State, reason: String },
    /// Another router sends what is wrong, or what a person should know of.
    Trouble(Trouble),
    /// Something keeps it from sending, listening or answering.
    Obstacle(String),
}

/// Where the thread puts events. Never waits.
#[derive(Debug)]
pub(super) struct Outbox {
    sender: mpsc::Sender<Event>,
    waiting: VecDeque<Event>,
    /// Events for which there was no room.
    lost: u64,
}

impl Outbox {
    pub(super) const fn new(sender: mpsc::Sender<Event>) -> Self {
        Self { sender, waiting: VecDeque::new(), lost: 0 }
    }

    pub(super) fn push(&mut self, event: Event) {
        if self.waiting.len() >= QUEUE {
            self.lost += 1;
            // A change of state says more than trouble, and the newest more than the oldest.
            let is_transition =
                |event: &Event| matches!(event.happening, Happening::Transition { .. });
            let least = self.waiting.iter().position(|event| !is_transition(event)).unwrap_or(0);
            self.waiting.remove(least);
        }
        self.waiting.push_back(event);
        self.flush();
    }

    pub(super) fn flush(&mut self) {
        while let Some(event) = self.waiting.pop_front() {
            match self.sender.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Full(event)) => {
                    self.waiting.push_front(event);
                    return;
                }
                // Nobody listens any more: the agent ends.
                Err(TrySendError::Closed(_)) => self.waiting.clear(),
            }
        }
    }

    pub(super) const fn lost(&self) -> u64 {
        self.lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(happening: Happening) -> Event {
        Event {
            router_id: RouterId::new(51).unwrap(),
            version: Version::V3,
            interface: "ens33".to_owned(),
            address: IpAddr::from([192, 0, 2, 1]),
            priority: Priority(100),
            at: SystemTime::UNIX_EPOCH,
            happening,
        }
    }

    fn transition(number: usize) -> Event {
        let reason = number.to_string();
        event(Happening::Transition { from: State::Backup, to: State::Active, reason })
    }

    #[test]
    fn events_wait_for_a_slow_listener_in_their_order() {
        let (sender, mut receiver) = mpsc::channel(1);
        let mut outbox = Outbox::new(sender);
        for number in 0..QUEUE {
            outbox.push(transition(number));
        }
        for number in 0..QUEUE {
            assert_eq!(receiver.try_recv(), Ok(transition(number)));
            outbox.flush();
        }
        assert_eq!(outbox.lost(), 0);
    }

    #[test]
    fn where_there_is_no_room_a_transition_outlives_trouble_and_loss_is_counted() {
        let (sender, mut receiver) = mpsc::channel(1);
        let mut outbox = Outbox::new(sender);
        outbox.push(transition(0));
        outbox.push(event(Happening::Obstacle("no route".to_owned())));
        for number in 1..=QUEUE {
            outbox.push(transition(number));
        }
        assert_eq!(outbox.lost(), 1);
        for number in 0..=QUEUE {
            assert_eq!(receiver.try_recv(), Ok(transition(number)));
            outbox.flush();
        }
    }

    #[test]
    fn nobody_listening_costs_nothing() {
        let (sender, receiver) = mpsc::channel(1);
        drop(receiver);
        let mut outbox = Outbox::new(sender);
        for number in 0..2 * QUEUE {
            outbox.push(transition(number));
        }
        assert_eq!((outbox.waiting.len(), outbox.lost()), (0, 0));
    }
}
